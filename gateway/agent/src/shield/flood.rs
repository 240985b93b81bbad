//! Notices when the shield has much to do, so that an admin hears of it without looking at counters.

use std::time::{Duration, Instant};

use gateway_common::{shield::ShieldReason, verdict::Verdict};

/// Dropped messages a second that are worth telling.
const MUCH: u64 = 100;
/// A flood is over when there has been less for this long.
const QUIET: Duration = Duration::from_secs(60);

/// Whether there is a flood, and since when.
#[derive(Default)]
pub(super) struct Flood {
    last: Option<Reading>,
    under: Option<Attack>,
}

struct Reading {
    at: Instant,
    dropped: Vec<(ShieldReason, u64)>,
}

struct Attack {
    since: Instant,
    /// Dropped before it began.
    before: u64,
    /// When there was last much.
    last: Instant,
}

/// Beginning or end of a flood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Begun {
        per_second: u64,
        mostly: ShieldReason,
    },
    Over {
        after: Duration,
        dropped: u64,
    },
}

impl Flood {
    /// Looks at the counters, which only grow.
    pub(super) fn observe(
        &mut self,
        counters: &[(ShieldReason, u64)],
        now: Instant,
    ) -> Option<Change> {
        let dropped: Vec<_> = counters
            .iter()
            .filter(|(reason, _)| reason.verdict() == Verdict::Drop)
            .copied()
            .collect();
        let new = Reading { at: now, dropped };
        let total = total(&new.dropped);
        let (seconds, more) = match &self.last {
            Some(last) => (now.duration_since(last.at).as_secs_f64(), more(last, &new)),
            None => (0.0, Vec::new()),
        };
        if self.last.is_some() && seconds < 1.0 {
            // Too short to say.
            return None;
        }
        self.last = Some(new);
        let added = self::total(&more);
        let per_second = if seconds > 0.0 {
            (added as f64 / seconds) as u64
        } else {
            0
        };
        match &mut self.under {
            None if per_second >= MUCH => {
                self.under = Some(Attack {
                    since: now,
                    before: total - added,
                    last: now,
                });
                let (mostly, _) = more.into_iter().max_by_key(|&(_, count)| count)?;
                Some(Change::Begun { per_second, mostly })
            }
            Some(attack) if per_second >= MUCH => {
                attack.last = now;
                None
            }
            Some(attack) if now.duration_since(attack.last) >= QUIET => {
                let change = Change::Over {
                    after: attack.last.duration_since(attack.since),
                    dropped: total - attack.before,
                };
                self.under = None;
                Some(change)
            }
            _ => None,
        }
    }
}

fn total(counts: &[(ShieldReason, u64)]) -> u64 {
    counts.iter().map(|(_, count)| count).sum()
}

/// What came between two readings. Maps that were made anew count from zero.
fn more(last: &Reading, new: &Reading) -> Vec<(ShieldReason, u64)> {
    let before = |wanted| {
        let found = last.dropped.iter().find(|(reason, _)| *reason == wanted);
        found.map_or(0, |(_, count)| *count)
    };
    new.dropped
        .iter()
        .map(|&(reason, count)| (reason, count.saturating_sub(before(reason))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ShieldReason::{DeadIndex, Live, Malformed};

    #[test]
    fn a_flood_is_told_when_it_begins_and_when_it_is_over() {
        let mut flood = Flood::default();
        let start = Instant::now();
        let mut at = |seconds: u64, dead: u64, malformed: u64| {
            let counters = [(Live, 1 << 40), (DeadIndex, dead), (Malformed, malformed)];
            flood.observe(&counters, start + Duration::from_secs(seconds))
        };
        assert_eq!(at(0, 5_000, 0), None, "from an earlier run");
        assert_eq!(at(5, 5_499, 0), None, "little");
        let begun = Change::Begun {
            per_second: 1_100,
            mostly: DeadIndex,
        };
        assert_eq!(at(10, 10_499, 500), Some(begun));
        assert_eq!(at(15, 20_499, 500), None, "told once");
        assert_eq!(at(45, 20_499, 500), None);
        assert_eq!(at(50, 30_499, 500), None, "a pause is no end");
        assert_eq!(at(105, 30_499, 500), None);
        let over = Change::Over {
            after: Duration::from_secs(40),
            dropped: 25_500,
        };
        assert_eq!(at(110, 30_499, 500), Some(over));
        assert_eq!(at(115, 30_499, 500), None);
    }
}
