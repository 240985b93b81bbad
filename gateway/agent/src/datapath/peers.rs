//! Peers: who they are, which addresses prove them, and what their sessions permit.

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::Ordering::Release,
};

use gateway_common::abi::{Ended, Level, PeerDrops, PeerKey, PeerState, Settings};
use ipnet::IpNet;

use super::{Datapath, DatapathError, PeerView, PublicKey, SessionGrant, addresses::is_wide};

const FREE: PublicKey = [0; 32];

impl Datapath {
    /// Every peer, read from the kernel.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn peers(&self) -> Result<Vec<PeerView>, DatapathError> {
        let mut addresses: HashMap<u32, Vec<IpNet>> = HashMap::new();
        for (address, index) in self.addresses.dump()? {
            addresses.entry(index).or_default().push(address);
        }
        let keys = self.key_table.dump()?;
        let parity = self.settings()?.parity() as usize;
        let states: HashMap<u32, PeerState> = self.state_table.dump()?.into_iter().collect();
        let mut peers = Vec::new();
        for (index, PeerKey(key)) in keys {
            if key == FREE {
                continue;
            }
            let mut addresses = addresses.remove(&index).unwrap_or_default();
            addresses.sort_unstable();
            let state = states.get(&index);
            peers.push(PeerView {
                key,
                addresses,
                session: state.and_then(session),
                policy: state.map_or(0, |state| state.policy[parity]),
            });
        }
        Ok(peers)
    }

    /// One peer, read back from the kernel with bpf(2), not from memory shared with it.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn read_peer(&self, key: &PublicKey) -> Result<Option<PeerView>, DatapathError> {
        let Some(slot) = self.slots.get(key) else {
            return Ok(None);
        };
        if self
            .key_table
            .get(&slot.index)?
            .is_none_or(|held| held.0 != *key)
        {
            return Ok(None);
        }
        let parity = self.settings()?.parity() as usize;
        let mut addresses = Vec::with_capacity(slot.addresses.len());
        for address in &slot.addresses {
            if self.addresses.owner(address)? == Some(slot.index) {
                addresses.push(*address);
            }
        }
        let state = self.state_table.get(&slot.index)?;
        Ok(Some(PeerView {
            key: *key,
            addresses,
            session: state.as_ref().and_then(session),
            policy: state.map_or(0, |state| state.policy[parity]),
        }))
    }

    /// Adds the peer, locked, or makes these its addresses; its session stays. An address that is
    /// another peer's is taken from it, which voids that peer's flows.
    ///
    /// WireGuard must route an address to the peer only after this returns.
    ///
    /// # Errors
    ///
    /// When the key or an address is not valid, the maps are full, or the kernel refuses.
    pub fn upsert_peer(
        &mut self,
        key: &PublicKey,
        addresses: &[IpNet],
    ) -> Result<(), DatapathError> {
        valid(key, addresses)?;
        let wanted: BTreeSet<IpNet> = addresses.iter().copied().collect();
        let (index, added) = match self.slots.get(key) {
            Some(slot) => (slot.index, false),
            None => (self.add(key)?, true),
        };
        // This peer's too, where it is new: what ran under the slot's last owner may have ended since.
        let mut voided: BTreeSet<u32> = added.then_some(index).into_iter().collect();
        let result = self.take_mappings(index, key, &wanted, &mut voided);
        self.void_after_grace(&voided);
        if added {
            self.slots.settled(key, super::now());
        }
        // Whatever failed, the addresses that the slot lists are the ones that prove the peer.
        let mut shadowed = BTreeSet::new();
        let result = result
            .and_then(|gained| self.give_mappings(index, key, &gained, &mut shadowed))
            .and(self.note_wide());
        if !shadowed.is_empty() {
            // A part of another peer's wider prefix is this peer's now.
            super::sys::grace_period();
            for other in shadowed {
                self.states.void_flows(other);
            }
        }
        result
    }

    /// Takes mappings away: from this peer what it loses, from others what it gains. Answers with
    /// the latter; `voided` are the slots that lost something, also on failure.
    fn take_mappings(
        &mut self,
        index: u32,
        key: &PublicKey,
        wanted: &BTreeSet<IpNet>,
        voided: &mut BTreeSet<u32>,
    ) -> Result<Vec<IpNet>, DatapathError> {
        let held: BTreeSet<IpNet> = self
            .slots
            .get(key)
            .map(|slot| slot.addresses.iter().copied().collect())
            .unwrap_or_default();

        for address in held.difference(wanted) {
            self.take_mapping(index, address, voided)?;
        }
        let gained: Vec<IpNet> = wanted.difference(&held).copied().collect();
        for address in &gained {
            if let Some(other) = self.exact_owner(address)?
                && other != index
            {
                self.take_mapping(other, address, voided)?;
            }
        }
        Ok(gained)
    }

    /// Takes one mapping from the slot, whose flows are void from then on.
    fn take_mapping(
        &mut self,
        index: u32,
        address: &IpNet,
        voided: &mut BTreeSet<u32>,
    ) -> Result<(), DatapathError> {
        self.states.mark_void(index);
        voided.insert(index);
        self.addresses.remove(address)?;
        if let Some(slot) = self.slots.by_index_mut(index) {
            slot.addresses.retain(|held| held != address);
        }
        Ok(())
    }

    /// Lets the addresses, which are nobody's, prove the peer. `shadowed` are the slots of others
    /// with a wider prefix around one of them, also on failure.
    fn give_mappings(
        &mut self,
        index: u32,
        key: &PublicKey,
        gained: &[IpNet],
        shadowed: &mut BTreeSet<u32>,
    ) -> Result<(), DatapathError> {
        for address in gained {
            if let Some(other) = self.addresses.covering(address)?
                && other != index
            {
                self.states.mark_void(other);
                shadowed.insert(other);
            }
            self.addresses.insert(address, index)?;
            if let Some(slot) = self.slots.get_mut(key)
                && let Err(at) = slot.addresses.binary_search(address)
            {
                slot.addresses.insert(at, *address);
            }
        }
        Ok(())
    }

    /// Locks and forgets the peer; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; the peer is locked all the same.
    pub fn remove_peer(&mut self, key: &PublicKey) -> Result<(), DatapathError> {
        let Some(slot) = self.slots.get(key).cloned() else {
            return Ok(());
        };
        self.states.lock(slot.index, Ended::Revoked);
        self.states.mark_void(slot.index);
        let result =
            slot.addresses
                .iter()
                .try_for_each(|address| match self.exact_owner(address)? {
                    Some(owner) if owner == slot.index => {
                        self.take_mapping(owner, address, &mut BTreeSet::new())
                    }
                    _ => Ok(()),
                });
        self.states.void_flows(slot.index);
        result?;
        self.write_key(slot.index, &FREE);
        self.slots.release(key);
        self.drops.insert(&slot.index, &PeerDrops::default())?;
        self.note_wide()
    }

    /// Writes the peer's session; `None` locks it at once.
    ///
    /// # Errors
    ///
    /// When there is no such peer, or the session is none.
    pub fn set_session(
        &mut self,
        key: &PublicKey,
        session: Option<&SessionGrant>,
    ) -> Result<(), DatapathError> {
        let slot = self.slots.get(key).ok_or(DatapathError::UnknownPeer)?;
        match session {
            None => self.states.lock(slot.index, Ended::Revoked),
            Some(session) => {
                check(session)?;
                self.order.before_grant();
                self.states.grant(slot.index, session);
            }
        }
        self.order.session_written();
        Ok(())
    }

    /// Brings the peer's session down to the lesser of what it is and what it will be, as a change of
    /// the policy wants it before. [`Self::set_session`] has to follow.
    ///
    /// # Errors
    ///
    /// When there is no such peer.
    pub fn narrow_session(
        &mut self,
        key: &PublicKey,
        session: &SessionGrant,
    ) -> Result<(), DatapathError> {
        let slot = self.slots.get(key).ok_or(DatapathError::UnknownPeer)?;
        self.states.narrow(slot.index, session);
        self.order.session_written();
        Ok(())
    }

    /// Adds many peers with their sessions, in a few system calls for all. Peers that are known
    /// already, and addresses that are others', are handled one by one.
    ///
    /// # Errors
    ///
    /// As [`Self::upsert_peer`] and [`Self::set_session`]; peers before the failing one may be there.
    pub fn load_sessions(&mut self, peers: &[PeerView]) -> Result<(), DatapathError> {
        let (mut fresh, mut one_by_one) = (Vec::with_capacity(peers.len()), Vec::new());
        let empty = self.slots.is_empty();
        let parity = self.settings()?.parity();
        self.slots.reserve(peers.len());
        // Programs that met a peer whose slot is used again must not take the new one's session for its.
        self.addresses.settle();
        for peer in peers {
            // With peers in the kernel an address may have to be taken from one of them.
            if !empty || self.slots.get(&peer.key).is_some() || peer.addresses.iter().any(is_wide) {
                one_by_one.push(peer);
                continue;
            }
            let mut addresses = peer.addresses.clone();
            valid(&peer.key, &addresses)?;
            peer.session.as_ref().map_or(Ok(()), check)?;
            addresses.sort_unstable();
            addresses.dedup();
            let index = self.add(&peer.key)?;
            fresh.extend(addresses.iter().map(|address| (*address, index)));
            self.states.set_class(index, parity, peer.policy);
            if let Some(session) = &peer.session {
                self.states.grant(index, session);
            }
            if let Some(slot) = self.slots.get_mut(&peer.key) {
                slot.addresses = addresses;
            }
        }
        let result = self.addresses.insert_all(&fresh);
        if result.is_err() {
            // How far it came only the kernel knows.
            self.read_slots()?;
        }
        result?;
        self.load_one_by_one(&one_by_one)
    }

    /// As [`Self::load_sessions`], for peers that are known or whose addresses may be others'. What is
    /// taken from them comes first and what they are given last, so that they wait together.
    fn load_one_by_one(&mut self, peers: &[&PeerView]) -> Result<(), DatapathError> {
        for peer in peers {
            peer.session.as_ref().map_or(Ok(()), check)?;
            self.upsert_peer(&peer.key, &peer.addresses)?;
            let slot = self.slots.get(&peer.key);
            let index = slot.ok_or(DatapathError::UnknownPeer)?.index;
            let parity = self.settings()?.parity();
            if peer.session.is_some() && self.states.class(index, parity) != peer.policy {
                // The new session must not be seen with the old class.
                self.set_session(&peer.key, None)?;
            }
        }
        for peer in peers {
            self.set_class(&peer.key, peer.policy)?;
        }
        for peer in peers {
            if peer.session.is_some() {
                self.set_session(&peer.key, peer.session.as_ref())?;
            }
        }
        Ok(())
    }

    /// Who had this index at that time, and the state that the programs judge it by now: explains
    /// events. `None` where it is not certain who had it.
    pub fn peer_at(&self, index: u32, time: u64) -> Option<(PublicKey, PeerState)> {
        let key = *self.slots.key_at(index, time)?;
        let state = self.state_table.get(&index).ok()??;
        Some((key, state))
    }

    /// When a packet from the peer passed last, as the kernel has noted it (0: never). Cheap.
    pub fn activity(&self, key: &PublicKey) -> Option<u64> {
        Some(self.states.activity(self.slots.get(key)?.index))
    }

    /// Reads the peers of an earlier run and tidies up what it left half done.
    pub(super) fn adopt_peers(&mut self) -> Result<(), DatapathError> {
        self.read_slots()?;
        // An address was being taken from it.
        let marked: BTreeSet<u32> = self
            .slots
            .iter_mut()
            .map(|slot| slot.index)
            .filter(|index| self.states.is_marked_void(*index))
            .collect();
        self.void_after_grace(&marked);
        // A service or rule may have been taken away without flows having been told.
        // The parity is the policy's.
        self.change_settings(|settings| settings.epoch = settings.epoch.wrapping_add(2))
    }

    /// Makes the list of slots what the kernel holds.
    fn read_slots(&mut self) -> Result<(), DatapathError> {
        let keys = self.key_table.dump()?;
        let taken = keys
            .into_iter()
            .filter(|(_, key)| key.0 != FREE)
            .map(|(index, key)| (index, key.0));
        self.slots = super::Slots::from_kernel(self.max_peers, taken, super::now());
        for (address, index) in self.addresses.dump()? {
            match self.slots.by_index_mut(index) {
                Some(slot) => slot.addresses.push(address),
                // Of a peer that was being removed.
                None => self.addresses.remove(&address)?,
            }
        }
        for slot in self.slots.iter_mut() {
            slot.addresses.sort_unstable();
        }
        self.note_wide()
    }

    /// Gives the peer a locked slot without addresses.
    fn add(&mut self, key: &PublicKey) -> Result<u32, DatapathError> {
        let index = self
            .slots
            .vacant()
            .ok_or(DatapathError::Full(self.max_peers))?;
        self.states.reset(index);
        self.write_key(index, key);
        self.slots.occupy(index, *key, super::now());
        Ok(index)
    }

    fn write_key(&self, index: u32, key: &PublicKey) {
        for (i, chunk) in key.chunks_exact(8).enumerate() {
            let word = chunk.try_into().map_or(0, u64::from_ne_bytes);
            self.keys.word(index, i * 8).store(word, Release);
        }
    }

    /// Index of the peer that has exactly this prefix. A trie answers with the longest match, so
    /// userspace's list decides there.
    fn exact_owner(&self, address: &IpNet) -> Result<Option<u32>, DatapathError> {
        let owner = self.addresses.owner(address)?;
        if !is_wide(address) {
            return Ok(owner);
        }
        Ok(owner.filter(|index| {
            let slot = self.slots.key(*index).and_then(|key| self.slots.get(key));
            slot.is_some_and(|slot| slot.addresses.contains(address))
        }))
    }

    /// Voids flows once no program can still open one under the mappings taken away.
    fn void_after_grace(&self, peers: &BTreeSet<u32>) {
        if peers.is_empty() {
            return;
        }
        self.addresses.settle();
        for index in peers {
            self.states.void_flows(*index);
        }
    }

    /// Tells the programs whether to look for wider prefixes.
    fn note_wide(&self) -> Result<(), DatapathError> {
        let mut flags = 0;
        if self.addresses.wide_v4.any()? {
            flags |= Settings::WIDE_V4;
        }
        if self.addresses.wide_v6.any()? {
            flags |= Settings::WIDE_V6;
        }
        const WIDE: u32 = Settings::WIDE_V4 | Settings::WIDE_V6;
        self.change_settings(|settings| settings.flags = settings.flags & !WIDE | flags)
    }
}

/// Whether these can be a peer.
fn valid(key: &PublicKey, addresses: &[IpNet]) -> Result<(), DatapathError> {
    if *key == FREE {
        return Err(DatapathError::InvalidKey);
    }
    match addresses
        .iter()
        .find(|address| address.addr() != address.network())
    {
        Some(address) => Err(DatapathError::HostBits(*address)),
        None => Ok(()),
    }
}

/// Whether this can be a session.
fn check(session: &SessionGrant) -> Result<(), DatapathError> {
    if session.tag == 0 || session.deadline == 0 {
        Err(DatapathError::InvalidSession)
    } else {
        Ok(())
    }
}

fn session(state: &PeerState) -> Option<SessionGrant> {
    if state.deadline == 0 {
        return None;
    }
    Some(SessionGrant {
        tag: state.tag,
        // A level that this version does not know permits nothing here.
        level: Level::from_number(state.level).unwrap_or(Level::None),
        authenticated_at: state.authenticated_at,
        deadline: state.deadline,
        idle_timeout: state.idle_timeout,
        last_activity: state.last_activity,
    })
}
