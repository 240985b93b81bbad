//! Headers that are cut short, contradict themselves, or carry options.

use datapath_tests::{
    packets::{self, Ipv4, Ipv6, echo_request, flag, ip, number, routing, tcp},
    scene::{PEER_V4, PEER_V6, SERVER_V4, SERVER_V6, State, V4, V6},
};
use gateway_common::{
    abi::Direction::{FromPeer, ToPeer},
    verdict::Reason,
};

use crate::Both;

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
