//! Plain HTTP of peers that have to log in, on its way to the portal and back, byte by byte.
#![allow(
    clippy::unwrap_used,
    reason = "a fixture that cannot be made is a failed test"
)]

use std::net::{IpAddr, SocketAddr};

use aya::{TestRun as _, TestRunOptions};
use datapath_tests::{
    kernel::{self, DROP, Kernel, PASS},
    packets::{flag, ip, number, tcp, udp},
    scene::{Gate as _, PORTAL_PORT, State, V4, V6},
};
use gateway_common::{
    abi::Direction::{self, FromPeer, ToPeer},
    verdict::Reason,
};

const HTTP: u16 = 80;
const PORT: u16 = 40_000;

fn run(gate: &mut Kernel, direction: Direction, packet: &[u8]) -> (u32, Vec<u8>) {
    let mut bytes = [0; 2048];
    let mut options = TestRunOptions::new();
    options.data_in = Some(packet);
    options.data_out = Some(&mut bytes);
    let program = kernel::program(gate.datapath.object(), direction).unwrap();
    let result = program.test_run(options).unwrap();
    let length = usize::try_from(result.data_size_out).unwrap();
    (result.return_value, bytes[..length].to_vec())
}

fn gate(state: State) -> Kernel {
    let mut gate = Kernel::open().unwrap();
    gate.datapath
        .set_captive(&[V4, V6].map(|cast| SocketAddr::new(cast.portal, PORTAL_PORT)))
        .unwrap();
    gate.put(state);
    gate
}

/// With the checksums that it has to have.
fn segment(from: IpAddr, to: IpAddr, ports: (u16, u16), flags: u8) -> Vec<u8> {
    let mut packet = ip(from, to, number::TCP, &tcp(ports.0, ports.1, flags));
    let (addresses, header) = if from.is_ipv4() {
        (12..20, 20)
    } else {
        (8..40, 40)
    };
    let mut summed = packet[addresses].to_vec();
    summed.extend([0, number::TCP, 0, 20]);
    summed.extend_from_slice(&packet[header..]);
    packet[header + 16..header + 18].copy_from_slice(&checksum(&summed));
    if from.is_ipv4() {
        let sum = checksum(&packet[..header]);
        packet[10..12].copy_from_slice(&sum);
    }
    packet
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2);
    let mut sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}

/// There and back: what leaves is, byte for byte, what would have been sent to and by the portal.
#[test]
fn plain_http_of_a_locked_peer_is_led_to_the_portal_and_back() {
    for cast in [V4, V6] {
        for state in [State::Locked, State::Expired, State::Idle] {
            let mut gate = gate(state);
            let portal = cast.portal;
            for flags in [flag::SYN, flag::ACK, flag::FIN | flag::ACK] {
                let asked = segment(cast.peer, cast.server, (PORT, HTTP), flags);
                let led = segment(cast.peer, portal, (PORT, PORTAL_PORT), flags);
                assert_eq!(run(&mut gate, FromPeer, &asked), (PASS, led), "{state:?}");
                let flags = flags | flag::ACK;
                let answered = segment(portal, cast.peer, (PORTAL_PORT, PORT), flags);
                let back = segment(cast.server, cast.peer, (HTTP, PORT), flags);
                assert_eq!(run(&mut gate, ToPeer, &answered), (PASS, back), "{state:?}");
            }
            assert_eq!(gate.counted(FromPeer, Reason::Captive).unwrap(), 3);
            assert_eq!(gate.counted(ToPeer, Reason::Captive).unwrap(), 3);
            assert_eq!(gate.counted(FromPeer, Reason::Locked).unwrap(), 0);
        }
    }
}

#[test]
fn nothing_else_of_a_locked_peer_is() {
    for cast in [V4, V6] {
        let mut gate = gate(State::Locked);
        let portal = cast.portal;
        let out = |ports, flags| segment(cast.peer, cast.server, ports, flags);
        for (what, packet) in [
            ("HTTPS", out((PORT, 443), flag::SYN)),
            ("the middle of a connection", out((PORT, HTTP), flag::ACK)),
            ("an answer", out((PORT, HTTP), flag::SYN | flag::ACK)),
            ("from port 80", out((HTTP, PORT), flag::SYN)),
            (
                "UDP",
                ip(cast.peer, cast.server, number::UDP, &udp(PORT, HTTP, 5)),
            ),
        ] {
            assert_eq!(run(&mut gate, FromPeer, &packet).0, DROP, "{what}");
        }
        // What nobody was led to has no way in, whoever claims to send it.
        for (what, from, ports) in [
            ("the portal, unasked", portal, (PORTAL_PORT, PORT)),
            ("the portal, from another port", portal, (HTTP, PORT)),
            ("somebody else", cast.server, (HTTP, PORT)),
        ] {
            let packet = segment(from, cast.peer, ports, flag::SYN | flag::ACK);
            assert_eq!(run(&mut gate, ToPeer, &packet).0, DROP, "{what}");
        }
        assert_eq!(gate.counted(FromPeer, Reason::Captive).unwrap(), 0);
        assert_eq!(gate.counted(ToPeer, Reason::Captive).unwrap(), 0);
    }
}

#[test]
fn a_led_connection_lets_nothing_but_the_portal_in_and_reaches_nothing_else() {
    for cast in [V4, V6] {
        let mut gate = gate(State::Locked);
        let portal = cast.portal;
        let opener = segment(cast.peer, cast.server, (PORT, HTTP), flag::SYN);
        assert_eq!(run(&mut gate, FromPeer, &opener).0, PASS);
        // The address that was asked for cannot use it itself, nor the portal another port of the peer.
        for (from, ports) in [
            (cast.server, (HTTP, PORT)),
            (portal, (PORTAL_PORT, PORT + 1)),
            (portal, (HTTP, PORT)),
        ] {
            let packet = segment(from, cast.peer, ports, flag::SYN | flag::ACK);
            assert_eq!(run(&mut gate, ToPeer, &packet).0, DROP, "{ports:?}");
        }
        // Nor does the peer get on with another destination from the same port.
        let other = match cast.peer {
            IpAddr::V4(_) => "10.9.0.77".parse().unwrap(),
            IpAddr::V6(_) => "fd09::77".parse().unwrap(),
        };
        let astray = segment(cast.peer, other, (PORT, HTTP), flag::ACK);
        assert_eq!(run(&mut gate, FromPeer, &astray).0, DROP);
    }
}

#[test]
fn a_live_peers_http_goes_where_it_is_sent() {
    for cast in [V4, V6] {
        let mut gate = gate(State::Live);
        let opener = segment(cast.peer, cast.server, (PORT, HTTP), flag::SYN);
        assert_eq!(run(&mut gate, FromPeer, &opener), (PASS, opener.clone()));
        assert_eq!(gate.counted(FromPeer, Reason::Captive).unwrap(), 0);
    }
}

#[test]
fn unknown_peers_and_locations_without_it_are_not_led() {
    for cast in [V4, V6] {
        let opener = segment(cast.peer, cast.server, (PORT, HTTP), flag::SYN);
        let mut unknown = gate(State::Unknown);
        assert_eq!(run(&mut unknown, FromPeer, &opener).0, DROP);
        let mut off = gate(State::Locked);
        off.datapath.set_captive(&[]).unwrap();
        assert_eq!(run(&mut off, FromPeer, &opener).0, DROP);
        assert_eq!(off.counted(FromPeer, Reason::Locked).unwrap(), 1);
    }
}
