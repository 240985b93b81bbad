//! The compiled rules as control sends them: checked once, so that no number in them leads nowhere.

use std::net::IpAddr;

use gateway_common::{
    abi::{
        EffectivePolicy, GrantKey, IntervalList, Level, NO_REGION, Outcome, PRINCIPALS_PER_POLICY,
        PortInterval, Region, SEARCH_STEPS, principal_bit,
    },
    policy::{Family, PrefixEntry, Tables},
};
use ipnet::IpNet;
use portcullis_proto::v1;

/// Most prefixes of both directions together.
const MOST_PREFIXES: usize = 200_000;
/// Most pairs of a region and a principal.
const MOST_GRANTS: usize = 1 << 20;
/// Most intervals of ports, and outcomes.
const MOST_INTERVALS: usize = 1 << 21;
/// Most effective policies, nobody's included.
const MOST_CLASSES: usize = 4097;

/// A policy that cannot be loaded. It is refused whole.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    #[error("it has no id")]
    NoId,
    #[error("it has {found} {what}, {most} are possible")]
    TooMany {
        what: &'static str,
        found: usize,
        most: usize,
    },
    #[error("{what} {number} is not valid")]
    Invalid { what: &'static str, number: usize },
}

/// The rules of all peers of the location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Changes with the content; never 0.
    pub id: u64,
    /// What the kernel is to hold.
    pub tables: Tables,
    /// Names by rule number.
    pub rules: Vec<String>,
}

impl TryFrom<v1::Policy> for Policy {
    type Error = PolicyError;

    fn try_from(wire: v1::Policy) -> Result<Self, PolicyError> {
        if wire.id == 0 {
            return Err(PolicyError::NoId);
        }
        at_most("prefixes", wire.prefixes.len(), MOST_PREFIXES)?;
        at_most("grants", wire.grants.len(), MOST_GRANTS)?;
        at_most("intervals", wire.intervals.len(), MOST_INTERVALS)?;
        at_most("outcomes", wire.outcomes.len(), MOST_INTERVALS)?;
        at_most("effective policies", wire.classes.len(), MOST_CLASSES)?;
        let rules = wire.rules;
        let outcomes = all("outcome", wire.outcomes, |_, wire| {
            outcome(&wire, rules.len())
        })?;
        let intervals = all("interval", wire.intervals, |_, wire| {
            interval(&wire, outcomes.len())
        })?;
        let regions = all("region", wire.regions, region)?;
        let mut tables = Tables {
            regions,
            intervals,
            outcomes,
            policies: all("effective policy", wire.classes, |_, wire| class(&wire))?,
            ..Tables::default()
        };
        if tables.policies.first() != Some(&EffectivePolicy::default()) {
            return Err(PolicyError::Invalid {
                what: "effective policy",
                number: 0,
            });
        }
        grants(&wire.grants, &mut tables, |a, b| a.last < b.first)?;
        prefixes(wire.prefixes, &mut tables)?;
        Ok(Self {
            id: wire.id,
            tables,
            rules,
        })
    }
}

impl Policy {
    /// The name of the rule of this number.
    pub fn rule_name(&self, rule: u32) -> Option<&str> {
        self.rules.get(rule as usize).map(String::as_str)
    }
}

fn at_most(what: &'static str, found: usize, most: usize) -> Result<(), PolicyError> {
    if found > most {
        Err(PolicyError::TooMany { what, found, most })
    } else {
        Ok(())
    }
}

fn all<W, T>(
    what: &'static str,
    wire: Vec<W>,
    mut convert: impl FnMut(usize, W) -> Option<T>,
) -> Result<Vec<T>, PolicyError> {
    wire.into_iter()
        .enumerate()
        .map(|(number, wire)| convert(number, wire).ok_or(PolicyError::Invalid { what, number }))
        .collect()
}

fn outcome(wire: &v1::PolicyOutcome, rules: usize) -> Option<Outcome> {
    let kind = u8::try_from(wire.kind)
        .ok()
        .filter(|kind| [Outcome::DENY, Outcome::ALLOW].contains(kind))?;
    let level = u8::try_from(wire.level)
        .ok()
        .filter(|level| Level::from_number(*level).is_some())?;
    let prefix_length = u8::try_from(wire.prefix_length)
        .ok()
        .filter(|length| *length <= 128)?;
    let rule = Some(wire.rule).filter(|rule| (*rule as usize) < rules)?;
    Some(Outcome {
        max_age: wire.max_age_ns,
        rule,
        kind,
        level,
        prefix_length,
        pad: 0,
    })
}

fn interval(wire: &v1::PolicyInterval, outcomes: usize) -> Option<PortInterval> {
    let valid = wire.first <= wire.last && (wire.outcome as usize) < outcomes;
    valid.then_some(PortInterval {
        first: wire.first,
        last: wire.last,
        outcome: wire.outcome,
    })
}

