//! The look-up, step by step as the kernel does it: bounded loops over the tables, nothing else.

use std::net::IpAddr;

use gateway_common::abi::Direction;

use super::compile::CompiledPolicy;
use super::limits;
use super::outcome::{Outcome, RuleOutcome};
use super::span;
use super::tables::{
    EffectivePolicy, Family, GrantKey, IntervalList, NO_REGION, Tables, bit, left_aligned,
};

/// Regions around one another: no more than there are prefix lengths.
const DEEPEST: usize = 129;

impl CompiledPolicy {
    /// What the policy of this number says about a flow opened in `direction`. `port` is the
    /// destination's, 0 where the protocol has none. An unknown policy permits nothing.
    pub fn lookup(
        &self,
        policy: u32,
        direction: Direction,
        remote: IpAddr,
        protocol: u8,
        port: u16,
    ) -> RuleOutcome {
        let found = self
            .tables()
            .find(policy, direction, remote, span::key(protocol, port));
        found
            .flatten()
            .map_or(RuleOutcome::NoRule, RuleOutcome::from)
    }
}

impl Tables {
    /// The outcome, if any; the outer `None` is a table that lacks what another refers to, which
    /// permits nothing either.
    fn find(
        &self,
        policy: u32,
        direction: Direction,
        remote: IpAddr,
        key: u32,
    ) -> Option<Option<Outcome>> {
        let policy = self.policies.get(policy as usize)?;
        let mut region = self.longest_match(direction, remote);
        let mut pending = u32::MAX;
        let mut merged: Option<Outcome> = None;
        for _ in 0..DEEPEST {
            if region == NO_REGION {
                break;
            }
            let node = self.regions.get(region as usize)?;
            if node.covering & policy.mask == 0 {
                break;
            }
            if node.own & policy.mask != 0 {
                for (slot, principal) in members(policy) {
                    // Its narrowest region holds all that it has, the wider ones included.
                    if pending & slot == 0 || node.own & bit(principal) == 0 {
                        continue;
                    }
                    let Some(list) = self.grants.get(&GrantKey { region, principal }) else {
                        continue;
                    };
                    pending &= !slot;
                    if let Some(outcome) = self.search(*list, key)? {
                        merged = Some(merged.map_or(outcome, |merged| merged.merge(outcome)));
                    }
                }
            }
            region = node.parent;
        }
        Some(merged)
    }

    /// What the kernel's longest-prefix-match map answers, or [`NO_REGION`].
    fn longest_match(&self, direction: Direction, remote: IpAddr) -> u32 {
        let entries = self.prefixes(direction, Family::of(remote));
        let address = left_aligned(remote);
        // The last prefix that starts at or before the address lies within all that cover it.
        let before = entries.partition_point(|entry| entry.address <= address);
        let Some(nearest) = before.checked_sub(1).and_then(|index| entries.get(index)) else {
            return NO_REGION;
        };
        let covers = |region: u32| {
            entries
                .get((region.wrapping_sub(entries[0].region)) as usize)
                .is_some_and(|entry| entry.covers(&address))
        };
        let mut region = nearest.region;
        while region != NO_REGION && !covers(region) {
            region = self
                .regions
                .get(region as usize)
                .map_or(NO_REGION, |node| node.parent);
        }
        region
    }

    /// Binary search: the outcome at the key, if there is one.
    fn search(&self, list: IntervalList, key: u32) -> Option<Option<Outcome>> {
        let (mut low, mut high) = (list.start, list.start.checked_add(list.length)?);
        for _ in 0..limits::SEARCH_STEPS {
            if low >= high {
                break;
            }
            let middle = low + (high - low) / 2;
            let interval = self.intervals.get(middle as usize)?;
            if key < interval.first {
                high = middle;
            } else if key > interval.last {
                low = middle + 1;
            } else {
                return self
                    .outcomes
                    .get(interval.outcome as usize)
                    .map(|outcome| Some(*outcome));
            }
        }
        Some(None)
    }
}

/// The policy's principals, each with a bit of its own.
pub(super) fn members(policy: &EffectivePolicy) -> impl Iterator<Item = (u32, u32)> + '_ {
    let count = (policy.count as usize).min(limits::PRINCIPALS_PER_POLICY);
    policy.principals[..count]
        .iter()
        .enumerate()
        .map(|(i, principal)| (1 << i, *principal))
}
