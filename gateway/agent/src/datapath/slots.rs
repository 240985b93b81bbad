//! Which peer has which index, as userspace remembers it. The kernel is the truth: this is read from
//! it at start and changed only together with it.

use std::collections::HashMap;

use ipnet::IpNet;

use super::types::PublicKey;

/// One peer.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) index: u32,
    /// On the maps' clock: what the programs say of the index is about this peer if it is of a later
    /// time, and may otherwise be about another.
    since: u64,
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
    /// Rebuilds the list from what the kernel holds `now`. Since when is not known.
    pub(super) fn from_kernel(
        most: u32,
        peers: impl IntoIterator<Item = (u32, PublicKey)>,
        now: u64,
    ) -> Self {
        let mut slots = Self {
            most,
            ..Self::default()
        };
        for (index, key) in peers {
            slots.put(index, key, now);
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

    /// Whose index this was at that time; `None` where that is not certain.
    pub(super) fn key_at(&self, index: u32, time: u64) -> Option<&PublicKey> {
        let key = self.key(index)?;
        (self.get(key)?.since < time).then_some(key)
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
    pub(super) fn occupy(&mut self, index: u32, key: PublicKey, now: u64) {
        if self.free.last() == Some(&index) {
            self.free.pop();
        }
        self.put(index, key, now);
    }

    /// Nothing that the programs say of the peer's index after `now` is about whoever had it before.
    pub(super) fn settled(&mut self, key: &PublicKey, now: u64) {
        if let Some(slot) = self.by_key.get_mut(key) {
            slot.since = now;
        }
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

    fn put(&mut self, index: u32, key: PublicKey, since: u64) {
        let at = index as usize;
        if self.keys.len() <= at {
            self.keys.resize(at + 1, None);
        }
        self.keys[at] = Some(key);
        self.by_key.insert(
            key,
            Slot {
                index,
                since,
                addresses: Vec::new(),
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_of_an_index_before_it_was_the_peers_is_not_the_peers() {
        let (first, second) = ([1; 32], [2; 32]);
        let mut slots = Slots::from_kernel(4, [(0, first)], 10);
        assert_eq!(slots.key_at(0, 11), Some(&first));
        assert_eq!(slots.key_at(0, 10), None, "an earlier run's");
        slots.release(&first);
        assert_eq!(slots.key_at(0, 12), None, "nobody's");
        assert_eq!(slots.vacant(), Some(0));
        slots.occupy(0, second, 20);
        assert_eq!(slots.key_at(0, 12), None, "the first one's, and not told");
        assert_eq!(slots.key_at(0, 21), Some(&second));
        slots.settled(&second, 30);
        assert_eq!(slots.key_at(0, 30), None, "programs were still running");
        assert_eq!(slots.key_at(0, 31), Some(&second));
    }
}
