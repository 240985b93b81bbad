//! Packets × states × directions → verdict and reason, on this machine's kernel and in memory: the two
//! must agree with the table and so with each other (invariant 8).
#![allow(
    clippy::unwrap_used,
    reason = "a fixture that cannot be made is a failed test"
)]

use std::net::IpAddr;

use datapath_tests::{
    kernel::Kernel,
    memory::Memory,
    packets::{
        self, Ipv4, Ipv6, echo_reply, echo_request, flag, flags, icmp, icmp_number, ip, number,
        routing, tcp, udp, unreachable,
    },
    scene::{
        Cast, Gate, OTHER_V4, PEER_V4, PEER_V6, PORTAL_PORT, SERVER_V4, SERVER_V6, State, V4, V6,
    },
};
use gateway_common::{
    abi::Direction::{self, FromPeer, ToPeer},
    verdict::Reason,
};

/// Both gates, asked the same things.
struct Both {
    kernel: Kernel,
    memory: Memory,
}

impl Both {
    fn new() -> Self {
        Self {
            kernel: Kernel::open().unwrap(),
            memory: Memory::with_cast(),
        }
    }

    fn put(&mut self, state: State) {
        self.kernel.put(state);
        self.memory.put(state);
    }

    #[track_caller]
    fn expect(&mut self, what: &str, direction: Direction, packet: &[u8], wanted: Reason) {
        let found = self.kernel.run(direction, packet);
        assert_eq!(found, wanted, "{what}, {direction:?}, in the kernel");
        let found = self.memory.run(direction, packet);
        assert_eq!(found, wanted, "{what}, {direction:?}, in memory");
    }
}

/// A conversation that the peer opens with `remote`, and the answer.
fn conversations(cast: &Cast, remote: IpAddr, port: u16) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
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

#[test]
fn inv1_inv3_every_state_decides_what_a_peer_may_open_and_what_may_answer() {
    let mut gate = Both::new();
    for cast in [V4, V6] {
        for (i, state) in State::ALL.into_iter().enumerate() {
            // Given a conversation that was opened while the session was live…
            gate.put(State::Live);
            let old = conversations(&cast, cast.server, 1000 + i as u16);
            for (what, ask, answer) in &old {
                gate.expect(what, FromPeer, ask, Reason::Session);
                gate.expect(what, ToPeer, answer, Reason::Session);
            }
            // …when the peer is in this state, then the old conversation ends as a new one does…
            gate.put(state);
            let new = conversations(&cast, cast.server, 2000 + i as u16);
            for (what, ask, _) in old.iter().chain(&new) {
                gate.expect(
                    &format!("{what}, {state:?}"),
                    FromPeer,
                    ask,
                    state.to_server(),
                );
            }
            // …in both directions…
            for (what, _, answer) in &old {
                gate.expect(
                    &format!("answer to {what}, {state:?}"),
                    ToPeer,
                    answer,
                    state.to_server(),
                );
            }
            // …and nothing reaches the peer unasked, whatever its state.
            for (what, _, answer) in conversations(&cast, cast.server, 3000 + i as u16) {
                let wanted = if state == State::Unknown {
                    Reason::UnknownPeer
                } else {
                    Reason::Unsolicited
                };
                // Without ports, one conversation is like the other.
                let wanted = if what == "gre" {
                    state.to_server()
                } else {
                    wanted
                };
                gate.expect(
                    &format!("unasked {what}, {state:?}"),
                    ToPeer,
                    &answer,
                    wanted,
                );
            }
        }
    }
}

