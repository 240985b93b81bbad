//! Peers: who they are, which addresses prove them, and what their sessions permit.

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::Ordering::Release,
};

use gateway_common::abi::{Ended, Level, PeerDrops, PeerKey, PeerState, Settings};
use ipnet::IpNet;

use super::{
    Datapath, DatapathError, PeerView, PublicKey, SessionGrant,
    addresses::is_wide,
};

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
            let policy = state.map_or(0, |state| state.policy[parity]);
            peers.push(PeerView { key, addresses, session: state.and_then(session), policy });
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
        if self.key_table.get(&slot.index)?.is_none_or(|held| held.0 != *key) {
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
        let policy = state.map_or(0, |state| state.policy[parity]);
        Ok(Some(PeerView { key: *key, addresses, session: state.as_ref().and_then(session), policy }))
    }

    /// Adds the peer, locked, or makes these its addresses; its session stays. An address that is
    /// another peer's is taken from it, which voids that peer's flows.
    ///
    /// WireGuard must route an address to the peer only after this returns.
    ///
    /// # Errors
    ///
    /// When the key or an address is not valid, the maps are full, or the kernel refuses.
    pub fn upsert_peer(&mut self, key: &PublicKey, addresses: &[IpNet]) -> Result<(), DatapathError> {
        let wanted = valid(key, addresses)?;
        let index = match self.slots.get(key) {
            Some(slot) => slot.index,
            None => self.add(key)?,
        };
        let held: BTreeSet<IpNet> =
            self.slots.get(key).map(|slot| slot.addresses.iter().copied().collect()).unwrap_or_default();

        // Take mappings away: from this peer what it loses, from others what it gains.
        let mut voided = BTreeSet::new();
        for address in held.difference(&wanted) {
            self.addresses.remove(address)?;
            voided.insert(index);
        }
        let gained: Vec<IpNet> = wanted.difference(&held).copied().collect();
        for address in &gained {
            if let Some(other) = self.exact_owner(address)?
                && other != index
            {
                self.addresses.remove(address)?;
                if let Some(slot) = self.slots.by_index_mut(other) {
                    slot.addresses.retain(|held| held != address);
                }
                voided.insert(other);
            }
        }
        self.void_after_grace(&voided);
        if let Some(slot) = self.slots.get_mut(key) {
            slot.addresses = held.intersection(&wanted).copied().collect();
        }

        // Let the addresses prove the peer.
        let mut shadowed = BTreeSet::new();
        for address in &gained {
            shadowed.extend(self.addresses.covering(address)?.filter(|other| *other != index));
            self.addresses.insert(address, index)?;
        }
        if let Some(slot) = self.slots.get_mut(key) {
            slot.addresses = wanted.into_iter().collect();
        }
        self.note_wide()?;
        if !shadowed.is_empty() {
            // A part of another peer's wider prefix is this peer's now.
            super::sys::grace_period();
            for other in shadowed {
                self.states.void_flows(other);
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
        for address in &slot.addresses {
            if self.exact_owner(address)? == Some(slot.index) {
                self.addresses.remove(address)?;
            }
        }
        self.states.void_flows(slot.index);
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
    pub fn set_session(&mut self, key: &PublicKey, session: Option<&SessionGrant>) -> Result<(), DatapathError> {
        let slot = self.slots.get(key).ok_or(DatapathError::UnknownPeer)?;
        self.locked_lately = true;
        match session {
            None => self.states.lock(slot.index, Ended::Revoked),
            Some(session) if session.tag == 0 || session.deadline == 0 => return Err(DatapathError::InvalidSession),
            Some(session) => self.states.grant(slot.index, session),
        }
        Ok(())
    }

    /// Brings the peer's session down to the lesser of what it is and what it will be, as a change of
    /// the policy wants it before. [`Self::set_session`] has to follow.
    ///
    /// # Errors
    ///
    /// When there is no such peer.
    pub fn narrow_session(&mut self, key: &PublicKey, session: &SessionGrant) -> Result<(), DatapathError> {
        let slot = self.slots.get(key).ok_or(DatapathError::UnknownPeer)?;
        self.locked_lately = true;
        self.states.narrow(slot.index, session);
        Ok(())
    }

    /// Adds many peers with their sessions, in a few system calls for all. Peers that are known
    /// already, and addresses that are others', are handled one by one.
    ///
    /// # Errors
    ///
    /// As [`Self::upsert_peer`] and [`Self::set_session`]; peers before the failing one may be there.
    pub fn load_sessions(&mut self, peers: &[PeerView]) -> Result<(), DatapathError> {
        let mut fresh = Vec::with_capacity(peers.len());
        let empty = self.slots.iter().next().is_none();
        let parity = self.settings()?.parity();
        self.slots.reserve(peers.len());
        for peer in peers {
            // With peers in the kernel an address may have to be taken from one of them.
            if empty && self.slots.get(&peer.key).is_none() && !peer.addresses.iter().any(is_wide) {
                let wanted = valid(&peer.key, &peer.addresses)?;
                let index = self.add(&peer.key)?;
                fresh.extend(wanted.iter().map(|address| (*address, index)));
                if let Some(slot) = self.slots.get_mut(&peer.key) {
                    slot.addresses = wanted.into_iter().collect();
                }
            } else {
                self.upsert_peer(&peer.key, &peer.addresses)?;
            }
            if let Some(slot) = self.slots.get(&peer.key)
                && peer.policy != self.states.class(slot.index, parity)
            {
                // Its session, if it has one, is written next.
                self.states.set_class(slot.index, parity, peer.policy);
                self.states.renew(slot.index);
            }
            if peer.session.is_some() {
                self.set_session(&peer.key, peer.session.as_ref())?;
            }
        }
        self.addresses.insert_all(&fresh)
    }

    /// When a packet from the peer passed last, as the kernel has noted it (0: never). Cheap.
    pub fn activity(&self, key: &PublicKey) -> Option<u64> {
        Some(self.states.activity(self.slots.get(key)?.index))
    }

    /// Reads the peers of an earlier run and tidies up what it left half done.
    pub(super) fn adopt_peers(&mut self) -> Result<(), DatapathError> {
        let keys = self.key_table.dump()?;
        let taken = keys.into_iter().filter(|(_, key)| key.0 != FREE).map(|(index, key)| (index, key.0));
        self.slots = super::Slots::from_kernel(self.max_peers, taken);
        for (address, index) in self.addresses.dump()? {
            match self.slots.by_index_mut(index) {
                Some(slot) => slot.addresses.push(address),
                // Of a peer that was being removed.
                None => self.addresses.remove(&address)?,
            }
        }
        let taken: Vec<PublicKey> = self.slots.iter().map(|(key, _)| *key).collect();
        for key in taken {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.addresses.sort_unstable();
            }
        }
        self.note_wide()
    }

    /// Gives the peer a locked slot without addresses.
    fn add(&mut self, key: &PublicKey) -> Result<u32, DatapathError> {
        let index = self.slots.vacant().ok_or(DatapathError::Full(self.max_peers))?;
        self.states.reset(index);
        self.write_key(index, key);
        self.slots.occupy(index, *key);
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

/// The peer's addresses as a set of networks.
fn valid(key: &PublicKey, addresses: &[IpNet]) -> Result<BTreeSet<IpNet>, DatapathError> {
    if *key == FREE {
        return Err(DatapathError::InvalidKey);
    }
    for address in addresses {
        if address.addr() != address.network() {
            return Err(DatapathError::HostBits(*address));
        }
    }
    Ok(addresses.iter().copied().collect())
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
