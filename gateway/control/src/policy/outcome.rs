//! What rules say about one destination.

pub use gateway_common::abi::{Outcome, RuleOutcome};

use super::rule::{Action, Rule};

/// What the rule of this number says where a prefix of this length matches.
pub(super) fn of_rule(rule: &Rule, number: u32, prefix_length: u8) -> Outcome {
    let deny = Outcome {
        rule: number,
        kind: Outcome::DENY,
        ..Outcome::default()
    };
    match rule.action {
        Action::Deny => deny,
        Action::Allow { level, max_age } => Outcome {
            kind: Outcome::ALLOW,
            level: level as u8,
            // The parser admits far less than 584 years.
            max_age: max_age.map_or(0, |age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
            prefix_length,
            ..deny
        },
    }
}
