//! Lists of port intervals, each distinct one kept once.

use std::collections::HashMap;

use super::index;
use crate::policy::limits;
use crate::policy::outcome::{self, Outcome};
use crate::policy::rule::Rule;
use crate::policy::span::{self, PortSpan, Stretch};
use crate::policy::tables::{IntervalList, PortInterval, Tables, stretches};

/// Which limit a list hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    List,
    Intervals,
    Steps,
}

/// The lists made so far, and how each came about, so that none is made twice.
#[derive(Default)]
pub(super) struct Lists {
    known: HashMap<Vec<PortInterval>, IntervalList>,
    outcomes: HashMap<Outcome, u32>,
    own: HashMap<(Vec<u32>, u8), IntervalList>,
    within: HashMap<(IntervalList, IntervalList), IntervalList>,
    steps: usize,
}

impl Lists {
    /// The list of these rules together, all for prefixes of this length.
    pub(super) fn own(
        &mut self,
        tables: &mut Tables,
        rules: &[Rule],
        numbers: &[u32],
        length: u8,
    ) -> Result<IntervalList, Full> {
        let key = (numbers.to_vec(), length);
        if let Some(list) = self.own.get(&key) {
            return Ok(*list);
        }
        let stretches = self.fold(rules, numbers, length)?;
        let list = self.intern(tables, &stretches)?;
        self.own.insert(key, list);
        Ok(list)
    }

    /// The list at a prefix whose own rules make `own`, within a prefix whose list is `around`.
    pub(super) fn within(
        &mut self,
        tables: &mut Tables,
        around: IntervalList,
        own: IntervalList,
    ) -> Result<IntervalList, Full> {
        if let Some(list) = self.within.get(&(around, own)) {
            return Ok(*list);
        }
        let merged = self.merge(
            stretches(tables, around).collect(),
            stretches(tables, own).collect(),
        )?;
        let list = self.intern(tables, &merged)?;
        self.within.insert((around, own), list);
        Ok(list)
    }

    /// Halves of the rules merged, and so on: n log n instead of n².
    fn fold(
        &mut self,
        rules: &[Rule],
        numbers: &[u32],
        length: u8,
    ) -> Result<Vec<Stretch<Outcome>>, Full> {
        match numbers {
            [] => Ok(Vec::new()),
            [number] => Ok(rules
                .get(*number as usize)
                .map_or_else(Vec::new, |rule| of_rule(rule, *number, length))),
            _ => {
                let (left, right) = numbers.split_at(numbers.len() / 2);
                let (left, right) = (
                    self.fold(rules, left, length)?,
                    self.fold(rules, right, length)?,
                );
                self.merge(left, right)
            }
        }
    }

    fn merge(
        &mut self,
        a: Vec<Stretch<Outcome>>,
        b: Vec<Stretch<Outcome>>,
    ) -> Result<Vec<Stretch<Outcome>>, Full> {
        self.steps += a.len() + b.len();
        if self.steps > limits::COMPILE_STEPS {
            return Err(Full::Steps);
        }
        Ok(span::merge(a, b))
    }

    fn intern(
        &mut self,
        tables: &mut Tables,
        stretches: &[Stretch<Outcome>],
    ) -> Result<IntervalList, Full> {
        if stretches.len() > limits::INTERVALS_PER_LIST {
            return Err(Full::List);
        }
        let intervals: Vec<PortInterval> = stretches
            .iter()
            .map(|stretch| {
                let outcome = *self.outcomes.entry(stretch.outcome).or_insert_with(|| {
                    tables.outcomes.push(stretch.outcome);
                    index(tables.outcomes.len() - 1)
                });
                PortInterval {
                    first: stretch.first,
                    last: stretch.last,
                    outcome,
                }
            })
            .collect();
        if let Some(list) = self.known.get(&intervals) {
            return Ok(*list);
        }
        if tables.intervals.len() + intervals.len() > limits::INTERVALS {
            return Err(Full::Intervals);
        }
        let list = IntervalList {
            start: index(tables.intervals.len()),
            length: index(intervals.len()),
        };
        tables.intervals.extend_from_slice(&intervals);
        self.known.insert(intervals, list);
        Ok(list)
    }
}

/// A rule's ports as disjoint intervals.
fn of_rule(rule: &Rule, number: u32, length: u8) -> Vec<Stretch<Outcome>> {
    let outcome = outcome::of_rule(rule, number, length);
    let mut spans: Vec<PortSpan> = rule
        .ports
        .iter()
        .map(|spec| PortSpan::from(*spec))
        .collect();
    spans.sort_unstable();
    let mut list: Vec<Stretch<Outcome>> = Vec::with_capacity(spans.len());
    for PortSpan { first, last } in spans {
        match list.last_mut() {
            Some(before) if first <= before.last + 1 => before.last = before.last.max(last),
            _ => list.push(Stretch {
                first,
                last,
                outcome,
            }),
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn lists_are_kept_once_and_time_is_bounded() {
        let text = "[[rule]]\nname = \"a\"\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\nports = [\"tcp/22\", \"tcp/20-23\", \"tcp/24\"]\n\
                    [[rule]]\nname = \"b\"\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\nports = [\"udp\"]\n";
        let policy = Policy::parse(text).unwrap();
        let (mut lists, mut tables) = (Lists::default(), Tables::default());
        let first = lists.own(&mut tables, policy.rules(), &[0], 8).unwrap();
        assert_eq!(
            first,
            IntervalList {
                start: 0,
                length: 1
            }
        );
        assert_eq!(lists.own(&mut tables, policy.rules(), &[0], 8), Ok(first));
        assert_eq!(lists.within(&mut tables, first, first), Ok(first));
        let both = lists.own(&mut tables, policy.rules(), &[0, 1], 8).unwrap();
        assert_eq!(
            (both, tables.intervals.len()),
            (
                IntervalList {
                    start: 1,
                    length: 2
                },
                3
            )
        );
        lists.steps = limits::COMPILE_STEPS;
        assert_eq!(
            lists.own(&mut tables, policy.rules(), &[0, 1], 9),
            Err(Full::Steps)
        );
    }
}