#[test]
fn inv1_portal_and_resolver_are_reachable_in_every_state_and_nothing_else_of_the_gateway() {
    let mut gate = Both::new();
    for cast in [V4, V6] {
        for (i, state) in State::ALL.into_iter().enumerate() {
            gate.put(state);
            let port = 4000 + i as u16;
            let known = |reason| {
                if state == State::Unknown {
                    Reason::UnknownPeer
                } else {
                    reason
                }
            };
            let syn = ip(
                cast.peer,
                cast.portal,
                number::TCP,
                &tcp(port, PORTAL_PORT, flag::SYN),
            );
            gate.expect("portal", FromPeer, &syn, known(Reason::OpenService));
            let ack = ip(
                cast.portal,
                cast.peer,
                number::TCP,
                &tcp(PORTAL_PORT, port, flag::SYN | flag::ACK),
            );
            gate.expect("portal's answer", ToPeer, &ack, known(Reason::OpenService));
            let ask = ip(cast.peer, cast.portal, number::UDP, &udp(port, 53, 20));
            gate.expect("resolver", FromPeer, &ask, known(Reason::OpenService));
            let ssh = ip(
                cast.peer,
                cast.portal,
                number::TCP,
                &tcp(port, 22, flag::SYN),
            );
            gate.expect("gateway's other ports", FromPeer, &ssh, state.to_server());
            let quic = ip(
                cast.peer,
                cast.portal,
                number::UDP,
                &udp(port, PORTAL_PORT, 20),
            );
            gate.expect(
                "portal's port, other protocol",
                FromPeer,
                &quic,
                state.to_server(),
            );
            // The remote's source port is no permission.
            let forged = ip(
                cast.portal,
                cast.peer,
                number::TCP,
                &tcp(PORTAL_PORT, 5999, flag::SYN),
            );
            gate.expect(
                "from the portal's port, unasked",
                ToPeer,
                &forged,
                known(Reason::Unsolicited),
            );
        }
    }
}

#[test]
fn inv2_what_passes_without_a_session_does_not_wake_an_idle_one() {
    let mut gate = Both::new();
    gate.put(State::Idle);
    for _ in 0..3 {
        let syn = ip(
            V4.peer,
            V4.portal,
            number::TCP,
            &tcp(4100, PORTAL_PORT, flag::SYN),
        );
        gate.expect("portal", FromPeer, &syn, Reason::OpenService);
        let other = ip(V4.peer, V4.server, number::TCP, &tcp(4100, 22, flag::SYN));
        gate.expect("server", FromPeer, &other, Reason::Idle);
    }
}

#[test]
fn inv1_a_source_proves_its_peer_and_no_other() {
    let mut gate = Both::new();
    gate.put(State::Live);
    for cast in [V4, V6] {
        let unknown = ip(cast.stranger, cast.server, number::UDP, &udp(1, 2, 8));
        gate.expect("unknown source", FromPeer, &unknown, Reason::UnknownPeer);
        let unknown = ip(cast.server, cast.stranger, number::UDP, &udp(1, 2, 8));
        gate.expect("unknown destination", ToPeer, &unknown, Reason::UnknownPeer);
    }
    gate.put(State::Locked);
    for cast in [V4, V6] {
        // The other peer is live, and stays what it is.
        let other = ip(cast.other, cast.server, number::UDP, &udp(1, 2, 8));
        gate.expect("other peer", FromPeer, &other, Reason::Session);
    }
}

#[test]
fn inv3_peer_to_peer_traffic_has_to_satisfy_both() {
    let mut gate = Both::new();
    gate.put(State::Live);
    for cast in [V4, V6] {
        let there = ip(cast.peer, cast.other, number::UDP, &udp(700, 701, 8));
        gate.expect("leaving one peer", FromPeer, &there, Reason::Session);
        gate.expect(
            "reaching the other unasked",
            ToPeer,
            &there,
            Reason::Unsolicited,
        );
    }
}

