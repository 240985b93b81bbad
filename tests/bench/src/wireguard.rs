//! WireGuard's configuration without WireGuard.

use std::collections::HashMap;
use std::sync::Mutex;

use portcullis_agent::keys::PublicKey;
use portcullis_agent::wireguard::{
    Device, DevicePeer, DeviceSettings, PeerChange, PeerConfig, PeerStatus, WireGuard,
    WireGuardError,
};

/// Holds what it is given, and gives it back.
#[derive(Default)]
pub struct InMemory {
    peers: Mutex<HashMap<PublicKey, PeerConfig>>,
}

impl WireGuard for InMemory {
    fn read(&self) -> Result<Device, WireGuardError> {
        let peers = self
            .peers
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        let peers = peers
            .iter()
            .map(|(key, config)| DevicePeer {
                key: *key,
                config: config.clone(),
                status: PeerStatus::default(),
            })
            .collect();
        Ok(Device {
            peers,
            ..Device::default()
        })
    }

    fn configure(&self, _: &DeviceSettings) -> Result<(), WireGuardError> {
        Ok(())
    }

    fn apply(&self, changes: &[PeerChange]) -> Result<(), WireGuardError> {
        let mut peers = self
            .peers
            .lock()
            .unwrap_or_else(|poison| poison.into_inner());
        for change in changes {
            match change {
                PeerChange::Remove(key) => {
                    peers.remove(key);
                }
                PeerChange::Update(update) => {
                    if !update.create && !peers.contains_key(&update.key) {
                        continue;
                    }
                    let config = peers.entry(update.key).or_insert_with(|| PeerConfig {
                        preshared_key: None,
                        allowed_ips: Vec::new(),
                        persistent_keepalive: 0,
                    });
                    if let Some(key) = &update.preshared_key {
                        config.preshared_key = key.clone();
                    }
                    if let Some(seconds) = update.persistent_keepalive {
                        config.persistent_keepalive = seconds;
                    }
                    if let Some(networks) = &update.allowed_ips {
                        config.allowed_ips = networks.clone();
                        config.allowed_ips.sort_unstable();
                    }
                }
            }
        }
        Ok(())
    }
}
