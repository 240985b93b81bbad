//! What a peer may do in each state, and whose packets are whose.

use datapath_tests::{
    packets::{flag, ip, number, tcp, udp},
    scene::{PORTAL_PORT, State, V4, V6},
};
use gateway_common::{
    abi::Direction::{FromPeer, ToPeer},
    verdict::Reason,
};

use crate::{Both, conversations};

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