#[test]
fn inv1_truncated_and_contradictory_headers_are_dropped() {
    let mut gate = Both::new();
    gate.put(State::Live);
    let v4 = Ipv4::new(PEER_V4, SERVER_V4, number::TCP);
    let v6 = Ipv6::new(PEER_V6, SERVER_V6, number::TCP);
    let syn = tcp(1, 2, flag::SYN);
    let cases: Vec<(&str, Vec<u8>, Reason)> = vec![
        (
            "not IP",
            [vec![0x50], v4.build(&syn)[1..].to_vec()].concat(),
            Reason::NotIp,
        ),
        ("version 0", vec![0; 40], Reason::NotIp),
        (
            "half an IPv4 header",
            v4.build(&syn)[..16].to_vec(),
            Reason::Truncated,
        ),
        (
            "half an IPv6 header",
            v6.build(&syn)[..32].to_vec(),
            Reason::Truncated,
        ),
        (
            "IHL 4",
            Ipv4 {
                first: Some(0x44),
                ..v4.clone()
            }
            .build(&syn),
            Reason::BadHeader,
        ),
        (
            "IHL beyond total length",
            Ipv4 {
                first: Some(0x4f),
                total: Some(40),
                ..v4.clone()
            }
            .build(&syn),
            Reason::BadHeader,
        ),
        (
            "total length below IHL",
            Ipv4 {
                total: Some(19),
                ..v4.clone()
            }
            .build(&syn),
            Reason::BadHeader,
        ),
        (
            "total length 0",
            Ipv4 {
                total: Some(0),
                ..v4.clone()
            }
            .build(&syn),
            Reason::BadHeader,
        ),
        (
            "total length beyond the packet",
            Ipv4 {
                total: Some(41),
                ..v4.clone()
            }
            .build(&syn),
            Reason::Truncated,
        ),
        (
            "payload length beyond the packet",
            Ipv6 {
                length: Some(21),
                ..v6.clone()
            }
            .build(&syn),
            Reason::Truncated,
        ),
        ("TCP cut short", v4.build(&syn[..19]), Reason::Truncated),
        ("TCP cut short, v6", v6.build(&syn[..16]), Reason::Truncated),
        (
            "TCP header past total length",
            Ipv4 {
                total: Some(36),
                ..v4.clone()
            }
            .build(&syn),
            Reason::Truncated,
        ),
        (
            "TCP data offset 4",
            v4.build(&[&syn[..12], &[4 << 4, 2], &syn[14..]].concat()),
            Reason::BadHeader,
        ),
        (
            "TCP data offset 15",
            v6.build(&[&syn[..12], &[15 << 4, 2], &syn[14..]].concat()),
            Reason::BadHeader,
        ),
        (
            "UDP cut short",
            Ipv4::new(PEER_V4, SERVER_V4, number::UDP).build(&[0; 7]),
            Reason::Truncated,
        ),
        (
            "UDP length 7",
            Ipv6::new(PEER_V6, SERVER_V6, number::UDP).build(&[0, 1, 0, 2, 0, 7, 0, 0]),
            Reason::BadHeader,
        ),
        (
            "ICMP cut short",
            Ipv4::new(PEER_V4, SERVER_V4, number::ICMP).build(&[8, 0, 0, 0]),
            Reason::Truncated,
        ),
        (
            "ICMPv6 cut short",
            Ipv6::new(PEER_V6, SERVER_V6, number::ICMPV6).build(&[128; 6]),
            Reason::Truncated,
        ),
        (
            "ICMPv6 over IPv4",
            ip(
                V4.peer,
                V4.server,
                number::ICMPV6,
                &echo_request(V6.peer, 1),
            ),
            Reason::IcmpType,
        ),
        (
            "ICMP over IPv6",
            ip(V6.peer, V6.server, number::ICMP, &echo_request(V4.peer, 1)),
            Reason::IcmpType,
        ),
    ];
    for (what, packet, wanted) in cases {
        gate.expect(what, FromPeer, &packet, wanted);
        gate.expect(what, ToPeer, &packet, wanted);
    }
    // Bytes after the IP packet's end are padding.
    let padded = [v4.build(&syn), vec![0; 12]].concat();
    gate.expect("padding", FromPeer, &padded, Reason::Session);
}

#[test]
fn inv1_ipv4_options_are_walked_and_source_routing_is_dropped() {
    let mut gate = Both::new();
    gate.put(State::Live);
    let with = |options: &[u8]| {
        let mut packet = Ipv4::new(PEER_V4, SERVER_V4, number::TCP);
        packet.options = options.to_vec();
        packet.build(&tcp(10, 22, flag::SYN))
    };
    let cases: [(&str, &[u8], Reason); 11] = [
        ("router alert", &[148, 4, 0, 0], Reason::Session),
        ("no-ops and end", &[1, 1, 1, 0], Reason::Session),
        ("twelve no-ops", &[1; 12], Reason::Session),
        ("forty no-ops", &[1; 40], Reason::BadOptions),
        (
            "loose source route",
            &[131, 7, 4, 10, 9, 0, 1, 0],
            Reason::SourceRoute,
        ),
        (
            "strict source route",
            &[137, 7, 4, 10, 9, 0, 1, 0],
            Reason::SourceRoute,
        ),
        (
            "source route after others",
            &[1, 148, 4, 0, 0, 131, 3, 4],
            Reason::SourceRoute,
        ),
        ("length 0", &[148, 0, 0, 0], Reason::BadOptions),
        ("length 1", &[148, 1, 0, 0], Reason::BadOptions),
        (
            "length past the header",
            &[148, 5, 0, 0],
            Reason::BadOptions,
        ),
        ("no room for a length", &[1, 1, 1, 148], Reason::BadOptions),
    ];
    for (what, options, wanted) in cases {
        gate.expect(what, FromPeer, &with(options), wanted);
    }
    // The end-of-list option hides what follows it.
    gate.expect(
        "source route after the end",
        FromPeer,
        &with(&[0, 131, 3, 4]),
        Reason::Session,
    );
}

