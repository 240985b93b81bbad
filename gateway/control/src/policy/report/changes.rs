//! Who gains and who loses what when one policy takes the place of another.

use std::collections::{BTreeMap, HashMap};

use gateway_common::abi::Direction;
use ipnet::IpNet;

use super::areas::{Area, areas};
use super::outline::outline;
use crate::policy::compile::{CompileError, CompiledPolicy};
use crate::policy::outcome::RuleOutcome;
use crate::policy::principal::Subject;
use crate::policy::span::{PortSpan, Stretch, sweep};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// Names of those whom it concerns, sorted.
    pub users: Vec<String>,
    /// As in [`super::Reach`].
    pub direction: Direction,
    /// Remote addresses.
    pub remote: IpNet,
    /// Narrower prefixes that have lines of their own, or at which nothing changes.
    pub except: Vec<IpNet>,
    /// Protocols and destination ports, sorted.
    pub ports: Vec<PortSpan>,
    /// What holds now, by a rule of the old policy.
    pub before: RuleOutcome,
    /// What will hold, by a rule of the new policy.
    pub after: RuleOutcome,
}

/// What a change is to its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// Reachable now, dropped then.
    Loses,
    /// Dropped now, reachable then.
    Gains,
    /// Reachable in both, with a better or fresher login than now.
    Stricter,
    /// Reachable in both, with less of a login than now.
    Looser,
    /// Reachable in both; one requirement rises and the other falls.
    Different,
}

impl Change {
    /// What it is to its users.
    pub fn effect(&self) -> Effect {
        let (before, after) = (requirement(self.before), requirement(self.after));
        let (Some((level, age)), Some((new_level, new_age))) = (before, after) else {
            return if before.is_some() {
                Effect::Loses
            } else {
                Effect::Gains
            };
        };
        match (
            new_level >= level && new_age <= age,
            new_level <= level && new_age >= age,
        ) {
            (true, _) => Effect::Stricter,
            (false, true) => Effect::Looser,
            (false, false) => Effect::Different,
        }
    }
}

/// Every difference for these users, by direction, prefix and ports; one that concerns several users
/// is told once. Changes that only swap one rule for another with the same
/// effect are none.
///
/// # Errors
/// Where a user cannot be assigned a policy; see [`CompiledPolicy::assign`].
pub fn changes(
    old: &mut CompiledPolicy,
    new: &mut CompiledPolicy,
    subjects: &[Subject],
) -> Result<Vec<Change>, CompileError> {
    // Users with the same policy before and after have the same changes.
    let mut alike: BTreeMap<(u32, u32), Vec<String>> = BTreeMap::new();
    for subject in subjects {
        alike
            .entry((old.assign(subject)?, new.assign(subject)?))
            .or_default()
            .push(subject.user.clone());
    }
    let mut found: HashMap<Change, Vec<String>> = HashMap::new();
    for ((before, after), users) in alike {
        for direction in Direction::ALL {
            let nested = side_by_side(areas(old, before, direction), areas(new, after, direction));
            for entry in outline(nested) {
                for (Transition { before, after }, ports) in entry.value {
                    let (remote, except) = (entry.net, entry.except.clone());
                    let change = Change {
                        users: Vec::new(),
                        direction,
                        remote,
                        except,
                        ports,
                        before,
                        after,
                    };
                    found.entry(change).or_default().extend_from_slice(&users);
                }
            }
        }
    }
    let mut found: Vec<Change> = found
        .into_iter()
        .map(|(change, mut users)| {
            users.sort_unstable();
            users.dedup();
            Change { users, ..change }
        })
        .collect();
    found.sort_by(|a, b| {
        let place = |change: &Change| (change.direction, change.remote);
        (place(a), &a.ports, &a.users).cmp(&(place(b), &b.ports, &b.users))
    });
    Ok(found)
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Transition {
    before: RuleOutcome,
    after: RuleOutcome,
}

type Transitions = Vec<(Transition, Vec<PortSpan>)>;

/// At each prefix of either policy: what differs there between the two.
fn side_by_side(old: Vec<Area>, new: Vec<Area>) -> Vec<(IpNet, Transitions)> {
    let mut nets: Vec<IpNet> = old.iter().chain(&new).map(|area| area.net).collect();
    nets.sort_unstable();
    nets.dedup();
    let (mut old, mut new) = (Nested::new(old), Nested::new(new));
    nets.into_iter()
        .map(|net| (net, transitions(old.at(net), new.at(net))))
        .collect()
}

fn transitions(old: &[Stretch<RuleOutcome>], new: &[Stretch<RuleOutcome>]) -> Transitions {
    let mut found: Transitions = Vec::new();
    sweep(
        old.iter().copied(),
        new.iter().copied(),
        |first, last, before, after| {
            let before = before.unwrap_or(RuleOutcome::NoRule);
            let after = after.unwrap_or(RuleOutcome::NoRule);
            if requirement(before) == requirement(after) {
                return;
            }
            let transition = Transition { before, after };
            match found.iter_mut().find(|(known, _)| *known == transition) {
                Some((_, spans)) => match spans.last_mut() {
                    Some(span) if span.last + 1 == first => span.last = last,
                    _ => spans.push(PortSpan { first, last }),
                },
                None => found.push((transition, vec![PortSpan { first, last }])),
            }
        },
    );
    found
}

/// What a session must be, in an order in which more is stricter; `None` where nothing passes.
fn requirement(outcome: RuleOutcome) -> Option<(u8, u64)> {
    match outcome {
        RuleOutcome::Allow { level, max_age, .. } => {
            Some((level as u8, max_age.unwrap_or(u64::MAX)))
        }
        RuleOutcome::NoRule | RuleOutcome::Deny { .. } => None,
    }
}

/// Areas asked for in their own order: each step of the walk looks only at those around it.
struct Nested {
    rest: std::iter::Peekable<std::vec::IntoIter<Area>>,
    path: Vec<(IpNet, Vec<Stretch<RuleOutcome>>)>,
}

impl Nested {
    fn new(areas: Vec<Area>) -> Self {
        Self {
            rest: areas.into_iter().peekable(),
            path: Vec::new(),
        }
    }

    /// What holds at the prefix, which comes after those asked for before.
    fn at(&mut self, net: IpNet) -> &[Stretch<RuleOutcome>] {
        while let Some(area) = self.rest.next_if(|area| area.net <= net) {
            self.leave(area.net);
            let stretches = area.stretches.into_iter();
            let told = stretches.map(
                |Stretch {
                     first,
                     last,
                     outcome,
                 }| Stretch {
                    first,
                    last,
                    outcome: outcome.into(),
                },
            );
            self.path.push((area.net, told.collect()));
        }
        self.leave(net);
        self.path.last().map_or(&[], |(_, stretches)| stretches)
    }

    fn leave(&mut self, next: IpNet) {
        while self
            .path
            .last()
            .is_some_and(|(around, _)| !around.contains(&next))
        {
            self.path.pop();
        }
    }
}
