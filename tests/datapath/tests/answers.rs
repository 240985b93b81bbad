//! What senders of dropped openers get to see: the packet that the programs make of theirs, byte by
//! byte, and everything that must stay without an answer.
#![allow(
    clippy::unwrap_used,
    reason = "a fixture that cannot be made is a failed test"
)]

use std::net::IpAddr;

use aya::{TestRun as _, TestRunOptions};
use datapath_tests::{
    kernel::{self, DROP, Kernel, PASS},
    packets::{
        self, Ipv4, Ipv6, echo_reply, echo_request, flag, icmp_number, ip, number, tcp, udp,
        unreachable,
    },
    scene::{Cast, Gate as _, PEER_V4, PORTAL_PORT, SERVER_V4, State, V4, V6},
};
use gateway_common::{
    abi::Direction::{self, FromPeer, ToPeer},
    verdict::Reason,
};

/// `TC_ACT_REDIRECT`.
const REDIRECT: u32 = 7;
/// Where `mark` lies in `struct __sk_buff`.
const MARK: usize = 8;

/// What became of a packet: action, mark, bytes.
fn run(gate: &mut Kernel, direction: Direction, packet: &[u8], mark: u32) -> (u32, u32, Vec<u8>) {
    let mut context_in = [0; 192];
    context_in[MARK..MARK + 4].copy_from_slice(&mark.to_ne_bytes());
    let (mut context, mut bytes) = ([0; 192], [0; 2048]);
    let mut options = TestRunOptions::new();
    options.data_in = Some(packet);
    options.ctx_in = Some(&context_in);
    options.data_out = Some(&mut bytes);
    options.ctx_out = Some(&mut context);
    let program = kernel::program(gate.datapath.object(), direction).unwrap();
    let result = program.test_run(options).unwrap();
    let mark = u32::from_ne_bytes(context[MARK..MARK + 4].try_into().unwrap());
    let length = usize::try_from(result.data_size_out).unwrap();
    (result.return_value, mark, bytes[..length].to_vec())
}