#[test]
fn inv1_ipv6_extension_headers_are_walked_within_bounds() {
    let mut gate = Both::new();
    gate.put(State::Live);
    let plain = || Ipv6::new(PEER_V6, SERVER_V6, number::TCP);
    let options = packets::options;
    let (hop, dest, route) = (number::HOP_BY_HOP, number::DESTINATION, number::ROUTING);
    let cases = [
        ("hop-by-hop", plain().with(hop, options(1)), Reason::Session),
        (
            "long hop-by-hop",
            plain().with(hop, options(8)),
            Reason::Session,
        ),
        (
            "destination options",
            plain().with(dest, options(2)),
            Reason::Session,
        ),
        (
            "all of them",
            plain()
                .with(hop, options(1))
                .with(dest, options(1))
                .with(dest, options(1)),
            Reason::Session,
        ),
        (
            "spent routing header",
            plain().with(route, routing(0, 0)),
            Reason::Session,
        ),
        (
            "routing header",
            plain().with(route, routing(0, 1)),
            Reason::SourceRoute,
        ),
        (
            "segment routing",
            plain().with(route, routing(4, 1)),
            Reason::SourceRoute,
        ),
        (
            "hop-by-hop second",
            plain().with(dest, options(1)).with(hop, options(1)),
            Reason::ExtensionHeaders,
        ),
        (
            "five of them",
            plain()
                .with(dest, options(1))
                .with(dest, options(1))
                .with(dest, options(1))
                .with(dest, options(1))
                .with(dest, options(1)),
            Reason::ExtensionHeaders,
        ),
        (
            "two fragment headers",
            plain()
                .with(number::FRAGMENT, packets::fragment(0, false, 1))
                .with(number::FRAGMENT, packets::fragment(0, false, 1)),
            Reason::ExtensionHeaders,
        ),
        (
            "atomic fragment",
            plain().with(number::FRAGMENT, packets::fragment(0, false, 1)),
            Reason::Session,
        ),
    ];
    for (what, packet, wanted) in cases {
        gate.expect(
            what,
            FromPeer,
            &packet.build(&tcp(20, 22, flag::SYN)),
            wanted,
        );
    }
    let mut past = options(1);
    past[1] = 200;
    let past = plain().with(dest, past).build(&tcp(20, 22, flag::SYN));
    gate.expect("longer than the packet", FromPeer, &past, Reason::Truncated);
    let cut = Ipv6 {
        length: Some(4),
        ..plain().with(dest, options(1))
    }
    .build(&[]);
    gate.expect("cut short", FromPeer, &cut, Reason::Truncated);
}

