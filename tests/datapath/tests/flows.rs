//! Flows over hours, and rules: the decision in memory, where the clock is turned by hand.

use std::net::IpAddr;

use datapath_tests::{
    memory::Memory,
    packets::{flag, ip, number, tcp, udp},
    scene::{Gate as _, State, V4},
};
use gateway_common::{
    abi::{
        Direction::{self, FromPeer, ToPeer},
        Level, NO_RULE, RuleOutcome,
    },
    clock::SECOND,
    verdict::Reason,
};

fn live() -> Memory {
    let mut gate = Memory::with_cast();
    gate.put(State::Live);
    // A session that outlasts the test.
    gate.peers[0].deadline = u64::MAX;
    gate.peers[0].idle_timeout = 0;
    gate
}

fn ask() -> Vec<u8> {
    ip(V4.peer, V4.server, number::UDP, &udp(1, 53, 8))
}

fn answer() -> Vec<u8> {
    ip(V4.server, V4.peer, number::UDP, &udp(53, 1, 8))
}

fn there(flags: u8) -> Vec<u8> {
    ip(V4.peer, V4.server, number::TCP, &tcp(1, 22, flags))
}

fn back(flags: u8) -> Vec<u8> {
    ip(V4.server, V4.peer, number::TCP, &tcp(22, 1, flags))
}

#[test]
fn inv3_a_flow_is_forgotten_after_its_timeout_and_kept_by_its_packets() {
    let mut gate = live();
    assert_eq!(gate.run(FromPeer, &ask()), Reason::Session);
    gate.now += 179 * SECOND;
    assert_eq!(gate.run(ToPeer, &answer()), Reason::Session);
    gate.now += 179 * SECOND;
    assert_eq!(gate.run(ToPeer, &answer()), Reason::Session);
    gate.now += 180 * SECOND;
    assert_eq!(gate.run(ToPeer, &answer()), Reason::Unsolicited);
}

#[test]
fn inv3_a_connection_is_kept_for_hours_once_both_have_spoken_and_a_minute_before_and_after() {
    let mut gate = live();
    assert_eq!(gate.run(FromPeer, &there(flag::SYN)), Reason::Session);
    gate.now += 60 * SECOND;
    assert_eq!(
        gate.run(ToPeer, &back(flag::SYN | flag::ACK)),
        Reason::Unsolicited
    );

    assert_eq!(gate.run(FromPeer, &there(flag::SYN)), Reason::Session);
    assert_eq!(
        gate.run(ToPeer, &back(flag::SYN | flag::ACK)),
        Reason::Session
    );
    gate.now += 7199 * SECOND;
    assert_eq!(gate.run(ToPeer, &back(flag::ACK)), Reason::Session);

    for end in [flag::FIN | flag::ACK, flag::RST] {
        assert_eq!(gate.run(ToPeer, &back(end)), Reason::Session);
        gate.now += 59 * SECOND;
        assert_eq!(gate.run(ToPeer, &back(flag::ACK)), Reason::Session);
        gate.now += 60 * SECOND;
        assert_eq!(gate.run(ToPeer, &back(flag::ACK)), Reason::Unsolicited);
        // A new connection under the same ports starts anew.
        assert_eq!(gate.run(FromPeer, &there(flag::SYN)), Reason::Session);
        assert_eq!(
            gate.run(ToPeer, &back(flag::SYN | flag::ACK)),
            Reason::Session
        );
        gate.now += 100 * SECOND;
        assert_eq!(gate.run(ToPeer, &back(flag::ACK)), Reason::Session);
    }
}

/// SSH needs a phishing-resistant login of the last fifteen minutes, the web none at all, and a help
/// desk may reach a peer's port 5985.
fn rules(direction: Direction, _remote: IpAddr, protocol: u8, port: u16) -> RuleOutcome {
    match (direction, protocol, port) {
        (FromPeer, number::TCP, 22) => RuleOutcome::Allow {
            rule: NO_RULE,
            level: Level::PhishingResistant,
            max_age: Some(900 * SECOND),
        },
        (FromPeer, number::TCP, 80) => RuleOutcome::Allow {
            rule: NO_RULE,
            level: Level::None,
            max_age: None,
        },
        (FromPeer, number::UDP, _) => RuleOutcome::Allow {
            rule: NO_RULE,
            level: Level::Mfa,
            max_age: None,
        },
        (ToPeer, number::TCP, 5985) => RuleOutcome::Allow {
            rule: NO_RULE,
            level: Level::Mfa,
            max_age: None,
        },
        _ => RuleOutcome::NoRule,
    }
}

