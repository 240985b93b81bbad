//! The sentences of the specification that are easiest to get wrong, one by one.

use gateway_common::abi::{Direction, Level};

use super::{compiled, subject};
use crate::policy::RuleOutcome;

const MINUTE: u64 = 60_000_000_000;

/// What a user of the groups `a` and `b` gets at 10.1.2.3, tcp/22, from these rules.
fn judged(rules: &[&str]) -> RuleOutcome {
    let text: String = rules
        .iter()
        .enumerate()
        .map(|(i, rule)| format!("[[rule]]\nname = \"r{i}\"\n{rule}\n"))
        .collect();
    let mut compiled = compiled(&text);
    let policy = compiled.assign(&subject("ann", &["b", "a"])).unwrap();
    compiled.lookup(
        policy,
        Direction::FromPeer,
        "10.1.2.3".parse().unwrap(),
        6,
        22,
    )
}

fn allow(rule: u32, level: Level, max_age: Option<u64>) -> RuleOutcome {
    RuleOutcome::Allow {
        rule,
        level,
        max_age,
    }
}

#[test]
fn no_rule_permits_nothing() {
    assert_eq!(judged(&[]), RuleOutcome::NoRule);
    assert_eq!(
        judged(&["who = [\"group:c\"]\nto = [\"0.0.0.0/0\"]"]),
        RuleOutcome::NoRule
    );
    assert_eq!(
        judged(&["who = [\"*\"]\nfrom = [\"0.0.0.0/0\"]"]),
        RuleOutcome::NoRule
    );
}

#[test]
fn a_wide_deny_of_one_group_beats_a_narrow_allow_of_another() {
    let rules = [
        "who = [\"group:a\"]\nto = [\"10.1.2.3\"]",
        "who = [\"group:b\"]\nto = [\"0.0.0.0/0\"]\naction = \"deny\"",
    ];
    assert_eq!(judged(&rules), RuleOutcome::Deny { rule: 1 });
}

#[test]
fn a_narrow_rule_for_another_port_does_not_shadow_a_wide_one() {
    let rules = [
        "who = [\"*\"]\nto = [\"10.0.0.0/8\"]\nports = [\"tcp/22\"]",
        "who = [\"*\"]\nto = [\"10.1.2.3\"]\nports = [\"tcp/443\"]\nrequire = \"none\"",
        "who = [\"*\"]\nto = [\"10.1.2.0/24\"]\nports = [\"udp\"]\naction = \"deny\"",
    ];
    assert_eq!(judged(&rules), allow(0, Level::Mfa, None));
}

#[test]
fn the_longest_prefix_decides_even_where_it_asks_for_less() {
    let rules = [
        "who = [\"group:a\"]\nto = [\"10.1.0.0/16\"]\nrequire = \"phishing-resistant\"\nmax_age = \"1m\"",
        "who = [\"group:b\"]\nto = [\"10.1.2.0/24\"]\nrequire = \"none\"",
    ];
    assert_eq!(judged(&rules), allow(1, Level::None, None));
}

#[test]
fn ties_ask_for_everything_across_principals() {
    let rules = [
        "who = [\"group:b\"]\nto = [\"10.1.2.0/24\"]\nrequire = \"none\"",
        "who = [\"user:ann\"]\nto = [\"10.1.2.0/24\"]\nrequire = \"phishing-resistant\"\nmax_age = \"9m\"",
        "who = [\"*\"]\nto = [\"10.1.2.0/24\"]\nmax_age = \"5m\"",
    ];
    assert_eq!(
        judged(&rules),
        allow(0, Level::PhishingResistant, Some(5 * MINUTE))
    );
}

#[test]
fn users_are_alike_when_the_same_rules_hold_for_them() {
    let mut compiled = compiled(
        "[[rule]]\nname = \"r\"\nwho = [\"group:a\", \"group:b\", \"user:eve\"]\nto = [\"10.0.0.0/8\"]\n",
    );
    let first = compiled.assign(&subject("ann", &["a"])).unwrap();
    assert_ne!(first, 0);
    assert_eq!(
        compiled.assign(&subject("bob", &["b", "a", "x"])).unwrap(),
        first
    );
    assert_eq!(compiled.assign(&subject("eve", &[])).unwrap(), first);
    assert_eq!(compiled.assign(&subject("dan", &["x"])).unwrap(), 0);
    assert_eq!(compiled.tables().policies.len(), 2);
}

#[test]
fn inv1_a_policy_that_does_not_exist_permits_nothing() {
    let compiled = compiled(
        "[[rule]]\nname = \"r\"\nwho = [\"*\"]\nto = [\"0.0.0.0/0\"]\nrequire = \"none\"\n",
    );
    let at = |policy| {
        compiled.lookup(
            policy,
            Direction::FromPeer,
            "10.1.2.3".parse().unwrap(),
            6,
            22,
        )
    };
    assert_eq!(at(0), RuleOutcome::NoRule);
    assert_eq!(at(1), RuleOutcome::NoRule);
    assert_eq!(at(u32::MAX), RuleOutcome::NoRule);
}

#[test]
fn prefixes_nested_as_deep_as_can_be() {
    let widest = "[[rule]]\nname = \"all\"\nwho = [\"*\"]\nto = [\"::/0\"]\n".to_owned();
    let text = (1..=128).fold(widest, |text, length| {
        text + &format!(
            "[[rule]]\nname = \"r{length}\"\nwho = [\"user:u{length}\"]\nto = [\"::/{length}\"]\n"
        )
    });
    let mut compiled = compiled(&text);
    for (user, deciding) in [("ann", 0), ("u1", 1), ("u65", 65), ("u128", 128)] {
        let policy = compiled.assign(&subject(user, &[])).unwrap();
        let found = compiled.lookup(policy, Direction::FromPeer, "::".parse().unwrap(), 6, 22);
        assert_eq!(found, allow(deciding, Level::Mfa, None), "{user}");
    }
}
