//! The look-up in compiled rules: the one that the programs, `policy eval` and control all run
//! (invariant 8).
//!
//! Its loops are handed to [`PolicyTables::repeat`], because the kernel's verifier walks through every
//! turn of a plain loop; `bpf_loop` it takes as one. What a turn leaves to the next lies in a [`Climb`], which
//! the programs keep in a map: of a map's values the verifier assumes nothing, whereas it would tell apart each
//! combination of what it knows of the fields on a stack, and, before Linux 6.7, take what the first turn finds
//! there for what every turn finds.

#[cfg(feature = "std")]
mod tables;

#[cfg(feature = "std")]
pub use tables::{Family, PrefixEntry, Tables};

use crate::abi::{
    DEEPEST, EffectivePolicy, GrantKey, IntervalList, NO_REGION, Outcome, PRINCIPALS_PER_POLICY,
    PortInterval, Region, SEARCH_STEPS, principal_bit,
};

/// One turn of a loop.
pub trait Step {
    /// Takes it; returns whether there is another.
    fn step(&mut self) -> bool;
}

/// One set of tables. Absent entries are `None`, and permit nothing.
pub trait PolicyTables: Copy {
    /// The effective policy of this number.
    fn class(&self, number: u32) -> Option<&EffectivePolicy>;

    /// The region of this number.
    fn region(&self, number: u32) -> Option<&Region>;

    /// What a principal has at a region.
    fn grant(&self, key: &GrantKey) -> Option<IntervalList>;

    /// The interval of this number.
    fn interval(&self, number: u32) -> Option<&PortInterval>;

    /// The outcome of this number.
    fn outcome(&self, number: u32) -> Option<&Outcome>;

    /// Takes up to `times` steps.
    fn repeat<S: Step>(times: u32, state: &mut S);
}

/// What the rules of this class say about a [`port_key`](crate::abi::port_key), given the narrowest
/// region that the remote address lies in. An outcome of neither kind where none matches, or where a
/// table lacks what another refers to.
#[cfg(feature = "std")]
pub fn find<T: PolicyTables>(tables: T, class: u32, region: u32, key: u32) -> Outcome {
    let mut climb = Climb {
        tables,
        merged: Outcome::default(),
        mask: 0,
        own: 0,
        class: 0,
        count: 0,
        slot: 0,
        region: 0,
        pending: 0,
        key: 0,
        low: 0,
        high: 0,
    };
    climb.find(tables, class, region, key);
    climb.outcome()
}

/// Each region, its members, and the search in each member's list.
const STEPS: u32 = DEEPEST * (2 + PRINCIPALS_PER_POLICY as u32)
    + PRINCIPALS_PER_POLICY as u32 * (1 + SEARCH_STEPS);

/// From the narrowest region outwards: what each of the members has there.
#[repr(C)]
pub struct Climb<T> {
    tables: T,
    merged: Outcome,
    /// Of the class.
    mask: u64,
    /// Of the region whose members are being looked at.
    own: u64,
    class: u32,
    /// Members of the class.
    count: u32,
    /// The member to look at; 0 is also "a new region".
    slot: u32,
    /// The region to look at.
    region: u32,
    /// A bit for each member that nothing has been found for.
    pending: u32,
    key: u32,
    /// The part of a member's list that is still to be searched: from here …
    low: u32,
    /// … to before here.
    high: u32,
}

impl<T: PolicyTables> Climb<T> {
    /// Finds what [`outcome`](Self::outcome) then returns, whatever was here before.
    #[inline(always)]
    pub fn find(&mut self, tables: T, class: u32, region: u32, key: u32) {
        self.merged.kind = 0;
        let Some(members) = tables.class(class) else {
            return;
        };
        if members.mask == 0 {
            return;
        }
        self.tables = tables;
        self.mask = members.mask;
        self.class = class;
        self.count = members.count;
        self.slot = 0;
        self.region = region;
        self.pending = if members.count < 32 {
            (1 << members.count) - 1
        } else {
            u32::MAX
        };
        self.key = key;
        self.low = 0;
        self.high = 0;
        T::repeat(STEPS, self);
    }

    /// What was found; of neither kind for nothing.
    #[inline(always)]
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.merged
    }

    /// Permits nothing, and ends.
    #[inline(always)]
    fn fail(&mut self) -> bool {
        self.merged.kind = 0;
        false
    }

    /// One step of a binary search.
    #[inline(always)]
    fn search(&mut self) -> bool {
        let middle = self.low + (self.high - self.low) / 2;
        let Some(interval) = self.tables.interval(middle) else {
            return self.fail();
        };
        if self.key < interval.first {
            self.high = middle;
        } else if self.key > interval.last {
            self.low = middle + 1;
        } else {
            let Some(outcome) = self.tables.outcome(interval.outcome) else {
                return self.fail();
            };
            self.merged = if self.merged.kind == 0 {
                *outcome
            } else {
                self.merged.merge(*outcome)
            };
            self.low = self.high;
        }
        true
    }
}

impl<T: PolicyTables> Step for Climb<T> {
    #[inline(always)]
    fn step(&mut self) -> bool {
        if self.low < self.high {
            return self.search();
        }
        if self.pending == 0 {
            return false;
        }
        let tables = self.tables;
        let slot = self.slot;
        if slot == 0 {
            if self.region == NO_REGION {
                return false;
            }
            let Some(node) = tables.region(self.region) else {
                return self.fail();
            };
            if node.covering & self.mask == 0 {
                return false;
            }
            if node.own & self.mask == 0 {
                self.region = node.parent;
                return true;
            }
            self.own = node.own;
        }
        if slot >= self.count {
            let Some(node) = tables.region(self.region) else {
                return self.fail();
            };
            self.region = node.parent;
            self.slot = 0;
            return true;
        }
        let Some(class) = tables.class(self.class) else {
            return self.fail();
        };
        self.slot = slot + 1;
        let Some(&principal) = class.principals.get(slot as usize) else {
            return self.fail();
        };
        // Its narrowest region holds all that it has, the wider ones included.
        if self.pending & (1 << slot) == 0 || self.own & principal_bit(principal) == 0 {
            return true;
        }
        if let Some(list) = tables.grant(&GrantKey {
            region: self.region,
            principal,
        }) {
            self.pending &= !(1 << slot);
            self.low = list.start;
            self.high = list.start.wrapping_add(list.length);
        }
        true
    }
}
