//! WireGuard in memory, which remembers what it was told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use portcullis_agent::keys::PublicKey;
use portcullis_agent::wireguard::{
    Device, DevicePeer, DeviceSettings, PeerChange, PeerConfig, PeerStatus, WireGuard,
    WireGuardError,
};

#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    peers: BTreeMap<PublicKey, PeerConfig>,
    changes: usize,
    reads: usize,
    unreadable: bool,
}

impl Memory {
    /// How many peer changes there were.
    pub fn changes(&self) -> usize {
        self.0.lock().expect("lock").changes
    }

    /// How often the whole device was read.
    pub fn reads(&self) -> usize {
        self.0.lock().expect("lock").reads
    }

    /// From here on the device cannot be read, or can again.
    pub fn fail_reads(&self, fail: bool) {
        self.0.lock().expect("lock").unreadable = fail;
    }

    pub fn peers(&self) -> usize {
        self.0.lock().expect("lock").peers.len()
    }

    /// Somebody else changes a peer.
    pub fn remove_behind_the_back(&self, key: u8) {
        let key = PublicKey::try_from([key; 32]).expect("key");
        self.0
            .lock()
            .expect("lock")
            .peers
            .remove(&key)
            .expect("there was one");
    }
}

impl WireGuard for Memory {
    fn read(&self) -> Result<Device, WireGuardError> {
        let mut state = self.0.lock().expect("lock");
        state.reads += 1;
        if state.unreadable {
            return Err(WireGuardError::NoDevice("memory".into()));
        }
        let peers = state.peers.iter().map(|(key, config)| DevicePeer {
            key: *key,
            config: config.clone(),
            status: PeerStatus::default(),
        });
        Ok(Device {
            peers: peers.collect(),
            ..Device::default()
        })
    }

    fn configure(&self, _: &DeviceSettings) -> Result<(), WireGuardError> {
        Ok(())
    }

    fn apply(&self, changes: &[PeerChange]) -> Result<(), WireGuardError> {
        let mut state = self.0.lock().expect("lock");
        state.changes += changes.len();
        for change in changes {
            match change {
                PeerChange::Remove(key) => {
                    state.peers.remove(key);
                }
                PeerChange::Update(update) => {
                    if !update.create && !state.peers.contains_key(&update.key) {
                        continue;
                    }
                    let config = state.peers.entry(update.key).or_insert(PeerConfig {
                        preshared_key: None,
                        allowed_ips: Vec::new(),
                        persistent_keepalive: 0,
                    });
                    if let Some(key) = &update.preshared_key {
                        config.preshared_key.clone_from(key);
                    }
                    if let Some(seconds) = update.persistent_keepalive {
                        config.persistent_keepalive = seconds;
                    }
                    if let Some(allowed_ips) = &update.allowed_ips {
                        config.allowed_ips.clone_from(allowed_ips);
                    }
                }
            }
        }
        Ok(())
    }
}
