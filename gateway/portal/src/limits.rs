//! How many connections the portal holds at once, in all and for each device.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// In all. A login holds a connection for seconds.
const TOTAL: usize = 1024;
/// For one address, so that no device can keep the others from logging in.
const PER_DEVICE: usize = 16;

/// Counts of open connections.
#[derive(Clone, Default)]
pub(crate) struct Limits(Arc<Mutex<Counts>>);

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
    /// None when there are too many already.
    pub(crate) fn enter(&self, device: IpAddr) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = counts.by_device.get(&device).copied().unwrap_or(0);
        if counts.total >= TOTAL || held >= PER_DEVICE {
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
        let mut counts = self.limits.0.lock().unwrap_or_else(PoisonError::into_inner);
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
