//! A policy as large as it may be: tables stay in proportion to the file, and it does not take long.

use std::fmt::Write as _;
use std::time::Instant;

use gateway_common::abi::Direction;

use super::{oracle, subject};
use crate::policy::{CompiledPolicy, Family, Policy, limits};

const GROUPS: usize = 400;

/// 10 000 rules with 100 000 prefixes that all lie in one wide prefix, for which each group has a
/// rule too: what would multiply if prefixes were kept by principal.
fn largest() -> String {
    let mut text = String::new();
    let narrow = limits::RULES - GROUPS;
    let mut left = limits::PREFIXES - 1;
    for i in 0..GROUPS {
        let ports = ["tcp/443", "udp/53", "tcp/8000-8999"][i % 3];
        writeln!(
            text,
            "[[rule]]\nname=\"wide{i}\"\nwho=[\"group:g{i}\"]\nto=[\"10.0.0.0/8\"]\nports=[\"{ports}\",\"icmp\"]"
        )
        .unwrap();
    }
    for i in 0..narrow {
        let count = left / (narrow - i);
        let prefixes: Vec<String> = (left - count..left)
            .map(|n| {
                if n % 4 == 0 {
                    v6(n)
                } else {
                    format!("10.{}.{}.{}", 1 + (n >> 16), n >> 8 & 255, n & 255)
                }
            })
            .map(|prefix| format!("\"{prefix}\""))
            .collect();
        left -= count;
        let deny = if i % 50 == 0 {
            "action=\"deny\"\n"
        } else {
            "max_age=\"15m\"\n"
        };
        let (one, two) = (i % GROUPS, (i * 7 + 1) % GROUPS);
        writeln!(
            text,
            "[[rule]]\nname=\"r{i}\"\nwho=[\"group:g{one}\",\"group:g{two}\"]\nto=[{}]\nports=[\"tcp/{}\",\"udp/53\"]\n{deny}",
            prefixes.join(","),
            1 + i % 1000
        )
        .unwrap();
    }
    text
}

fn v6(n: usize) -> String {
    format!("fd00:{:x}:{:x}::/48", n >> 16, n & 0xffff)
}

#[test]
fn the_largest_policy_compiles_without_multiplying() {
    let text = largest();
    let start = Instant::now();
    let policy = Policy::parse(&text).unwrap();
    let parsed = start.elapsed();
    let mut compiled = CompiledPolicy::compile(&policy).unwrap();
    let made = start.elapsed() - parsed;
    let subjects: Vec<_> = (0..limits::EFFECTIVE_POLICIES)
        .map(|i| {
            let groups = [
                format!("g{}", i % GROUPS),
                format!("g{}", (i / GROUPS + i + 1) % GROUPS),
            ];
            subject(&format!("u{i}"), &groups.each_ref().map(String::as_str))
        })
        .collect();
    let numbers: Vec<u32> = subjects
        .iter()
        .map(|subject| compiled.assign(subject).unwrap())
        .collect();
    let assigned = start.elapsed() - parsed - made;
    let tables = compiled.tables();
    let prefixes: usize = Family::ALL
        .map(|family| tables.prefixes(Direction::FromPeer, family).len())
        .iter()
        .sum();
    println!(
        "{} KB parsed in {parsed:?}, compiled in {made:?}, {} policies assigned in {assigned:?}: {} rules, {prefixes} \
         prefixes, {} grants, {} intervals, {} outcomes",
        text.len() >> 10,
        tables.policies.len() - 1,
        policy.rules().len(),
        tables.grants.len(),
        tables.intervals.len(),
        tables.outcomes.len(),
    );
    assert_eq!(
        (policy.rules().len(), prefixes),
        (limits::RULES, limits::PREFIXES)
    );
    assert!(tables.policies.len() > limits::EFFECTIVE_POLICIES / 2);
    // Two of `who` for each narrow prefix, and the wide one's.
    assert!(tables.grants.len() <= 2 * limits::PREFIXES + GROUPS);
    assert!(tables.intervals.len() <= 20 * limits::RULES);
    for i in (0..subjects.len()).step_by(97) {
        let n = i * 24;
        for remote in [
            format!("10.{}.{}.{}", 1 + (n >> 16), n >> 8 & 255, (n & 255) + 1),
            "10.0.0.1".to_owned(),
        ] {
            let remote = remote.parse().unwrap();
            for (protocol, port) in [(6, 443), (6, 8080), (17, 53), (6, 1), (1, 0)] {
                assert_eq!(
                    compiled.lookup(numbers[i], Direction::FromPeer, remote, protocol, port),
                    oracle::judge(
                        &policy,
                        &subjects[i],
                        Direction::FromPeer,
                        remote,
                        protocol,
                        port
                    )
                );
            }
        }
    }
}
