//! Budgets of handshake initiations: the generic cell rate algorithm (ITU-T I.371), a token bucket
//! whose whole state is one time.

use crate::abi::AddressV6;

/// So many, and then one in each interval.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Nanoseconds that one initiation uses up; 0: no limit.
    pub interval: u64,
    /// Nanoseconds that may be used up in advance.
    pub burst: u64,
}

impl Budget {
    /// `per_second` of them in the long run, `burst` (at least one) at once.
    pub const fn new(per_second: u32, burst: u32) -> Self {
        if per_second == 0 {
            return Self {
                interval: 0,
                burst: 0,
            };
        }
        let interval = crate::clock::SECOND / per_second as u64;
        Self {
            interval,
            burst: interval * (burst.saturating_sub(1) as u64),
        }
    }
}

/// The state after one more initiation at `now`, or `None` where the budget is used up. A state of 0
/// is that of a source not seen before.
#[inline(always)]
pub fn admit(budget: Budget, state: u64, now: u64) -> Option<u64> {
    let start = if state > now { state } else { now };
    if start - now > budget.burst {
        return None;
    }
    Some(start + budget.interval)
}

/// The upper half of an IPv4 source's key.
const IPV4: u64 = 0xffff_ffff;

/// What counts as one source: an IPv4 address, or an IPv6 /64, which is what one subscriber has. IPv4
/// addresses are IPv4-mapped.
#[inline(always)]
pub fn source_key(is_v6: bool, address: AddressV6) -> u64 {
    let [first, second, _, fourth] = address.0;
    if !is_v6 {
        return IPV4 << 32 | fourth as u64;
    }
    // No honest sender has a multicast address; who forges one is not to speak for an IPv4 source.
    let first = first as u64;
    let first = if first == IPV4 { 0 } else { first };
    first << 32 | second as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;

    fn admitted(budget: Budget, times: impl Iterator<Item = u64>) -> usize {
        let mut state = 0;
        times
            .filter(|&now| match admit(budget, state, now) {
                Some(next) => {
                    state = next;
                    true
                }
                None => false,
            })
            .count()
    }

    #[test]
    fn a_flood_gets_the_burst_and_then_the_rate() {
        let budget = Budget::new(20, 50);
        let start = 1_000 * SECOND;
        assert_eq!(admitted(budget, core::iter::repeat_n(start, 1_000)), 50);
        // Ten seconds of one each millisecond.
        let flood = (0..10_000).map(|i| start + i * SECOND / 1_000);
        let count = admitted(budget, flood);
        assert!((50 + 199..=50 + 200).contains(&count), "{count}");
    }

    #[test]
    fn who_keeps_to_the_rate_is_never_refused() {
        let budget = Budget::new(20, 1);
        assert_eq!(admitted(budget, (0..1_000).map(|i| i * SECOND / 20)), 1_000);
    }

    #[test]
    fn no_ipv6_source_speaks_for_an_ipv4_one() {
        let v4 = AddressV6([0, 0, 0xffff_0000, 0xc000_0207]);
        let forged = AddressV6([0xffff_ffff, 0xc000_0207, 0, 0]);
        assert_ne!(source_key(true, forged), source_key(false, v4));
    }

    #[test]
    fn no_budget_is_no_limit() {
        assert_eq!(
            admitted(Budget::new(0, 0), core::iter::repeat_n(5, 1_000)),
            1_000
        );
    }
}