#[test]
fn inv2_a_rules_level_and_freshness_are_checked_for_each_packet() {
    let mut gate = live();
    gate.rules = Some(rules);
    assert_eq!(gate.run(FromPeer, &there(flag::SYN)), Reason::LevelTooLow);
    gate.peers[0].level = Level::PhishingResistant as u8;
    gate.peers[0].authenticated_at = gate.now;
    assert_eq!(gate.run(FromPeer, &there(flag::SYN)), Reason::Session);
    assert_eq!(gate.run(ToPeer, &back(flag::ACK)), Reason::Session);
    gate.now += 899 * SECOND;
    assert_eq!(gate.run(FromPeer, &there(flag::ACK)), Reason::Session);
    gate.now += SECOND;
    assert_eq!(gate.run(FromPeer, &there(flag::ACK)), Reason::Session);
    gate.now += 1;
    assert_eq!(gate.run(FromPeer, &there(flag::ACK)), Reason::NotFresh);
    assert_eq!(gate.run(ToPeer, &back(flag::ACK)), Reason::NotFresh);
    // Logging in anew is enough, the connection lives on.
    gate.peers[0].authenticated_at = gate.now;
    gate.peers[0].generation += 1;
    assert_eq!(gate.run(ToPeer, &back(flag::ACK)), Reason::Session);
    let other = ip(V4.peer, V4.server, number::TCP, &tcp(1, 23, flag::SYN));
    assert_eq!(gate.run(FromPeer, &other), Reason::NoRule);
}

#[test]
fn inv3_a_rule_for_unsolicited_traffic_opens_flows_towards_the_peer() {
    let mut gate = live();
    gate.rules = Some(rules);
    let push = ip(
        V4.server,
        V4.peer,
        number::TCP,
        &tcp(40_000, 5985, flag::SYN),
    );
    let reply = ip(
        V4.peer,
        V4.server,
        number::TCP,
        &tcp(5985, 40_000, flag::SYN | flag::ACK),
    );
    assert_eq!(gate.run(FromPeer, &reply), Reason::NoRule);
    assert_eq!(gate.run(ToPeer, &push), Reason::Session);
    assert_eq!(gate.run(FromPeer, &reply), Reason::Session);
    // A source port is no permission.
    let forged = ip(V4.server, V4.peer, number::TCP, &tcp(5985, 445, flag::SYN));
    assert_eq!(gate.run(ToPeer, &forged), Reason::Unsolicited);
    // The rule goes: the flow ends with it.
    gate.rules = Some(|_, _, _, _| RuleOutcome::NoRule);
    gate.settings.epoch += 1;
    assert_eq!(gate.run(ToPeer, &push), Reason::Unsolicited);
    assert_eq!(gate.run(FromPeer, &reply), Reason::NoRule);
}

#[test]
fn inv4_a_policy_change_is_obeyed_by_live_flows_from_the_next_packet() {
    let mut gate = live();
    assert_eq!(gate.run(FromPeer, &there(flag::SYN)), Reason::Session);
    assert_eq!(gate.run(ToPeer, &back(flag::ACK)), Reason::Session);
    gate.rules = Some(rules);
    gate.settings.epoch += 1;
    assert_eq!(gate.run(ToPeer, &back(flag::ACK)), Reason::LevelTooLow);
    assert_eq!(gate.run(FromPeer, &there(flag::ACK)), Reason::LevelTooLow);
    // And back again, without the peer having to reconnect.
    gate.rules = None;
    gate.settings.epoch += 1;
    assert_eq!(gate.run(ToPeer, &back(flag::ACK)), Reason::Session);
}
