//! What the programs tell about single packets and single peers.
#![allow(
    clippy::unwrap_used,
    reason = "a fixture that cannot be made is a failed test"
)]

use std::mem::offset_of;

use datapath_tests::{
    kernel::Kernel,
    packets::{flag, ip, number, tcp, udp},
    scene::{Gate as _, PEER_KEY, State, V4, V6},
};
use gateway_common::{
    abi::{Direction::FromPeer, Direction::ToPeer, Event, NO_PEER},
    verdict::Reason,
};

/// Reason, direction, destination port and whether it is a peer's, of each event so far.
fn events(gate: &mut Kernel) -> Vec<(Reason, u8, u16, bool)> {
    let mut ring = gate
        .datapath
        .take_events()
        .expect("the events are taken once");
    let mut all = Vec::new();
    while let Some(item) = ring.next() {
        assert_eq!(item.len(), size_of::<Event>());
        let word = |at: usize| u32::from_ne_bytes(item[at..at + 4].try_into().unwrap());
        let port = offset_of!(Event, destination_port);
        all.push((
            Reason::from_number(item[offset_of!(Event, reason)]).unwrap(),
            item[offset_of!(Event, direction)],
            u16::from_ne_bytes(item[port..port + 2].try_into().unwrap()),
            word(offset_of!(Event, peer)) != NO_PEER,
        ));
    }
    all
}

#[test]
fn inv9_drops_are_told_and_openings_only_while_somebody_listens() {
    for cast in [V4, V6] {
        let mut gate = Kernel::open().unwrap();
        gate.put(State::Live);
        let open = |port| ip(cast.peer, cast.server, number::UDP, &udp(port, 53, 8));
        gate.run(FromPeer, &open(1));
        gate.run(
            ToPeer,
            &ip(cast.server, cast.peer, number::TCP, &tcp(9, 7, flag::SYN)),
        );
        gate.datapath.set_trace(true).unwrap();
        gate.run(FromPeer, &open(2));
        // The same flow goes on, and says nothing more.
        gate.run(FromPeer, &open(2));
        gate.run(
            FromPeer,
            &ip(cast.stranger, cast.server, number::UDP, &udp(3, 54, 8)),
        );
        gate.datapath.set_trace(false).unwrap();
        gate.run(FromPeer, &open(4));
        assert_eq!(
            events(&mut gate),
            [
                (Reason::Unsolicited, 1, 7, true),
                (Reason::Session, 0, 53, true),
                (Reason::UnknownPeer, 0, 54, false)
            ]
        );
        assert_eq!(gate.datapath.lost_events().unwrap(), 0);
    }
}

#[test]
fn inv9_events_beyond_the_budget_are_counted_as_lost() {
    let mut gate = Kernel::open().unwrap();
    let syn = ip(V4.peer, V4.server, number::TCP, &tcp(5000, 22, flag::SYN));
    for _ in 0..1000 {
        gate.run(FromPeer, &syn);
    }
    let told = events(&mut gate).len() as u64;
    let lost = gate.datapath.lost_events().unwrap();
    assert!(told >= 16, "{told}");
    assert_eq!(told + lost, 1000);
}

#[test]
fn inv9_drops_are_counted_for_each_peer_and_forgotten_with_it() {
    let mut gate = Kernel::open().unwrap();
    let syn = ip(V4.peer, V4.server, number::TCP, &tcp(5000, 22, flag::SYN));
    for _ in 0..3 {
        gate.run(FromPeer, &syn);
    }
    gate.put(State::Expired);
    gate.run(FromPeer, &syn);
    let mut drops = gate.datapath.peer_drops(&PEER_KEY).unwrap();
    drops.sort_unstable();
    assert_eq!(drops, [(Reason::Locked, 3), (Reason::Expired, 1)]);
    gate.put(State::Unknown);
    gate.put(State::Locked);
    assert_eq!(gate.datapath.peer_drops(&PEER_KEY).unwrap(), []);
}
