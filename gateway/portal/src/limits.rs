//! How many connections the portal holds at once, in all and for each device.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// In all. A login holds a connection for seconds.
const TOTAL: usize = 1024;
/// For one address, so that no device can keep the others from logging in.
const PER_DEVICE: usize = 16;

/// For providers of single sign-on: one address speaks for all of its users, and each logout waits for
/// gateways.
const OF_PROVIDERS: Most = Most {
    total: 4096,
    each: 1024,
};

/// How many at once.
#[derive(Clone, Copy)]
struct Most {
    total: usize,
    each: usize,
}

/// Counts of open connections.
#[derive(Clone)]
pub(crate) struct Limits {
    most: Most,
    counts: Arc<Mutex<Counts>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(Most {
            total: TOTAL,
            each: PER_DEVICE,
        })
    }
}

#[derive(Default)]
struct Counts {
    total: usize,
    by_device: HashMap<IpAddr, usize>,
}

/// A connection's place; dropping it frees the place.
pub(crate) struct Place {
    limits: Limits,
    device: IpAddr,
}

impl Limits {
    fn new(most: Most) -> Self {
        Self {
            most,
            counts: Arc::default(),
        }
    }

    /// Where providers of single sign-on tell of logouts.
    pub(crate) fn of_providers() -> Self {
        Self::new(OF_PROVIDERS)
    }

    /// None when there are too many already.
    pub(crate) fn enter(&self, device: IpAddr) -> Option<Place> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let held = counts.by_device.get(&device).copied().unwrap_or(0);
        if counts.total >= self.most.total || held >= self.most.each {
            return None;
        }
        counts.total += 1;
        counts.by_device.insert(device, held + 1);
        Some(Place {
            limits: self.clone(),
            device,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self
            .limits
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counts.total = counts.total.saturating_sub(1);
        if let Some(held) = counts.by_device.get_mut(&self.device) {
            *held -= 1;
            if *held == 0 {
                counts.by_device.remove(&self.device);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_device_cannot_keep_the_others_out() {
        let limits = Limits::default();
        let (greedy, other) = (IpAddr::from([10, 77, 0, 2]), IpAddr::from([10, 77, 0, 3]));
        let mut places: Vec<_> = (0..PER_DEVICE)
            .map(|_| limits.enter(greedy).unwrap())
            .collect();
        assert!(limits.enter(greedy).is_none());
        assert!(limits.enter(other).is_some());
        places.pop();
        assert!(limits.enter(greedy).is_some());
    }
}