/// The region around another comes before it, so that every way outwards ends.
fn region(number: usize, wire: v1::PolicyRegion) -> Option<Region> {
    let valid = wire.parent == NO_REGION || (wire.parent as usize) < number;
    valid.then_some(Region {
        own: wire.own,
        covering: wire.covering,
        parent: wire.parent,
        pad: 0,
    })
}

fn class(wire: &v1::PolicyClass) -> Option<EffectivePolicy> {
    if wire.principals.len() > PRINCIPALS_PER_POLICY || !wire.principals.is_sorted_by(|a, b| a < b)
    {
        return None;
    }
    let mut policy = EffectivePolicy::default();
    for (slot, &principal) in policy.principals.iter_mut().zip(&wire.principals) {
        *slot = principal;
        policy.mask |= principal_bit(principal);
        policy.count += 1;
    }
    Some(policy)
}

/// The lists of intervals, whose ports must rise: `rises` says so of two neighbours.
///
/// Any number of grants may name any part of the intervals, so no interval is looked at for a grant:
/// what the work comes to would be chosen by whoever sent the policy.
fn grants(
    wire: &[v1::PolicyGrant],
    tables: &mut Tables,
    rises: impl FnMut(&PortInterval, &PortInterval) -> bool,
) -> Result<(), PolicyError> {
    let runs = runs(&tables.intervals, rises);
    for (number, wire) in wire.iter().enumerate() {
        let (key, list) = grant(wire, tables, &runs).ok_or(PolicyError::Invalid {
            what: "grant",
            number,
        })?;
        tables.grants.insert(key, list);
    }
    Ok(())
}

/// For each interval the number of the rising run that it is in: a list rises when its first and its
/// last one are in the same.
fn runs(
    intervals: &[PortInterval],
    mut rises: impl FnMut(&PortInterval, &PortInterval) -> bool,
) -> Vec<u32> {
    let mut runs = Vec::with_capacity(intervals.len());
    let mut run = 0;
    let mut before = None;
    for interval in intervals {
        if before.is_some_and(|before| !rises(before, interval)) {
            run += 1;
        }
        runs.push(run);
        before = Some(interval);
    }
    runs
}

fn grant(
    wire: &v1::PolicyGrant,
    tables: &Tables,
    runs: &[u32],
) -> Option<(GrantKey, IntervalList)> {
    let end = wire.start.checked_add(wire.length)? as usize;
    let own = tables.regions.get(wire.region as usize)?.own;
    let list = runs.get(wire.start as usize..end)?;
    let valid = own & principal_bit(wire.principal) != 0
        && list.len() < 1 << SEARCH_STEPS
        && list.first() == list.last();
    let key = GrantKey {
        region: wire.region,
        principal: wire.principal,
    };
    valid.then_some((
        key,
        IntervalList {
            start: wire.start,
            length: wire.length,
        },
    ))
}

/// Prefixes by direction and family, sorted, their regions numbered in that order: what the look-up
/// in memory relies on.
fn prefixes(wire: Vec<v1::PolicyPrefix>, tables: &mut Tables) -> Result<(), PolicyError> {
    for (number, wire) in wire.into_iter().enumerate() {
        prefix(&wire, tables).ok_or(PolicyError::Invalid {
            what: "prefix",
            number,
        })?;
    }
    let mut taken = vec![false; tables.regions.len()];
    for side in tables.prefixes.iter_mut().flatten() {
        side.sort_unstable_by_key(|entry| (entry.address, entry.length));
        let first = side.first().map_or(0, |entry| entry.region as usize);
        for (place, entry) in side.iter().enumerate() {
            let region = entry.region as usize;
            let invalid = PolicyError::Invalid {
                what: "region of a prefix",
                number: region,
            };
            let twice = taken
                .get_mut(region)
                .is_none_or(|taken| std::mem::replace(taken, true));
            if twice || region != first + place {
                return Err(invalid);
            }
        }
    }
    Ok(())
}

fn prefix(wire: &v1::PolicyPrefix, tables: &mut Tables) -> Option<()> {
    let (address, family) = match wire.address.len() {
        4 => (
            IpAddr::from(<[u8; 4]>::try_from(wire.address.as_slice()).ok()?),
            Family::V4,
        ),
        _ => (
            IpAddr::from(<[u8; 16]>::try_from(wire.address.as_slice()).ok()?),
            Family::V6,
        ),
    };
    let net = IpNet::new(address, u8::try_from(wire.length).ok()?).ok()?;
    if net.trunc() != net || wire.region as usize >= tables.regions.len() {
        return None;
    }
    let side = tables.prefixes.get_mut(wire.direction as usize)?;
    side[family as usize].push(PrefixEntry::new(net, wire.region));
    Some(())
}

#[cfg(test)]
mod tests {
    use gateway_common::abi::{Direction, RuleOutcome};

    use super::*;

