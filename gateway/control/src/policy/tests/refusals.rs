//! Policies that are too large are refused, clearly.

use std::fmt::Write as _;

use super::{compiled, subject};
use crate::policy::{CompileError, CompiledPolicy, Policy, limits};

fn refusal(text: &str) -> CompileError {
    CompiledPolicy::compile(&Policy::parse(text).unwrap()).unwrap_err()
}

fn rule(name: &str, who: &str, to: &str, ports: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\nwho = [{who}]\nto = [{to}]\nports = [{ports}]\n")
}

#[test]
fn effective_policies() {
    let users = limits::EFFECTIVE_POLICIES;
    let mut compiled = {
        let text: String = (0..=users)
            .map(|i| {
                rule(
                    &format!("r{i}"),
                    &format!("\"user:u{i}\""),
                    "\"10.0.0.0/8\"",
                    "\"tcp\"",
                )
            })
            .collect();
        compiled(&text)
    };
    for i in 0..users {
        compiled.assign(&subject(&format!("u{i}"), &[])).unwrap();
    }
    assert_eq!(compiled.assign(&subject("u0", &["none"])).unwrap(), 1);
    let last = format!("u{users}");
    assert_eq!(
        compiled.assign(&subject(&last, &[])),
        Err(CompileError::TooManyPolicies { user: last })
    );
    assert_eq!(compiled.assign(&subject("nobody", &[])), Ok(0));
}

#[test]
fn principals_of_one_user() {
    let groups: Vec<String> = (0..=limits::PRINCIPALS_PER_POLICY)
        .map(|i| format!("g{i}"))
        .collect();
    let text: String = groups
        .iter()
        .map(|group| {
            rule(
                group,
                &format!("\"group:{group}\""),
                "\"10.0.0.0/8\"",
                "\"tcp\"",
            )
        })
        .collect();
    let mut compiled = compiled(&text);
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let (fewer, all) = (&groups[1..], &groups);
    assert_eq!(compiled.assign(&subject("ann", fewer)), Ok(1));
    let refused = compiled.assign(&subject("ann", all)).unwrap_err();
    assert_eq!(
        refused,
        CompileError::TooManyPrincipals {
            user: "ann".into(),
            found: 33
        }
    );
}

#[test]
fn grants() {
    // 1 100 principals that differ, with 1 000 prefixes each.
    let who: Vec<String> = (0..1_100).map(|i| format!("\"user:u{i}\"")).collect();
    let to: Vec<String> = (0..1_000)
        .map(|i| format!("\"10.0.{}.{}\"", i >> 8, i & 255))
        .collect();
    let mut text = rule("all", &who.join(","), &to.join(","), "\"tcp/1\"");
    for (i, who) in who.iter().enumerate() {
        text += &rule(&format!("r{i}"), who, "\"11.0.0.0/8\"", "\"tcp/2\"");
    }
    let refused = refusal(&text);
    assert!(
        matches!(&refused, CompileError::TooManyGrants { rule, .. } if rule == "all"),
        "{refused}"
    );
}

/// Every second port of TCP, UDP and so on is an interval of its own.
fn scattered(count: usize, shift: usize) -> String {
    let mut ports = String::new();
    for i in 0..count {
        let (protocol, port) = if i < 32_000 {
            ("tcp", i)
        } else {
            ("udp", i - 32_000)
        };
        let comma = if i > 0 { "," } else { "" };
        write!(ports, "{comma}\"{protocol}/{}\"", 2 * port + 1 + shift).unwrap();
    }
    ports
}

#[test]
fn a_list_too_long_to_search() {
    // Two rules with different requirements, so that neighbouring ports do not join.
    let text = rule("odd", "\"*\"", "\"10.0.0.0/8\"", &scattered(64_000, 0))
        + &rule("even", "\"*\"", "\"10.0.0.0/8\"", &scattered(1_600, 1))
        + "require = \"none\"\n";
    let refused = refusal(&text);
    assert!(
        matches!(refused, CompileError::ListTooLong { .. }),
        "{refused}"
    );
}

#[test]
fn too_many_intervals_in_all() {
    let mut text = rule("wide", "\"*\"", "\"10.0.0.0/8\"", &scattered(10_000, 0));
    for i in 0..250 {
        text += &rule(
            &format!("r{i}"),
            "\"*\"",
            &format!("\"10.1.{i}.0/24\""),
            &format!("\"{i}\""),
        );
    }
    let refused = refusal(&text);
    assert!(
        matches!(refused, CompileError::TooManyIntervals { .. }),
        "{refused}"
    );
}
