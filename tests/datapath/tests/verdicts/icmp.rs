//! ICMP: errors and echo.

use datapath_tests::{
    packets::{echo_reply, echo_request, icmp, icmp_number, ip, unreachable},
    scene::{State, V4, V6},
};
use gateway_common::{
    abi::Direction::{FromPeer, ToPeer},
    verdict::Reason,
};

use crate::{Both, conversations};

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
