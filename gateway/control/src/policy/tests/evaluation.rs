//! The decision with sessions against the specification, on random policies.

use gateway_common::abi::{Direction, Level};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{generate, oracle};
use crate::policy::eval::{self, Vector, evaluate};
use crate::policy::{CompiledPolicy, Policy, RuleOutcome};

/// "A session must exist, be younger than its lifetime, idle for less than its idle timeout, at the
/// required level or above, and no older than `max_age`."
fn permits(session: Option<&eval::Session>, level: Level, max_age: Option<u64>) -> &'static str {
    let Some(session) = session else {
        return "locked";
    };
    let timeout = session.idle_timeout_s.unwrap_or(0);
    if session.age_s >= session.lifetime_s {
        "expired"
    } else if timeout != 0 && session.idle_s >= timeout {
        "idle"
    } else if session.level < level {
        "level_too_low"
    } else if max_age.is_some_and(|most| session.age_s > most / 1_000_000_000) {
        "not_fresh"
    } else {
        "session"
    }
}

fn sessions() -> impl Strategy<Value = Option<eval::Session>> {
    let level = select(vec![Level::None, Level::Mfa, Level::PhishingResistant]);
    // The edges of the limits that the policies have, and either side of them.
    let age = select(vec![0_u64, 299, 300, 301, 899, 900, 901, 3600]);
    let lifetime = select(vec![0_u64, 300, 900, 43_200]);
    let idle = select(vec![
        (0, None),
        (59, Some(60)),
        (60, Some(60)),
        (99, Some(0)),
    ]);
    option::weighted(
        0.9,
        (level, age, lifetime, idle).prop_map(
            |(level, age_s, lifetime_s, (idle_s, idle_timeout_s))| eval::Session {
                level,
                age_s,
                idle_s,
                lifetime_s,
                idle_timeout_s,
            },
        ),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn inv8_eval_says_what_the_specification_says(
        text in generate::policy(14),
        subject in generate::subject(),
        session in sessions(),
    ) {
        let policy = Policy::parse(&text).unwrap();
        let mut compiled = CompiledPolicy::compile(&policy).unwrap();
        let class = compiled.assign(&subject).unwrap();
        for (direction, remote, protocol, port) in generate::openers() {
            let ports = matches!(protocol, 6 | 17);
            // Extension headers of IPv6, which the packet would have to continue, and ICMP of the
            // other family, which nobody sends.
            let strange = remote.is_ipv6() && matches!(protocol, 0 | 1 | 43 | 44 | 60)
                || remote.is_ipv4() && protocol == 58;
            let source = matches!(direction, Direction::ToPeer);
            if strange || remote.is_unspecified() && source {
                continue;
            }
            let (peer_port, remote_port) = match direction {
                Direction::FromPeer => (40_000, port),
                Direction::ToPeer => (port, 40_000),
            };
            let vector = Vector {
                peer: eval::Peer {
                    address: if remote.is_ipv4() { "10.77.0.2" } else { "fd77::2" }.parse().unwrap(),
                    user: subject.user.clone(),
                    groups: subject.groups.clone(),
                },
                session,
                packet: eval::Packet {
                    direction: match direction {
                        Direction::FromPeer => eval::Direction::FromPeer,
                        Direction::ToPeer => eval::Direction::ToPeer,
                    },
                    protocol,
                    remote,
                    peer_port: ports.then_some(peer_port),
                    remote_port: ports.then_some(remote_port),
                },
            };
            let port = if ports { port } else { 0 };
            let (reason, rule) = match oracle::judge(&policy, &subject, direction, remote, protocol, port) {
                RuleOutcome::Deny { rule } => ("denied", Some(rule)),
                RuleOutcome::NoRule => match direction {
                    Direction::FromPeer => ("no_rule", None),
                    Direction::ToPeer => ("unsolicited", None),
                },
                RuleOutcome::Allow { rule, level: Level::None, .. } => ("open_rule", Some(rule)),
                RuleOutcome::Allow { rule, level, max_age } => {
                    (permits(session.as_ref(), level, max_age), Some(rule))
                }
            };
            let answer = evaluate(&compiled, class, &vector);
            let verdict = if matches!(reason, "session" | "open_rule") { "pass" } else { "drop" };
            let rule = rule.map(|rule| policy.rules()[rule as usize].name.clone());
            prop_assert_eq!((answer.verdict, answer.reason, answer.rule), (verdict, reason, rule), "{:?}", vector);
        }
    }
}
