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
    /// Index to key, `None` when freed; as long as the highest index ever taken.
    keys: Vec<Option<PublicKey>>,
    free: Vec<u32>,
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
            slots.put(index, key);
        }
        slots.free = (0..)
            .zip(&slots.keys)
            .filter(|(_, key)| key.is_none())
            .map(|(index, _)| index)
            .collect();
        slots
    }

    pub(super) fn reserve(&mut self, more: usize) {
        self.by_key.reserve(more);
        self.keys.reserve(more);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub(super) fn get(&self, key: &PublicKey) -> Option<&Slot> {
        self.by_key.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &PublicKey) -> Option<&mut Slot> {
        self.by_key.get_mut(key)
    }

    pub(super) fn key(&self, index: u32) -> Option<&PublicKey> {
        self.keys.get(index as usize)?.as_ref()
    }

    pub(super) fn by_index_mut(&mut self, index: u32) -> Option<&mut Slot> {
        self.by_key
            .get_mut(self.keys.get(index as usize)?.as_ref()?)
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&PublicKey, &Slot)> {
        self.by_key.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.by_key.values_mut()
    }

    /// The index that the next peer will get; `None` when full.
    pub(super) fn vacant(&self) -> Option<u32> {
        let next = u32::try_from(self.keys.len()).ok()?;
        self.free
            .last()
            .copied()
            .or_else(|| (next < self.most).then_some(next))
    }

    /// Gives the peer the [`Self::vacant`] index.
    pub(super) fn occupy(&mut self, index: u32, key: PublicKey) {
        if self.free.last() == Some(&index) {
            self.free.pop();
        }
        self.put(index, key);
    }

    /// Frees the peer's index.
    pub(super) fn release(&mut self, key: &PublicKey) {
        if let Some(slot) = self.by_key.remove(key) {
            if let Some(held) = self.keys.get_mut(slot.index as usize) {
                *held = None;
            }
            self.free.push(slot.index);
        }
    }

    fn put(&mut self, index: u32, key: PublicKey) {
        let at = index as usize;
        if self.keys.len() <= at {
            self.keys.resize(at + 1, None);
        }
        self.keys[at] = Some(key);
        self.by_key.insert(
            key,
            Slot {
                index,
                addresses: Vec::new(),
            },
        );
    }
}
