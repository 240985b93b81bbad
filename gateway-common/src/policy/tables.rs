//! The tables in memory.

extern crate std;

use core::net::IpAddr;
use std::{collections::HashMap, vec::Vec};

use ipnet::IpNet;

use super::{PolicyTables, Step, find};
use crate::abi::{
    Direction, EffectivePolicy, GrantKey, IntervalList, NO_REGION, Outcome, PortInterval, Region,
    RuleOutcome, port_key,
};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The address's.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }
}

/// One prefix that rules name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixEntry {
    /// Bits that count.
    pub length: u32,
    /// Network byte order; an IPv4 address in the first four bytes.
    pub address: [u8; 16],
    /// Index of its [`Region`].
    pub region: u32,
}

impl PrefixEntry {
    /// The entry of a network.
    pub fn new(net: IpNet, region: u32) -> Self {
        Self {
            length: net.prefix_len().into(),
            address: left_aligned(net.addr()),
            region,
        }
    }

    /// The prefix, given its family.
    pub fn net(&self, family: Family) -> Option<IpNet> {
        let address = match family {
            Family::V4 => IpAddr::from(*self.address.first_chunk::<4>()?),
            Family::V6 => IpAddr::from(self.address),
        };
        IpNet::new(address, u8::try_from(self.length).ok()?).ok()
    }

    /// Whether the address, as `left_aligned` makes it, lies within.
    fn covers(&self, address: &[u8; 16]) -> bool {
        let differing = u128::from_be_bytes(self.address) ^ u128::from_be_bytes(*address);
        differing.leading_zeros() >= self.length
    }
}

/// An address of either family, its first bit first.
fn left_aligned(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Everything that the kernel needs to know of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// By direction and family: prefixes sorted by address, then length, whose regions are
    /// numbered in that order without a gap.
    pub prefixes: [[Vec<PrefixEntry>; 2]; 2],
    /// By the number in [`PrefixEntry::region`].
    pub regions: Vec<Region>,
    /// What each principal with rules at a region gets there, rules for wider prefixes included.
    pub grants: HashMap<GrantKey, IntervalList>,
    /// All lists of intervals, one behind the other.
    pub intervals: Vec<PortInterval>,
    /// By the number in [`PortInterval::outcome`].
    pub outcomes: Vec<Outcome>,
    /// By policy number; number 0 is nobody's.
    pub policies: Vec<EffectivePolicy>,
}

impl Tables {
    /// Prefixes of the rules of one direction.
    pub fn prefixes(&self, direction: Direction, family: Family) -> &[PrefixEntry] {
        &self.prefixes[direction as usize][family as usize]
    }

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
        find(
            self,
            policy,
            self.longest_match(direction, remote),
            port_key(protocol, port),
        )
        .into()
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
}

impl PolicyTables for &Tables {
    fn class(&self, number: u32) -> Option<&EffectivePolicy> {
        self.policies.get(number as usize)
    }

    fn region(&self, number: u32) -> Option<&Region> {
        self.regions.get(number as usize)
    }

    fn grant(&self, key: &GrantKey) -> Option<IntervalList> {
        self.grants.get(key).copied()
    }

    fn interval(&self, number: u32) -> Option<&PortInterval> {
        self.intervals.get(number as usize)
    }

    fn outcome(&self, number: u32) -> Option<&Outcome> {
        self.outcomes.get(number as usize)
    }

    fn repeat<S: Step>(times: u32, state: &mut S) {
        for _ in 0..times {
            if !state.step() {
                return;
            }
        }
    }
}
