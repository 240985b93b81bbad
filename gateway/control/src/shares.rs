//! So many at once, then one in each such time, for each of many: what one may take of the machine.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Of whom is remembered. Beyond them those that are quiet again are forgotten, and at worst all.
const MOST: usize = 16 * 1024;

/// So many at once, then one in each such time.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// The time of one.
    pub every: Duration,
}

/// Counts by whom: the time at which nothing of theirs is taken any more (a leaky bucket by its virtual
/// scheduling, ITU-T I.371).
#[derive(Debug)]
pub struct Shares<K> {
    rate: Rate,
    free_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash> Shares<K> {
    /// Nothing is taken yet.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            free_at: Mutex::new(HashMap::new()),
        }
    }

    /// Takes one now. Otherwise how long to wait for it.
    pub fn take(&self, whose: K) -> Result<(), Duration> {
        self.take_at(whose, Instant::now())
    }

    fn take_at(&self, whose: K, now: Instant) -> Result<(), Duration> {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        if free_at.len() >= MOST && !free_at.contains_key(&whose) {
            free_at.retain(|_, at| *at > now);
            if free_at.len() >= MOST {
                free_at.clear();
            }
        }
        let at = free_at.entry(whose).or_insert(now);
        let next = (*at).max(now) + self.rate.every;
        let latest = now + self.rate.every * self.rate.burst;
        if next > latest {
            return Err(next - latest);
        }
        *at = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_has_a_share_and_takes_no_other_ones() {
        let shares = Shares::new(Rate {
            burst: 3,
            every: Duration::from_secs(2),
        });
        let now = Instant::now();
        for _ in 0..3 {
            shares.take_at("one", now).unwrap();
        }
        assert_eq!(shares.take_at("one", now), Err(Duration::from_secs(2)));
        shares.take_at("other", now).unwrap();
        // One comes back in each such time, and never more than the burst.
        let later = now + Duration::from_secs(2);
        shares.take_at("one", later).unwrap();
        assert!(shares.take_at("one", later).is_err());
        let much_later = now + Duration::from_secs(3600);
        for _ in 0..3 {
            shares.take_at("one", much_later).unwrap();
        }
        assert!(shares.take_at("one", much_later).is_err());
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let shares = Shares::new(Rate {
            burst: 1,
            every: Duration::from_secs(2),
        });
        for whose in 0..MOST + 10 {
            let _ = shares.take(whose);
        }
        assert!(shares.free_at.lock().unwrap().len() <= MOST);
    }
}