#[test]
fn inv1_later_fragments_pass_where_the_first_has() {
    let mut gate = Both::new();
    gate.put(State::Live);
    let v4 = |source, destination, id, offset, more, payload: &[u8]| {
        Ipv4 {
            id,
            fragment: flags(offset, more),
            ..Ipv4::new(source, destination, number::UDP)
        }
        .build(payload)
    };
    let v6 = |source, destination, id, offset, more, payload: &[u8]| {
        Ipv6::new(source, destination, number::UDP)
            .with(number::FRAGMENT, packets::fragment(offset, more, id))
            .build(payload)
    };
    let first = udp(30, 53, 1000);
    let later = [0x62; 100];

    gate.expect(
        "v4 before the first",
        FromPeer,
        &v4(PEER_V4, SERVER_V4, 1, 1008, false, &later),
        Reason::FragmentWithoutFirst,
    );
    gate.expect(
        "v4 first",
        FromPeer,
        &v4(PEER_V4, SERVER_V4, 1, 0, true, &first),
        Reason::Session,
    );
    gate.expect(
        "v4 later",
        FromPeer,
        &v4(PEER_V4, SERVER_V4, 1, 1008, false, &later),
        Reason::Session,
    );
    gate.expect(
        "v4 again",
        FromPeer,
        &v4(PEER_V4, SERVER_V4, 1, 1008, false, &later),
        Reason::Session,
    );
    gate.expect(
        "v4 other datagram",
        FromPeer,
        &v4(PEER_V4, SERVER_V4, 2, 1008, false, &later),
        Reason::FragmentWithoutFirst,
    );
    gate.expect(
        "v4 other peer",
        FromPeer,
        &v4(OTHER_V4, SERVER_V4, 1, 1008, false, &later),
        Reason::FragmentWithoutFirst,
    );
    gate.expect(
        "v4 other way",
        ToPeer,
        &v4(SERVER_V4, PEER_V4, 1, 1008, false, &later),
        Reason::FragmentWithoutFirst,
    );
    gate.expect(
        "v6 before the first",
        FromPeer,
        &v6(PEER_V6, SERVER_V6, 1, 1008, false, &later),
        Reason::FragmentWithoutFirst,
    );
    gate.expect(
        "v6 first",
        FromPeer,
        &v6(PEER_V6, SERVER_V6, 1, 0, true, &first),
        Reason::Session,
    );
    gate.expect(
        "v6 later",
        FromPeer,
        &v6(PEER_V6, SERVER_V6, 1, 1008, false, &later),
        Reason::Session,
    );

    // Answers, fragmented.
    let answer = udp(53, 30, 1000);
    gate.expect(
        "v4 answer",
        ToPeer,
        &v4(SERVER_V4, PEER_V4, 9, 0, true, &answer),
        Reason::Session,
    );
    gate.expect(
        "v4 answer's rest",
        ToPeer,
        &v4(SERVER_V4, PEER_V4, 9, 1008, false, &later),
        Reason::Session,
    );
    gate.expect(
        "v6 answer",
        ToPeer,
        &v6(SERVER_V6, PEER_V6, 9, 0, true, &answer),
        Reason::Session,
    );
    gate.expect(
        "v6 answer's rest",
        ToPeer,
        &v6(SERVER_V6, PEER_V6, 9, 1008, false, &later),
        Reason::Session,
    );

    // A dropped first fragment opens nothing for the rest.
    let unasked = udp(53, 31, 1000);
    gate.expect(
        "unasked first",
        ToPeer,
        &v4(SERVER_V4, PEER_V4, 10, 0, true, &unasked),
        Reason::Unsolicited,
    );
    gate.expect(
        "unasked rest",
        ToPeer,
        &v4(SERVER_V4, PEER_V4, 10, 1008, false, &later),
        Reason::FragmentWithoutFirst,
    );

    // The end of the session ends datagrams half-way, both ways (invariant 4).
    for (state, wanted) in [
        (State::Revoked, Reason::Locked),
        (State::Expired, Reason::Expired),
    ] {
        gate.put(state);
        gate.expect(
            "rest after the end",
            FromPeer,
            &v4(PEER_V4, SERVER_V4, 1, 1008, false, &later),
            wanted,
        );
        gate.expect(
            "answer's rest after the end",
            ToPeer,
            &v6(SERVER_V6, PEER_V6, 9, 1008, false, &later),
            wanted,
        );
    }
    // A renewed one does not break them.
    gate.put(State::Live);
    gate.expect(
        "rest after renewal",
        FromPeer,
        &v4(PEER_V4, SERVER_V4, 1, 1008, false, &later),
        Reason::Session,
    );
}

