//! How often one address may tell something, in this process.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// At once.
const BURST: u32 = 30;
/// And another one each time.
const EVERY: Duration = Duration::from_secs(1);
/// Addresses remembered. When there are more, those that have asked for nothing lately are forgotten.
const MOST: usize = 4096;

/// A bucket for each address; clones share it.
#[derive(Clone, Default)]
pub(super) struct Rates(Arc<Mutex<HashMap<IpAddr, Instant>>>);

impl Rates {
    /// Takes one from the address's bucket, or tells how many seconds until there is one.
    pub(super) fn take(&self, from: IpAddr) -> Result<(), u64> {
        let now = Instant::now();
        let mut full_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if full_at.len() >= MOST {
            full_at.retain(|_, full_at| *full_at > now);
        }
        let key = holder(from);
        if full_at.len() >= MOST && !full_at.contains_key(&key) {
            return Err(1);
        }
        // When the bucket would be full again: the further off, the emptier it is.
        let full = full_at.get(&key).copied().unwrap_or(now).max(now) + EVERY;
        let empty = now + EVERY * BURST;
        if full > empty {
            return Err((full - empty).as_secs().max(1));
        }
        full_at.insert(key, full);
        Ok(())
    }
}

/// Whoever has an IPv6 address has its /64.
fn holder(from: IpAddr) -> IpAddr {
    match from {
        IpAddr::V4(_) => from,
        IpAddr::V6(ip) => {
            let bits = u128::from(ip) >> 64 << 64;
            Ipv6Addr::from(bits).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_address_cannot_ask_without_end_and_hinders_no_other() {
        let rates = Rates::default();
        let [one, neighbour, other]: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::2", "192.0.2.1"].map(|ip| ip.parse().unwrap());
        for _ in 0..BURST {
            rates.take(one).unwrap();
        }
        assert_eq!(rates.take(one), Err(1));
        assert_eq!(rates.take(neighbour), Err(1));
        rates.take(other).unwrap();
        tokio::time::advance(EVERY).await;
        rates.take(neighbour).unwrap();
        assert_eq!(rates.take(one), Err(1));
    }
}
