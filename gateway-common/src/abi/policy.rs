//! Compiled rules: integers in tables, of which the kernel holds two sets, one for each parity of the
//! settings' epoch.
//!
//! Rules are not multiplied by users: a prefix holds only those principals that have a rule for that
//! very prefix, and points to the prefix around it for the others.

use core::cmp::Ordering;

use super::Level;

/// Principals (of `who`) that take part in one user's effective policy.
pub const PRINCIPALS_PER_POLICY: usize = 32;
/// Steps of the binary search in one list of intervals.
pub const SEARCH_STEPS: u32 = 16;
/// Regions around one another: no more than there are prefix lengths.
pub const DEEPEST: u32 = 129;
/// Sets of policy tables: one for each parity of the settings' epoch.
pub const POLICY_SETS: u32 = 2;
/// Stands for "no region".
pub const NO_REGION: u32 = u32::MAX;
/// Stands for "no rule" in decisions and events.
pub const NO_RULE: u32 = u32::MAX;

/// The bit that stands for a principal in masks.
#[inline(always)]
pub const fn principal_bit(principal: u32) -> u64 {
    1 << (principal % 64)
}

/// Where a protocol and port lie on the line that [`PortInterval`]s are cut from.
#[inline(always)]
pub const fn port_key(protocol: u8, port: u16) -> u32 {
    (protocol as u32) << 16 | port as u32
}

/// Data of a longest-prefix-match key: the direction stands before the address, whose bits follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PolicyPrefix<A> {
    /// [`super::Direction`]; all its bits always count.
    pub direction: u32,
    /// In network byte order.
    pub address: A,
}

impl<A> PolicyPrefix<A> {
    /// Bits before those of the address.
    pub const DIRECTION_BITS: u32 = 32;
}

/// A prefix of some rule, without the narrower ones within it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// [`principal_bit`] of each principal with a grant at this very region.
    pub own: u64,
    /// The same for this region and all those around it: without a bit in common with the
    /// policy's mask, no rule matches.
    pub covering: u64,
    /// Index of the narrowest region around it, or [`NO_REGION`].
    pub parent: u32,
    /// Zero.
    pub pad: u32,
}

/// Key of the grants.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrantKey {
    /// Index of a [`Region`].
    pub region: u32,
    /// Number of a principal.
    pub principal: u32,
}

/// Where a sorted list of intervals lies.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IntervalList {
    /// Index of the first.
    pub start: u32,
    /// How many; what [`SEARCH_STEPS`] steps can tell apart at most.
    pub length: u32,
}

/// Some ports of some protocols, and what holds for them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortInterval {
    /// First [`port_key`].
    pub first: u32,
    /// Last one.
    pub last: u32,
    /// Index of an [`Outcome`].
    pub outcome: u32,
}

/// Whose rules hold for a user. All-zero is nobody's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EffectivePolicy {
    /// [`principal_bit`] of each.
    pub mask: u64,
    /// How many there are.
    pub count: u32,
    /// Zero.
    pub pad: u32,
    /// Their numbers, ascending; zero behind.
    pub principals: [u32; PRINCIPALS_PER_POLICY],
}

/// What rules say about one destination, with the length of the prefix that it comes from.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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

    /// What both together say: a deny drops; else the longer prefix decides; else the requirements
    /// of both must be met. Associative and commutative, so rules can be merged in any grouping.
    #[must_use]
    #[inline(always)]
    pub fn merge(self, other: Self) -> Self {
        match (self.kind == Self::ALLOW, other.kind == Self::ALLOW) {
            (false, false) => Self {
                rule: least(self.rule, other.rule),
                ..self
            },
            (false, true) => self,
            (true, false) => other,
            (true, true) => match self.prefix_length.cmp(&other.prefix_length) {
                Ordering::Greater => self,
                Ordering::Less => other,
                Ordering::Equal => Self {
                    max_age: match (self.max_age, other.max_age) {
                        (0, age) | (age, 0) => age,
                        (one, two) => {
                            if one < two {
                                one
                            } else {
                                two
                            }
                        }
                    },
                    rule: least(self.rule, other.rule),
                    level: if self.level > other.level {
                        self.level
                    } else {
                        other.level
                    },
                    ..self
                },
            },
        }
    }
}

#[inline(always)]
const fn least(one: u32, two: u32) -> u32 {
    if one < two { one } else { two }
}

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
        /// The first rule of the file among those that decide; [`NO_RULE`] where there is no policy.
        rule: u32,
        /// Least level of the session; [`Level::None`] needs no session.
        level: Level,
        /// How long ago the login may be at most, in nanoseconds.
        max_age: Option<u64>,
    },
}

impl From<Outcome> for RuleOutcome {
    /// What is no outcome permits nothing.
    #[inline(always)]
    fn from(outcome: Outcome) -> Self {
        let rule = outcome.rule;
        match (outcome.kind, Level::from_number(outcome.level)) {
            (Outcome::ALLOW, Some(level)) => Self::Allow {
                rule,
                level,
                max_age: if outcome.max_age == 0 {
                    None
                } else {
                    Some(outcome.max_age)
                },
            },
            (Outcome::DENY, _) => Self::Deny { rule },
            _ => Self::NoRule,
        }
    }
}

impl From<RuleOutcome> for Outcome {
    #[inline(always)]
    fn from(outcome: RuleOutcome) -> Self {
        let blank = Self {
            max_age: 0,
            rule: NO_RULE,
            kind: 0,
            level: 0,
            prefix_length: 0,
            pad: 0,
        };
        match outcome {
            RuleOutcome::NoRule => blank,
            RuleOutcome::Deny { rule } => Self {
                kind: Self::DENY,
                rule,
                ..blank
            },
            RuleOutcome::Allow {
                rule,
                level,
                max_age,
            } => Self {
                kind: Self::ALLOW,
                rule,
                level: level as u8,
                max_age: max_age.unwrap_or(0),
                ..blank
            },
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

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
            rule,
            kind: Outcome::DENY,
            ..Outcome::default()
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

    #[test]
    fn inv1_what_is_no_outcome_permits_nothing() {
        assert_eq!(RuleOutcome::from(Outcome::default()), RuleOutcome::NoRule);
        let unknown_level = Outcome {
            level: 3,
            ..allow(1, 8, Level::Mfa, 0)
        };
        assert_eq!(RuleOutcome::from(unknown_level), RuleOutcome::NoRule);
    }
}