#[test]
fn inv1_impossible_fragments_are_dropped() {
    let mut gate = Both::new();
    gate.put(State::Live);
    let v4 = |protocol, offset, more, payload: &[u8]| {
        Ipv4 {
            fragment: flags(offset, more),
            ..Ipv4::new(PEER_V4, SERVER_V4, protocol)
        }
        .build(payload)
    };
    let v6 = |offset, more, payload: &[u8]| {
        Ipv6::new(PEER_V6, SERVER_V6, number::TCP)
            .with(number::FRAGMENT, packets::fragment(offset, more, 3))
            .build(payload)
    };
    let syn = tcp(1, 22, flag::SYN);
    let cases = [
        (
            "tiny first TCP",
            v4(number::TCP, 0, true, &syn[..16]),
            Reason::TinyFragment,
        ),
        (
            "tiny first TCP, v6",
            v6(0, true, &syn[..16]),
            Reason::TinyFragment,
        ),
        ("empty", v4(number::UDP, 0, true, &[]), Reason::BadFragment),
        (
            "first not a multiple of eight",
            v4(number::UDP, 0, true, &[0; 20]),
            Reason::BadFragment,
        ),
        (
            "first not a multiple of eight, v6",
            v6(0, true, &[0; 20]),
            Reason::BadFragment,
        ),
        (
            "into the TCP header",
            v4(number::TCP, 8, false, &[0; 24]),
            Reason::FragmentOverlap,
        ),
        (
            "into the TCP flags",
            v4(number::TCP, 16, true, &[0; 24]),
            Reason::FragmentOverlap,
        ),
        (
            "into the TCP header, v6",
            v6(8, false, &[0; 24]),
            Reason::FragmentOverlap,
        ),
        (
            "past 65535",
            v4(number::UDP, 65_528, false, &[0; 16]),
            Reason::BadFragment,
        ),
        (
            "past 65535, v6",
            v6(65_528, false, &[0; 16]),
            Reason::BadFragment,
        ),
    ];
    for (what, packet, wanted) in cases {
        gate.expect(what, FromPeer, &packet, wanted);
        gate.expect(what, ToPeer, &packet, wanted);
    }
    // The header chain has to be in the first fragment (RFC 7112).
    let chain = Ipv6::new(PEER_V6, SERVER_V6, number::TCP)
        .with(number::FRAGMENT, packets::fragment(0, true, 3))
        .with(number::DESTINATION, packets::options(1))
        .build(&[]);
    gate.expect(
        "chain without transport header",
        FromPeer,
        &chain,
        Reason::TinyFragment,
    );
}

#[test]
fn inv3_icmp_errors_pass_where_they_belong_to_a_flow() {
    let mut gate = Both::new();
    gate.put(State::Live);
    for cast in [V4, V6] {
        let kind = icmp_number(cast.peer);
        for (what, ask, answer) in conversations(&cast, cast.server, 50) {
            if what == "gre" {
                continue;
            }
            let about_ask =
                |from, to, quoted: &[u8]| ip(from, to, kind, &unreachable(cast.peer, quoted));
            gate.expect(
                "error before the flow",
                ToPeer,
                &about_ask(cast.server, cast.peer, &ask),
                Reason::IcmpErrorWithoutFlow,
            );
            gate.expect(what, FromPeer, &ask, Reason::Session);
            gate.expect(
                "server's error",
                ToPeer,
                &about_ask(cast.server, cast.peer, &ask),
                Reason::Session,
            );
            gate.expect(
                "router's error",
                ToPeer,
                &about_ask(cast.router, cast.peer, &ask),
                Reason::Session,
            );
            gate.expect(
                "error with the least of it",
                ToPeer,
                &about_ask(
                    cast.router,
                    cast.peer,
                    &ask[..ask.len().min(if cast.peer.is_ipv4() { 28 } else { 48 })],
                ),
                Reason::Session,
            );
            gate.expect(
                "error about another's packet",
                ToPeer,
                &about_ask(cast.router, cast.other, &ask),
                Reason::IcmpErrorWithoutFlow,
            );
            gate.expect(what, ToPeer, &answer, Reason::Session);
            gate.expect(
                "peer's error",
                FromPeer,
                &about_ask(cast.peer, cast.server, &answer),
                Reason::Session,
            );
            gate.expect(
                "peer's error in another's name",
                FromPeer,
                &about_ask(cast.other, cast.server, &answer),
                Reason::IcmpErrorWithoutFlow,
            );
            gate.expect(
                "peer's error to another",
                FromPeer,
                &about_ask(cast.peer, cast.router, &answer),
                Reason::IcmpErrorWithoutFlow,
            );
            let cut = &ask[..if cast.peer.is_ipv4() { 24 } else { 44 }];
            gate.expect(
                "cut short",
                ToPeer,
                &about_ask(cast.router, cast.peer, cut),
                Reason::Truncated,
            );
        }
        let error = ip(
            cast.server,
            cast.peer,
            kind,
            &unreachable(cast.peer, &conversations(&cast, cast.server, 50)[1].1),
        );
        gate.put(State::Revoked);
        gate.expect("error after revocation", ToPeer, &error, Reason::Locked);
        gate.put(State::Live);
        // Errors about errors, and a quoted packet that is none.
        let nested = ip(
            cast.router,
            cast.peer,
            kind,
            &unreachable(cast.peer, &error),
        );
        gate.expect(
            "error about an error",
            ToPeer,
            &nested,
            Reason::IcmpErrorWithoutFlow,
        );
        let nonsense = ip(
            cast.router,
            cast.peer,
            kind,
            &unreachable(cast.peer, &[0; 60]),
        );
        gate.expect("error about nonsense", ToPeer, &nonsense, Reason::BadHeader);
    }
}