fn gate(state: State) -> Kernel {
    let mut gate = Kernel::open().unwrap();
    gate.datapath.set_answers(true).unwrap();
    gate.put(state);
    gate
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// Source, destination, protocol and what follows the IP header, whose checksums must be right.
fn parts(packet: &[u8]) -> (IpAddr, IpAddr, u8, Vec<u8>) {
    let four = packet[0] >> 4 == 4;
    let (addresses, header, protocol) = if four {
        (12..20, 20, packet[9])
    } else {
        (8..40, 40, packet[6])
    };
    let mut all = Vec::new();
    if four {
        assert_eq!(checksum(&packet[..20]), 0, "the header's checksum");
    }
    if !(four && protocol == number::ICMP) {
        all.extend_from_slice(&packet[addresses]);
        all.extend([0, protocol]);
        all.extend(u16::try_from(packet.len() - header).unwrap().to_be_bytes());
    }
    all.extend_from_slice(&packet[header..]);
    assert_eq!(checksum(&all), 0, "the payload's checksum");
    let address = |at: usize| -> IpAddr {
        if four {
            <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap().into()
        } else {
            <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap().into()
        }
    };
    let (source, destination) = if four {
        (address(12), address(16))
    } else {
        (address(8), address(24))
    };
    (source, destination, protocol, packet[header..].to_vec())
}

/// An opener dropped in each direction: from the locked peer, and to the live one, unasked.
fn openers(
    cast: &Cast,
    payload: u8,
    bytes: &[u8],
) -> [(State, Direction, IpAddr, IpAddr, Vec<u8>); 2] {
    [
        (
            State::Locked,
            FromPeer,
            cast.peer,
            cast.server,
            ip(cast.peer, cast.server, payload, bytes),
        ),
        (
            State::Live,
            ToPeer,
            cast.server,
            cast.peer,
            ip(cast.server, cast.peer, payload, bytes),
        ),
    ]
}

#[test]
fn a_tcp_opener_gets_a_reset_from_where_it_was_going() {
    for cast in [V4, V6] {
        let mut syn = tcp(5000, 22, flag::SYN);
        syn[4..8].copy_from_slice(&[0xff; 4]);
        syn.extend([0x61; 100]);
        for (state, direction, from, to, packet) in openers(&cast, number::TCP, &syn) {
            let mut gate = gate(state);
            let (action, mark, answer) = run(&mut gate, direction, &packet, 0);
            assert_eq!(action, REDIRECT, "{direction:?}");
            assert_ne!(mark, 0);
            let (source, destination, protocol, tcp) = parts(&answer);
            assert_eq!(
                (source, destination, protocol, tcp.len()),
                (to, from, number::TCP, 20)
            );
            assert_eq!(tcp[..4], [0, 22, 0x13, 0x88]);
            assert_eq!(tcp[8..12], [0; 4], "acknowledges the SYN alone, and wraps");
            assert_eq!(tcp[13], flag::RST | flag::ACK);
        }
    }
}

#[test]
fn what_is_no_tcp_gets_administratively_prohibited() {
    for cast in [V4, V6] {
        let echo = icmp_number(cast.peer);
        let mut openers = openers(&cast, number::UDP, &udp(5000, 53, 600)).to_vec();
        openers.extend(self::openers(&cast, echo, &echo_request(cast.peer, 9)));
        openers.extend(
            self::openers(&cast, number::GRE, &[7; 24])
                .into_iter()
                .take(1),
        );
        for (state, direction, from, to, packet) in openers {
            let mut gate = gate(state);
            let (action, mark, answer) = run(&mut gate, direction, &packet, 0);
            assert_eq!(action, REDIRECT, "{direction:?}");
            assert_ne!(mark, 0);
            let (source, destination, protocol, icmp) = parts(&answer);
            assert_eq!((source, destination, protocol), (to, from, echo));
            let kind = if cast.peer.is_ipv4() { [3, 13] } else { [1, 1] };
            assert_eq!(icmp[..2], kind);
            let quoted = &icmp[8..];
            assert_eq!(quoted, &packet[..quoted.len()]);
            assert_eq!(quoted.len(), if cast.peer.is_ipv4() { 28 } else { 48 });
        }
    }
}

#[test]
fn an_answer_passes_the_other_program_once_without_its_mark_and_opens_nothing() {
    for cast in [V4, V6] {
        for (state, direction, _, _, packet) in
            openers(&cast, number::TCP, &tcp(5000, 22, flag::SYN))
        {
            // Given an answer…
            let mut gate = gate(state);
            let (_, mark, answer) = run(&mut gate, direction, &packet, 0);
            // …when it crosses the interface…
            let other = if direction == FromPeer {
                ToPeer
            } else {
                FromPeer
            };
            let (action, left, unchanged) = run(&mut gate, other, &answer, mark);
            assert_eq!((action, left), (PASS, 0), "the mark does not leak");
            assert_eq!(unchanged, answer);
            assert_eq!(gate.counted(other, Reason::Answer).unwrap(), 1);
            // …then no flow is open, although the peer itself might open this one.
            assert_eq!(run(&mut gate, direction, &packet, 0).0, REDIRECT);
            // And a guess at the mark is worth nothing.
            let (action, ..) = run(
                &mut gate,
                ToPeer,
                &ip(cast.server, cast.peer, number::TCP, &tcp(1, 1, 0)),
                mark ^ 1,
            );
            assert_eq!(action, DROP);
        }
    }
}

#[test]
fn what_must_not_be_answered_is_not() {
    for cast in [V4, V6] {
        let echo = icmp_number(cast.peer);
        let mut gate = gate(State::Locked);
        let syn = tcp(5000, 22, flag::SYN);
        let opener = ip(cast.peer, cast.server, number::TCP, &syn);
        let multicast: IpAddr = if cast.peer.is_ipv4() {
            "224.0.0.251"
        } else {
            "ff02::fb"
        }
        .parse()
        .unwrap();
        let [nowhere, loopback] = if cast.peer.is_ipv4() {
            ["255.255.255.255", "127.0.0.1"]
        } else {
            ["::", "::1"]
        }
        .map(|text| text.parse::<IpAddr>().unwrap());
        for (what, direction, packet) in [
            (
                "no opener",
                FromPeer,
                ip(
                    cast.peer,
                    cast.server,
                    number::TCP,
                    &tcp(5000, 22, flag::ACK),
                ),
            ),
            (
                "RST",
                FromPeer,
                ip(
                    cast.peer,
                    cast.server,
                    number::TCP,
                    &tcp(5000, 22, flag::RST),
                ),
            ),
            (
                "SYN and RST",
                FromPeer,
                ip(
                    cast.peer,
                    cast.server,
                    number::TCP,
                    &tcp(5000, 22, flag::SYN | flag::RST),
                ),
            ),
            (
                "an answer",
                ToPeer,
                ip(
                    cast.server,
                    cast.peer,
                    number::TCP,
                    &tcp(22, 5000, flag::SYN | flag::ACK),
                ),
            ),
            (
                "an error",
                FromPeer,
                ip(
                    cast.peer,
                    cast.server,
                    echo,
                    &unreachable(cast.peer, &opener),
                ),
            ),
            (
                "an echo reply",
                FromPeer,
                ip(cast.peer, cast.server, echo, &echo_reply(cast.peer, 9)),
            ),
            (
                "an unknown peer",
                FromPeer,
                ip(cast.stranger, cast.server, number::TCP, &syn),
            ),
            (
                "to an unknown peer",
                ToPeer,
                ip(cast.server, cast.stranger, number::TCP, &syn),
            ),
            (
                "multicast",
                FromPeer,
                ip(cast.peer, multicast, number::UDP, &udp(5353, 5353, 40)),
            ),
            (
                "from a multicast address",
                ToPeer,
                ip(multicast, cast.peer, number::UDP, &udp(5353, 5353, 40)),
            ),
            (
                "from an address of no host",
                ToPeer,
                ip(nowhere, cast.peer, number::TCP, &syn),
            ),
            (
                "from this host to itself",
                ToPeer,
                ip(loopback, cast.peer, number::TCP, &syn),
            ),
            (
                "to an address of no host",
                FromPeer,
                ip(cast.peer, nowhere, number::TCP, &syn),
            ),
            (
                "GRE to the peer",
                ToPeer,
                ip(cast.server, cast.peer, number::GRE, &[7; 24]),
            ),
            ("too short", FromPeer, opener[..opener.len() - 1].to_vec()),
        ] {
            let (action, mark, unchanged) = run(&mut gate, direction, &packet, 0);
            assert_eq!((action, mark), (DROP, 0), "{what}");
            assert_eq!(unchanged, packet, "{what}");
        }
        // What is permitted is left alone.
        let portal = ip(
            cast.peer,
            cast.portal,
            number::TCP,
            &tcp(5000, PORTAL_PORT, flag::SYN),
        );
        assert_eq!(run(&mut gate, FromPeer, &portal, 0), (PASS, 0, portal));
    }
}

#[test]
fn fragments_options_and_extension_headers_are_not_answered() {
    let mut gate = gate(State::Locked);
    let datagram = udp(5000, 53, 64);
    let first = Ipv4 {
        fragment: packets::flags(0, true),
        ..Ipv4::new(PEER_V4, SERVER_V4, number::UDP)
    };
    let options = Ipv4 {
        options: vec![1, 1, 1, 0],
        ..Ipv4::new(PEER_V4, SERVER_V4, number::UDP)
    };
    let (IpAddr::V6(peer), IpAddr::V6(server)) = (V6.peer, V6.server) else {
        unreachable!()
    };
    let extended =
        Ipv6::new(peer, server, number::UDP).with(number::DESTINATION, packets::options(1));
    let fragment =
        Ipv6::new(peer, server, number::UDP).with(number::FRAGMENT, packets::fragment(0, true, 7));
    for packet in [
        first.build(&datagram),
        options.build(&datagram),
        extended.build(&datagram),
        fragment.build(&datagram),
    ] {
        assert_eq!(run(&mut gate, FromPeer, &packet, 0).0, DROP);
    }
}

#[test]
fn answers_are_off_until_asked_for_and_can_be_switched_off() {
    let syn = ip(V4.peer, V4.server, number::TCP, &tcp(5000, 22, flag::SYN));
    let mut gate = Kernel::open().unwrap();
    assert_eq!(run(&mut gate, FromPeer, &syn, 0).0, DROP);
    gate.datapath.set_answers(true).unwrap();
    let (action, mark, _) = run(&mut gate, FromPeer, &syn, 0);
    assert_eq!(action, REDIRECT);
    gate.datapath.set_answers(false).unwrap();
    assert_eq!(run(&mut gate, FromPeer, &syn, 0).0, DROP);
    gate.datapath.set_answers(true).unwrap();
    assert_eq!(
        run(&mut gate, FromPeer, &syn, 0).1,
        mark,
        "the mark stays while the maps live"
    );
}

#[test]
fn answers_are_rationed() {
    let mut gate = gate(State::Locked);
    let syn = ip(V4.peer, V4.server, number::TCP, &tcp(5000, 22, flag::SYN));
    let answered = (0..400)
        .filter(|_| run(&mut gate, FromPeer, &syn, 0).0 == REDIRECT)
        .count();
    // Some hundred a second and CPU, and this takes less than a few windows of half a second.
    assert!((50..400).contains(&answered), "{answered} of 400");
}
