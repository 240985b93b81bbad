//! The policy section of the specification, sentence by sentence, over the rules as they stand in
//! the file. Slow, and shares nothing with the compiler.

use std::net::IpAddr;

use gateway_common::abi::Direction;

use crate::policy::{Action, Policy, PortSpec, Rule, RuleOutcome, Subject};

/// What the specification says about a packet that opens a flow.
pub(super) fn judge(
    policy: &Policy,
    subject: &Subject,
    direction: Direction,
    remote: IpAddr,
    protocol: u8,
    port: u16,
) -> RuleOutcome {
    // "A rule matches when who, address, protocol and port all match."
    let matching: Vec<(u32, &Rule, u8)> = (0..)
        .zip(policy.rules())
        .filter(|(_, rule)| rule.direction == direction)
        .filter(|(_, rule)| rule.who.iter().any(|who| who.includes(subject)))
        .filter(|(_, rule)| {
            rule.ports
                .iter()
                .any(|spec| concerns(*spec, protocol, port))
        })
        .filter_map(|(number, rule)| {
            let covering = rule
                .prefixes
                .iter()
                .filter(|prefix| prefix.contains(&remote));
            covering
                .map(|prefix| prefix.prefix_len())
                .max()
                .map(|length| (number, rule, length))
        })
        .collect();
    // "Any matching deny drops it."
    if let Some((number, ..)) = matching
        .iter()
        .find(|(_, rule, _)| rule.action == Action::Deny)
    {
        return RuleOutcome::Deny { rule: *number };
    }
    // "Otherwise the matching allow with the longest prefix decides what is required; where several
    // tie, the requirements of all of them must be met."
    let Some(longest) = matching.iter().map(|(.., length)| *length).max() else {
        // "No matching allow: drop."
        return RuleOutcome::NoRule;
    };
    let mut decided: Option<RuleOutcome> = None;
    for (number, rule, _) in matching.iter().filter(|(.., length)| *length == longest) {
        let Action::Allow { level, max_age } = rule.action else {
            continue;
        };
        let age = max_age.map(|age| u64::try_from(age.as_nanos()).unwrap());
        decided = Some(match decided {
            Some(RuleOutcome::Allow {
                rule,
                level: other,
                max_age,
            }) => RuleOutcome::Allow {
                rule,
                level: level.max(other),
                max_age: [age, max_age].into_iter().flatten().min(),
            },
            _ => RuleOutcome::Allow {
                rule: *number,
                level,
                max_age: age,
            },
        });
    }
    decided.unwrap_or(RuleOutcome::NoRule)
}

fn concerns(spec: PortSpec, protocol: u8, port: u16) -> bool {
    match spec {
        PortSpec::Any => true,
        PortSpec::Protocol(only) => protocol == only,
        PortSpec::Ports {
            protocol: only,
            first,
            last,
        } => protocol == only && first <= port && port <= last,
    }
}