#[test]
fn inv3_echo_is_told_apart_by_who_asks() {
    let mut gate = Both::new();
    gate.put(State::Live);
    for cast in [V4, V6] {
        let kind = icmp_number(cast.peer);
        for id in [0, 1, 77] {
            let ask = ip(cast.peer, cast.server, kind, &echo_request(cast.peer, id));
            gate.expect("ask", FromPeer, &ask, Reason::Session);
            let answer = ip(cast.server, cast.peer, kind, &echo_reply(cast.peer, id));
            gate.expect("answer", ToPeer, &answer, Reason::Session);
            let asked = ip(cast.server, cast.peer, kind, &echo_request(cast.peer, id));
            gate.expect(
                "asked back under the same identifier",
                ToPeer,
                &asked,
                Reason::Unsolicited,
            );
            let reply = ip(cast.peer, cast.server, kind, &echo_reply(cast.peer, id));
            gate.expect("answer to nothing", FromPeer, &reply, Reason::Unsolicited);
        }
        let other = ip(cast.server, cast.peer, kind, &echo_reply(cast.peer, 78));
        gate.expect(
            "answer under another identifier",
            ToPeer,
            &other,
            Reason::Unsolicited,
        );
    }
    for (what, cast, message) in [
        ("redirect", V4, icmp(5, 1, 0, &[0; 28])),
        ("timestamp", V4, icmp(13, 0, 0, &[0; 12])),
        ("source quench", V4, icmp(4, 0, 0, &[0; 28])),
        ("router advertisement", V6, icmp(134, 0, 0, &[0; 8])),
        ("neighbour solicitation", V6, icmp(135, 0, 0, &[0; 16])),
        ("redirect, v6", V6, icmp(137, 0, 0, &[0; 32])),
    ] {
        let there = ip(cast.peer, cast.server, icmp_number(cast.peer), &message);
        gate.expect(what, FromPeer, &there, Reason::IcmpType);
        let back = ip(cast.server, cast.peer, icmp_number(cast.peer), &message);
        gate.expect(what, ToPeer, &back, Reason::IcmpType);
    }
}

#[test]
fn inv3_a_flow_is_all_five_of_its_parts() {
    let mut gate = Both::new();
    gate.put(State::Live);
    for cast in [V4, V6] {
        gate.expect(
            "open",
            FromPeer,
            &ip(cast.peer, cast.server, number::UDP, &udp(60, 53, 8)),
            Reason::Session,
        );
        let to = |from, source, destination, protocol, payload: Vec<u8>| {
            (ip(from, cast.peer, protocol, &payload), source, destination)
        };
        for (packet, source, destination) in [
            to(cast.server, 54, 60, number::UDP, udp(54, 60, 8)),
            to(cast.server, 53, 61, number::UDP, udp(53, 61, 8)),
            to(cast.router, 53, 60, number::UDP, udp(53, 60, 8)),
            to(cast.server, 53, 60, number::TCP, tcp(53, 60, flag::ACK)),
        ] {
            gate.expect(
                &format!("{source} to {destination}"),
                ToPeer,
                &packet,
                Reason::Unsolicited,
            );
        }
        gate.expect(
            "answer",
            ToPeer,
            &ip(cast.server, cast.peer, number::UDP, &udp(53, 60, 8)),
            Reason::Session,
        );
    }
}
