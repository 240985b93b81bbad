//! Packets × states × directions → verdict and reason, on this machine's kernel and in memory: the two
//! must agree with the table and so with each other (invariant 8).
#![allow(
    clippy::unwrap_used,
    reason = "a fixture that cannot be made is a failed test"
)]

mod fragments;
mod headers;
mod icmp;
mod states;

use std::net::IpAddr;

use datapath_tests::{
    kernel::Kernel,
    memory::Memory,
    packets::{echo_reply, echo_request, flag, icmp_number, ip, number, tcp, udp},
    scene::{Cast, Gate as _, State},
};
use gateway_common::{abi::Direction, verdict::Reason};

/// Both gates, asked the same things.
pub(crate) struct Both {
    kernel: Kernel,
    memory: Memory,
}

impl Both {
    pub(crate) fn new() -> Self {
        Self {
            kernel: Kernel::open().unwrap(),
            memory: Memory::with_cast(),
        }
    }

    pub(crate) fn put(&mut self, state: State) {
        self.kernel.put(state);
        self.memory.put(state);
    }

    #[track_caller]
    pub(crate) fn expect(
        &mut self,
        what: &str,
        direction: Direction,
        packet: &[u8],
        wanted: Reason,
    ) {
        let found = self.kernel.run(direction, packet);
        assert_eq!(found, wanted, "{what}, {direction:?}, in the kernel");
        let found = self.memory.run(direction, packet);
        assert_eq!(found, wanted, "{what}, {direction:?}, in memory");
    }
}

/// A conversation that the peer opens with `remote`, and the answer.
pub(crate) fn conversations(
    cast: &Cast,
    remote: IpAddr,
    port: u16,
) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let own = cast.peer;
    let echo = icmp_number(own);
    vec![
        (
            "tcp",
            ip(own, remote, number::TCP, &tcp(port, 22, flag::SYN)),
            ip(
                remote,
                own,
                number::TCP,
                &tcp(22, port, flag::SYN | flag::ACK),
            ),
        ),
        (
            "udp",
            ip(own, remote, number::UDP, &udp(port, 123, 32)),
            ip(remote, own, number::UDP, &udp(123, port, 32)),
        ),
        (
            "echo",
            ip(own, remote, echo, &echo_request(own, port)),
            ip(remote, own, echo, &echo_reply(own, port)),
        ),
        (
            "gre",
            ip(own, remote, number::GRE, &[0; 16]),
            ip(remote, own, number::GRE, &[0; 16]),
        ),
    ]
}
