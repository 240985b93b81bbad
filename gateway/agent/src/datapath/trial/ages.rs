//! Ages of logins, and the greatest ages that rules take, on a clock that began when the machine did.
//!
//! A trial speaks of logins that are older than that, and time goes on between writing a state and
//! running a program. Nothing but the order counts: whether a login is older than what a rule takes.
//! So each age is moved to where the answer is the same and no clock tick changes it, and where the
//! clock is too young for the rules' own numbers, they are replaced by others in the same order.

use gateway_common::{clock::SECOND, policy::Tables};

/// Apart enough for a tick of any kernel's clock, and for a program to run, to fall between two ages.
const LEAST_GAP: u64 = SECOND / 50;
/// How far from the next rule's limit an age is kept, at most.
const MARGIN: u64 = SECOND / 2;

/// How the ages of one policy are written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ages {
    /// What the rules say, ascending.
    limits: Vec<u64>,
    /// What the tables say in their place, ascending.
    written: Vec<u64>,
    gap: u64,
}

impl Ages {
    /// Those of these tables on a clock that began `room` ago; `None` where it began too lately for
    /// so many different ages.
    pub(super) fn new(tables: &Tables, room: u64) -> Option<Self> {
        let ages = tables.outcomes.iter().map(|outcome| outcome.max_age);
        let mut limits: Vec<u64> = ages.filter(|age| *age != 0).collect();
        limits.sort_unstable();
        limits.dedup();
        let fits = limits
            .last()
            .is_none_or(|age| age.saturating_add(SECOND) <= room);
        if fits && least_gap(&limits) >= LEAST_GAP {
            return Some(Self {
                gap: least_gap(&limits),
                written: limits.clone(),
                limits,
            });
        }
        let unit = (room / (limits.len() as u64 + 1)).min(SECOND);
        (unit >= LEAST_GAP).then(|| Self {
            written: (1..).map(|rank| rank * unit).take(limits.len()).collect(),
            limits,
            gap: unit,
        })
    }

    /// Of tables without any.
    pub(super) fn none() -> Self {
        Self {
            limits: Vec::new(),
            written: Vec::new(),
            gap: u64::MAX,
        }
    }

    /// The tables as they are written.
    pub(super) fn rewrite(&self, tables: &mut Tables) {
        for outcome in &mut tables.outcomes {
            if let Ok(place) = self.limits.binary_search(&outcome.max_age) {
                outcome.max_age = self.written[place];
            }
        }
    }

    /// A login's age as it is written: on the same side of every rule's limit, and away from them.
    pub(super) fn of(&self, age: u64) -> u64 {
        // Just as old as it may be is not too old.
        let beyond = self.limits.partition_point(|limit| *limit < age);
        let low = match beyond {
            0 => 0,
            beyond => self.written[beyond - 1],
        };
        match self.written.get(beyond) {
            Some(high) => high - MARGIN.min((high - low) / 2),
            None => low + MARGIN.min(self.gap / 2),
        }
    }

    /// As long as this may pass between writing a state and running a program.
    pub(super) fn patience(&self) -> u64 {
        MARGIN.min(self.gap / 2) / 2
    }
}

/// Between any two of them, and before the first.
fn least_gap(limits: &[u64]) -> u64 {
    let before = [0].iter().chain(limits);
    let gaps = before.zip(limits).map(|(low, high)| high - low);
    gaps.min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use gateway_common::abi::Outcome;

    use super::*;

    fn tables(ages: &[u64]) -> Tables {
        let outcomes = ages.iter().map(|&max_age| Outcome {
            max_age,
            ..Outcome::default()
        });
        Tables {
            outcomes: outcomes.collect(),
            ..Tables::default()
        }
    }

    /// On whatever clock, an age must be beyond the same rules as before, by a good margin.
    fn keeps_the_order(limits: &[u64], room: u64) {
        let mut tables = tables(limits);
        let ages = Ages::new(&tables, room).expect("room");
        ages.rewrite(&mut tables);
        assert!(ages.patience() >= SECOND / 200, "{ages:?}");
        let around = limits
            .iter()
            .flat_map(|limit| [limit - 1, *limit, limit + 1]);
        for age in around.chain([0, u64::MAX / 2]) {
            let written = ages.of(age);
            assert!(written < room, "{age} in {ages:?} is before the clock");
            for (limit, outcome) in limits.iter().zip(&tables.outcomes) {
                // No limit stays none.
                assert_eq!(*limit == 0, outcome.max_age == 0);
                assert_eq!(age > *limit, written > outcome.max_age, "{age} {limit}");
                let distance = written.abs_diff(outcome.max_age);
                assert!(distance > ages.patience(), "{age} {limit}: {written}");
            }
        }
    }

    #[test]
    fn an_old_clock_takes_ages_as_they_are() {
        let limits = [900 * SECOND, 60 * SECOND, 86_400 * SECOND];
        keeps_the_order(&limits, 90_000 * SECOND);
        let ages = Ages::new(&tables(&limits), 90_000 * SECOND).expect("room");
        assert_eq!(ages.written, ages.limits);
    }

    #[test]
    fn a_young_clock_keeps_their_order() {
        keeps_the_order(&[900 * SECOND, 60 * SECOND, 86_400 * SECOND], 20 * SECOND);
        keeps_the_order(&[900 * SECOND], SECOND / 10);
        keeps_the_order(&[], SECOND);
    }

    #[test]
    fn ages_that_are_closer_than_ticks_are_drawn_apart() {
        keeps_the_order(&[SECOND, SECOND + 2], 90_000 * SECOND);
    }

    #[test]
    fn too_many_ages_for_a_young_clock_are_told() {
        let many: Vec<u64> = (1..=1000).map(|age| age * SECOND).collect();
        assert_eq!(Ages::new(&tables(&many), 10 * SECOND), None);
    }
}
