//! What people are told.

use gateway_common::abi::Level;

use super::{compiled, subject};
use crate::policy::{Change, Effect, RuleOutcome, changes, reach};

const OLD: &str = r#"
[[rule]]
name = "web"
who = ["*"]
to = ["10.0.0.0/8"]
ports = ["tcp/443"]

[[rule]]
name = "ssh"
who = ["group:sre"]
to = ["10.1.0.0/16"]
ports = ["tcp/22"]
require = "phishing-resistant"

[[rule]]
name = "no-vault"
who = ["*"]
to = ["10.1.9.9"]
action = "deny"
"#;

fn line(remote: impl ToString, ports: &[crate::policy::PortSpan]) -> String {
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    format!("{} {}", remote.to_string(), ports.join(","))
}

#[test]
fn reach_of_a_user() {
    let mut compiled = compiled(OLD);
    let sre = compiled.assign(&subject("ann", &["sre"])).unwrap();
    let told: Vec<(String, RuleOutcome)> = reach(&compiled, sre)
        .iter()
        .map(|entry| (line(entry.remote, &entry.ports), entry.outcome))
        .collect();
    let web = RuleOutcome::Allow {
        rule: 0,
        level: Level::Mfa,
        max_age: None,
    };
    let ssh = RuleOutcome::Allow {
        rule: 1,
        level: Level::PhishingResistant,
        max_age: None,
    };
    assert_eq!(
        told,
        [
            ("10.0.0.0/8 tcp/443".to_owned(), web),
            ("10.1.0.0/16 tcp/22".to_owned(), ssh),
            ("10.1.0.0/16 tcp/443".to_owned(), web),
            ("10.1.9.9/32 any".to_owned(), RuleOutcome::Deny { rule: 2 }),
        ]
    );
    assert_eq!(compiled.rule_name(1), Some("ssh"));
}

#[test]
fn nobody_reaches_nothing() {
    let compiled = compiled(OLD);
    assert_eq!(reach(&compiled, 0), []);
    assert_eq!(reach(&compiled, 99), []);
}

fn told(new: &str) -> Vec<(Vec<String>, String, Effect)> {
    let subjects = [
        subject("zoe", &["sre"]),
        subject("ann", &["sre"]),
        subject("bob", &[]),
    ];
    let changes = changes(&mut compiled(OLD), &mut compiled(new), &subjects).unwrap();
    changes
        .iter()
        .map(|change| {
            (
                change.users.clone(),
                line(change.remote, &change.ports),
                change.effect(),
            )
        })
        .collect()
}

fn users(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn nothing_changes_by_another_name_or_order() {
    let mut rules: Vec<&str> = OLD.split("[[rule]]").skip(1).collect();
    rules.reverse();
    let renamed = rules
        .iter()
        .map(|rule| format!("[[rule]]{rule}"))
        .collect::<String>()
        .replace("web", "www");
    assert_eq!(told(&renamed), []);
}

#[test]
fn gains_losses_and_requirements() {
    let sre = users(&["ann", "zoe"]);
    let no_ssh = OLD.replace("tcp/22", "tcp/2222");
    assert_eq!(
        told(&no_ssh),
        [
            (sre.clone(), "10.1.0.0/16 tcp/22".to_owned(), Effect::Loses),
            (
                sre.clone(),
                "10.1.0.0/16 tcp/2222".to_owned(),
                Effect::Gains
            ),
        ]
    );
    let weaker = OLD.replace("phishing-resistant", "mfa");
    assert_eq!(
        told(&weaker),
        [(sre.clone(), "10.1.0.0/16 tcp/22".to_owned(), Effect::Looser)]
    );
    let mixed = OLD.replace("\"phishing-resistant\"", "\"mfa\"\nmax_age = \"5m\"");
    assert_eq!(
        told(&mixed),
        [(sre, "10.1.0.0/16 tcp/22".to_owned(), Effect::Different)]
    );
    let fresh = OLD.replace(
        "ports = [\"tcp/443\"]",
        "ports = [\"tcp/443\"]\nmax_age = \"5m\"",
    );
    assert_eq!(
        told(&fresh),
        [(
            users(&["ann", "bob", "zoe"]),
            "10.0.0.0/8 tcp/443".to_owned(),
            Effect::Stricter
        )]
    );
    let opened = OLD.replace("[\"group:sre\"]", "[\"*\"]");
    assert_eq!(
        told(&opened),
        [(
            users(&["bob"]),
            "10.1.0.0/16 tcp/22".to_owned(),
            Effect::Gains
        )]
    );
}

#[test]
fn a_prefix_that_does_not_change_is_excepted() {
    let new = OLD.replace("tcp/443", "tcp/80");
    let found = changes(
        &mut compiled(OLD),
        &mut compiled(&new),
        &[subject("bob", &[])],
    )
    .unwrap();
    assert_eq!(found.len(), 2);
    for Change { except, .. } in found {
        assert_eq!(except, ["10.1.9.9/32".parse().unwrap()]);
    }
}
