//! Which peer has which index, as userspace remembers it. The kernel is the truth: this is read from
//! it at start and changed only together with it.

use std::collections::HashMap;

use ipnet::IpNet;

use super::types::PublicKey;

/// One peer.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) index: u32,
    /// Sorted.
    pub(super) addresses: Vec<IpNet>,
}

/// All peers, and the free indices.
#[derive(Debug, Default)]
pub(super) struct Slots {
    by_key: HashMap<PublicKey, Slot>,
    by_index: HashMap<u32, PublicKey>,
    /// Freed indices below `next`.
    free: Vec<u32>,
    next: u32,
    most: u32,
}

impl Slots {
    /// Rebuilds the list from what the kernel holds.
    pub(super) fn from_kernel(
        most: u32,
        peers: impl IntoIterator<Item = (u32, PublicKey)>,
    ) -> Self {
        let mut slots = Self {
            most,
            ..Self::default()
        };
        for (index, key) in peers {
            slots.by_key.insert(
                key,
                Slot {
                    index,
                    addresses: Vec::new(),
                },
            );
            slots.by_index.insert(index, key);
            slots.next = slots.next.max(index + 1);
        }
        slots.free = (0..slots.next)
            .rev()
            .filter(|index| !slots.by_index.contains_key(index))
            .collect();
        slots
    }

    pub(super) fn reserve(&mut self, more: usize) {
        self.by_key.reserve(more);
        self.by_index.reserve(more);
    }

    pub(super) fn get(&self, key: &PublicKey) -> Option<&Slot> {
        self.by_key.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &PublicKey) -> Option<&mut Slot> {
        self.by_key.get_mut(key)
    }

    pub(super) fn key(&self, index: u32) -> Option<&PublicKey> {
        self.by_index.get(&index)
    }

    pub(super) fn by_index_mut(&mut self, index: u32) -> Option<&mut Slot> {
        self.by_key.get_mut(self.by_index.get(&index)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PublicKey, &Slot)> {
        self.by_key.iter()
    }

    /// The index that the next peer will get; `None` when full.
    pub(super) fn vacant(&self) -> Option<u32> {
        self.free
            .last()
            .copied()
            .or_else(|| (self.next < self.most).then_some(self.next))
    }

    /// Gives the peer the [`Self::vacant`] index.
    pub(super) fn occupy(&mut self, index: u32, key: PublicKey) {
        if self.free.last() == Some(&index) {
            self.free.pop();
        } else {
            self.next = self.next.max(index + 1);
        }
        self.by_key.insert(
            key,
            Slot {
                index,
                addresses: Vec::new(),
            },
        );
        self.by_index.insert(index, key);
    }

    /// Frees the peer's index.
    pub(super) fn release(&mut self, key: &PublicKey) {
        if let Some(slot) = self.by_key.remove(key) {
            self.by_index.remove(&slot.index);
            self.free.push(slot.index);
        }
    }
}