    /// One rule: the principal 0 may reach 10.0.0.0/8 by tcp/22.
    fn wire() -> v1::Policy {
        v1::Policy {
            id: 7,
            prefixes: vec![v1::PolicyPrefix {
                direction: 0,
                address: vec![10, 0, 0, 0],
                length: 8,
                region: 0,
            }],
            regions: vec![v1::PolicyRegion {
                own: 1,
                covering: 1,
                parent: NO_REGION,
            }],
            grants: vec![v1::PolicyGrant {
                region: 0,
                principal: 0,
                start: 0,
                length: 1,
            }],
            intervals: vec![v1::PolicyInterval {
                first: 6 << 16 | 22,
                last: 6 << 16 | 22,
                outcome: 0,
            }],
            outcomes: vec![v1::PolicyOutcome {
                max_age_ns: 0,
                rule: 0,
                kind: 2,
                level: 1,
                prefix_length: 8,
            }],
            classes: vec![
                v1::PolicyClass::default(),
                v1::PolicyClass {
                    principals: vec![0],
                },
            ],
            rules: vec!["ssh".into()],
        }
    }

    #[test]
    fn a_policy_is_parsed() {
        let policy = Policy::try_from(wire()).expect("valid");
        let remote = "10.1.2.3".parse().expect("address");
        let found = policy.tables.lookup(1, Direction::FromPeer, remote, 6, 22);
        assert_eq!(
            found,
            RuleOutcome::Allow {
                rule: 0,
                level: Level::Mfa,
                max_age: None
            }
        );
        assert_eq!(
            policy.tables.lookup(0, Direction::FromPeer, remote, 6, 22),
            RuleOutcome::NoRule
        );
        assert_eq!(policy.rule_name(0), Some("ssh"));
    }

    /// A list that falls once, between its fourth and its fifth interval.
    fn falling() -> Vec<PortInterval> {
        [0, 10, 20, 30, 5, 15, 25]
            .map(|first| PortInterval {
                first,
                last: first + 3,
                outcome: 0,
            })
            .to_vec()
    }

    #[test]
    fn inv1_a_list_is_taken_where_each_of_its_intervals_ends_before_the_next() {
        let mut tables = Policy::try_from(wire()).expect("valid").tables;
        tables.intervals = falling();
        let length = u32::try_from(tables.intervals.len()).expect("few");
        for start in 0..=length {
            for length in 0..=length - start {
                let wire = v1::PolicyGrant {
                    start,
                    length,
                    ..wire().grants[0]
                };
                let rises = |a: &PortInterval, b: &PortInterval| a.last < b.first;
                let taken = grants(&[wire], &mut tables, rises).is_ok();
                let list = &tables.intervals[start as usize..][..length as usize];
                assert_eq!(taken, list.is_sorted_by(rises), "{start} {length}");
            }
        }
    }

    #[test]
    fn inv4_what_checking_grants_takes_does_not_grow_with_how_many_name_a_list() {
        const INTERVALS: u32 = 100;
        const GRANTS: u32 = 1000;
        let mut tables = Policy::try_from(wire()).expect("valid").tables;
        tables.intervals = (0..INTERVALS)
            .map(|port| PortInterval {
                first: port,
                last: port,
                outcome: 0,
            })
            .collect();
        // The same list, and lists that overlap without being the same.
        for shift in [0, 1] {
            let wire: Vec<_> = (0..GRANTS)
                .map(|number| v1::PolicyGrant {
                    start: number * shift % (INTERVALS / 2),
                    length: INTERVALS / 2,
                    ..wire().grants[0]
                })
                .collect();
            let mut looked_at = 0;
            let rises = |a: &PortInterval, b: &PortInterval| {
                looked_at += 1;
                a.last < b.first
            };
            grants(&wire, &mut tables, rises).expect("valid");
            assert_eq!(looked_at, INTERVALS - 1);
        }
    }

    #[test]
    fn inv1_numbers_that_lead_nowhere_are_refused() {
        let changes: [fn(&mut v1::Policy); 20] = [
            |wire| wire.id = 0,
            |wire| wire.prefixes[0].direction = 2,
            |wire| wire.prefixes[0].address = vec![10],
            |wire| wire.prefixes[0].address = vec![10, 0, 0, 1],
            |wire| wire.prefixes[0].length = 33,
            |wire| wire.prefixes[0].region = 1,
            |wire| wire.prefixes.push(wire.prefixes[0].clone()),
            |wire| wire.regions[0].parent = 0,
            |wire| wire.regions[0].own = 2,
            |wire| wire.grants[0].region = 1,
            |wire| wire.grants[0].start = u32::MAX,
            |wire| wire.grants[0].length = 2,
            |wire| wire.intervals[0].outcome = 1,
            |wire| wire.intervals[0].first += 1,
            |wire| wire.outcomes[0].rule = 1,
            |wire| wire.outcomes[0].kind = 3,
            |wire| wire.outcomes[0].level = 3,
            |wire| wire.classes.remove(0).principals.clear(),
            |wire| wire.classes[1].principals = vec![0, 0],
            |wire| wire.classes[1].principals = (0..33).collect(),
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let mut wire = wire();
            change(&mut wire);
            assert!(Policy::try_from(wire).is_err(), "change {i}");
        }
    }
}
