//! A compiled policy as the kernel's maps will hold it: integers in plain vectors.
//!
//! Rules are not multiplied by users: a prefix holds only those principals that have a rule for
//! that very prefix, and points to the prefix around it for the others.

use std::collections::HashMap;
use std::net::IpAddr;

use gateway_common::abi::Direction;
use ipnet::IpNet;

use super::limits;
use super::outcome::{Outcome, side};

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

/// One entry of a longest-prefix-match map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixEntry {
    /// Bits that count.
    pub length: u32,
    /// Network byte order; an IPv4 address in the first four bytes.
    pub address: [u8; 16],
    /// Index of its [`Region`].
    pub region: u32,
}

/// A prefix of some rule, without the narrower ones within it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Bit `principal % 64` for each principal with a grant at this very region.
    pub own: u64,
    /// The same for this region and all those around it: without a bit in common with the
    /// policy's mask, no rule matches.
    pub covering: u64,
    /// Index of the narrowest region around it, or [`NO_REGION`].
    pub parent: u32,
    /// Zero.
    pub pad: u32,
}

/// Stands for "no region".
pub const NO_REGION: u32 = u32::MAX;

/// Key of the grants.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrantKey {
    /// Index of a [`Region`].
    pub region: u32,
    /// Number of a principal.
    pub principal: u32,
}

/// Where a sorted list of intervals lies.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IntervalList {
    /// Index of the first.
    pub start: u32,
    /// How many; at most [`limits::INTERVALS_PER_LIST`].
    pub length: u32,
}

/// Some ports of some protocols, and what holds for them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortInterval {
    /// First `protocol << 16 | port`.
    pub first: u32,
    /// Last one.
    pub last: u32,
    /// Index of an [`Outcome`].
    pub outcome: u32,
}

/// Whose rules hold for a user. All-zero is nobody's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EffectivePolicy {
    /// Bit `principal % 64` of each.
    pub mask: u64,
    /// How many there are.
    pub count: u32,
    /// Zero.
    pub pad: u32,
    /// Their numbers, ascending; zero behind.
    pub principals: [u32; limits::PRINCIPALS_PER_POLICY],
}

/// Everything the kernel needs to know of a policy.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    pub(super) prefixes: [[Vec<PrefixEntry>; 2]; 2],
    pub(super) regions: Vec<Region>,
    pub(super) grants: HashMap<GrantKey, IntervalList>,
    pub(super) intervals: Vec<PortInterval>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) policies: Vec<EffectivePolicy>,
}

impl Tables {
    /// Prefixes of the rules of one direction, sorted by address, then length.
    pub fn prefixes(&self, direction: Direction, family: Family) -> &[PrefixEntry] {
        &self.prefixes[side(direction)][family as usize]
    }

    /// By the index in [`PrefixEntry::region`].
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// What each principal with rules at a region gets there, rules for wider prefixes included.
    pub fn grants(&self) -> &HashMap<GrantKey, IntervalList> {
        &self.grants
    }

    /// All lists of intervals, one behind the other.
    pub fn intervals(&self) -> &[PortInterval] {
        &self.intervals
    }

    /// By the index in [`PortInterval::outcome`].
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// By policy number; number 0 is nobody's.
    pub fn policies(&self) -> &[EffectivePolicy] {
        &self.policies
    }
}

impl PrefixEntry {
    pub(super) fn new(net: IpNet, region: u32) -> Self {
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

    /// Whether the address, as [`left_aligned`] makes it, lies within.
    pub(super) fn covers(&self, address: &[u8; 16]) -> bool {
        let differing = u128::from_be_bytes(self.address) ^ u128::from_be_bytes(*address);
        differing.leading_zeros() >= self.length
    }
}

/// An address of either family as the bytes of a longest-prefix-match key.
pub(super) fn left_aligned(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The bit that stands for a principal in masks.
pub(super) fn bit(principal: u32) -> u64 {
    1 << (principal % 64)
}

const _: () = {
    assert!(size_of::<PrefixEntry>() == 24);
    assert!(size_of::<Region>() == 24);
    assert!(size_of::<GrantKey>() == 8 && size_of::<IntervalList>() == 8);
    assert!(size_of::<PortInterval>() == 12);
    assert!(size_of::<EffectivePolicy>() == 16 + 4 * limits::PRINCIPALS_PER_POLICY);
};
