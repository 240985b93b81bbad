//! Fragments.

use datapath_tests::{
    packets::{self, Ipv4, Ipv6, flag, flags, number, tcp, udp},
    scene::{OTHER_V4, PEER_V4, PEER_V6, SERVER_V4, SERVER_V6, State},
};
use gateway_common::{
    abi::Direction::{FromPeer, ToPeer},
    verdict::Reason,
};

use crate::Both;

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
    // With extension headers in it, the first fragment has its transport header where a later one may
    // begin, which would overwrite it.
    let far = Ipv6::new(PEER_V6, SERVER_V6, number::TCP)
        .with(number::FRAGMENT, packets::fragment(0, true, 3))
        .with(number::DESTINATION, packets::options(3))
        .build(&tcp(1, 443, flag::SYN)[..16]);
    let chain = Ipv6::new(PEER_V6, SERVER_V6, number::TCP)
        .with(number::FRAGMENT, packets::fragment(0, true, 3))
        .with(number::DESTINATION, packets::options(1))
        .build(&[]);
    for (what, packet) in [("far header", far), ("no header (RFC 7112)", chain)] {
        gate.expect(what, FromPeer, &packet, Reason::ExtensionHeaders);
    }
}
