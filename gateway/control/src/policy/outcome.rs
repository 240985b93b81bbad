//! What rules say about one destination, and how several answers become one.

use std::cmp::Ordering;

use gateway_common::abi::{Direction, Level};

use super::rule::{Action, Rule};

/// What the policy says about a packet that opens a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleOutcome {
    /// No rule permits it: drop.
    NoRule,
    /// A rule denies it.
    Deny {
        /// The first rule of the file that does.
        rule: u32,
    },
    /// Rules permit it, if the session is good enough.
    Allow {
        /// The first rule of the file among those that decide.
        rule: u32,
        /// Least level of the session; [`Level::None`] needs no session.
        level: Level,
        /// How long ago the login may be at most, in nanoseconds.
        max_age: Option<u64>,
    },
}

/// The same, as an entry of a map, with the length of the prefix that it comes from.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// Greatest age of the login in nanoseconds; 0 for no limit.
    pub max_age: u64,
    /// Number of the rule.
    pub rule: u32,
    /// [`Outcome::DENY`] or [`Outcome::ALLOW`]; anything else permits nothing.
    pub kind: u8,
    /// [`Level`] that is required.
    pub level: u8,
    /// Length of the rule's prefix: the longest decides among those that allow. 0 for a deny.
    pub prefix_length: u8,
    /// Zero.
    pub pad: u8,
}

impl Outcome {
    /// The packet is dropped.
    pub const DENY: u8 = 1;
    /// The packet passes, if the session is good enough.
    pub const ALLOW: u8 = 2;

    /// What the rule of this number says where a prefix of this length matches.
    pub(super) fn of(rule: &Rule, number: u32, prefix_length: u8) -> Self {
        let blank = Self {
            max_age: 0,
            rule: number,
            kind: Self::DENY,
            level: 0,
            prefix_length: 0,
            pad: 0,
        };
        match rule.action {
            Action::Deny => blank,
            Action::Allow { level, max_age } => Self {
                kind: Self::ALLOW,
                level: level as u8,
                // The parser admits far less than 584 years.
                max_age: max_age.map_or(0, |age| u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
                prefix_length,
                ..blank
            },
        }
    }

    /// What both together say: a deny drops; else the longer prefix decides; else the requirements
    /// of both must be met. Associative and commutative, so rules can be merged in any grouping.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        let deny = |outcome: &Self| outcome.kind != Self::ALLOW;
        match (deny(&self), deny(&other)) {
            (true, true) => Self {
                rule: self.rule.min(other.rule),
                ..self
            },
            (true, false) => self,
            (false, true) => other,
            (false, false) => match self.prefix_length.cmp(&other.prefix_length) {
                Ordering::Greater => self,
                Ordering::Less => other,
                Ordering::Equal => Self {
                    max_age: match (self.max_age, other.max_age) {
                        (0, age) | (age, 0) => age,
                        (one, two) => one.min(two),
                    },
                    rule: self.rule.min(other.rule),
                    level: self.level.max(other.level),
                    ..self
                },
            },
        }
    }
}

impl From<Outcome> for RuleOutcome {
    /// What is no outcome permits nothing.
    fn from(outcome: Outcome) -> Self {
        let rule = outcome.rule;
        match (outcome.kind, Level::from_number(outcome.level)) {
            (Outcome::ALLOW, Some(level)) => Self::Allow {
                rule,
                level,
                max_age: (outcome.max_age != 0).then_some(outcome.max_age),
            },
            (Outcome::DENY, _) => Self::Deny { rule },
            _ => Self::NoRule,
        }
    }
}

/// Index of what is kept apart by direction.
pub(super) fn side(direction: Direction) -> usize {
    match direction {
        Direction::FromPeer => 0,
        Direction::ToPeer => 1,
    }
}

const _: () = assert!(size_of::<Outcome>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(rule: u32, prefix_length: u8, level: Level, max_age: u64) -> Outcome {
        Outcome {
            max_age,
            rule,
            kind: Outcome::ALLOW,
            level: level as u8,
            prefix_length,
            pad: 0,
        }
    }

    fn deny(rule: u32) -> Outcome {
        Outcome {
            max_age: 0,
            rule,
            kind: Outcome::DENY,
            level: 0,
            prefix_length: 0,
            pad: 0,
        }
    }

    #[test]
    fn a_tie_of_none_and_mfa_needs_the_session_and_its_freshness() {
        let merged = allow(3, 16, Level::None, 0).merge(allow(5, 16, Level::Mfa, 900));
        assert_eq!(merged, allow(3, 16, Level::Mfa, 900));
    }

    #[test]
    fn a_tie_takes_the_highest_level_and_the_shortest_age() {
        let merged = allow(1, 8, Level::PhishingResistant, 0).merge(allow(2, 8, Level::Mfa, 60));
        assert_eq!(merged, allow(1, 8, Level::PhishingResistant, 60));
    }

    #[test]
    fn deny_wins_over_any_prefix_and_the_first_is_named() {
        assert_eq!(deny(7).merge(allow(1, 32, Level::None, 0)), deny(7));
        assert_eq!(deny(7).merge(deny(2)), deny(2));
    }

    #[test]
    fn merging_is_associative_and_commutative() {
        let all = [
            deny(0),
            deny(4),
            allow(1, 8, Level::None, 0),
            allow(2, 8, Level::Mfa, 60),
            allow(3, 8, Level::PhishingResistant, 0),
            allow(5, 16, Level::Mfa, 30),
            allow(6, 16, Level::Mfa, 0),
        ];
        for a in all {
            for b in all {
                assert_eq!(a.merge(b), b.merge(a));
                for c in all {
                    assert_eq!(a.merge(b).merge(c), a.merge(b.merge(c)));
                }
            }
        }
    }
}
