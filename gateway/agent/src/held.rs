//! What the kernel holds, as last read back from it, and the digest over that.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_proto::digest::{PeerEntry, StateDigest};

use crate::datapath::{PeerView, SessionGrant};
use crate::keys::PublicKey;
use crate::wireguard::PeerConfig;

/// A peer as the datapath's maps hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatapathPeer {
    /// Sorted.
    pub addresses: Vec<IpNet>,
    /// `None` where the peer is locked.
    pub session: Option<SessionGrant>,
    /// Number of its effective policy.
    pub policy: u32,
}

impl From<PeerView> for DatapathPeer {
    fn from(view: PeerView) -> Self {
        Self {
            addresses: view.addresses,
            session: view.session,
            policy: view.policy,
        }
    }
}

/// A peer as the kernel's two halves hold it. Where they disagree, it is not as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// As WireGuard is configured with it.
    pub wireguard: Option<PeerConfig>,
    /// As the maps have it.
    pub datapath: Option<DatapathPeer>,
}

impl Held {
    /// The session, even where its deadline has passed since.
    pub fn session(&self) -> Option<&SessionGrant> {
        self.datapath.as_ref()?.session.as_ref()
    }

    /// Number of the effective policy; 0, nobody's, where the datapath does not know the peer.
    pub fn policy(&self) -> u32 {
        self.datapath.as_ref().map_or(0, |half| half.policy)
    }

    fn is_empty(&self) -> bool {
        self.wireguard.is_none() && self.datapath.is_none()
    }
}

/// Every peer in the kernel, and a digest that follows each change.
#[derive(Debug, Default)]
pub struct KernelView {
    peers: HashMap<PublicKey, Held>,
    digest: StateDigest,
    policy: u64,
}

impl KernelView {
    /// A peer, if either half of the kernel has it.
    pub fn get(&self, key: &PublicKey) -> Option<&Held> {
        self.peers.get(key)
    }

    /// Every peer that either half of the kernel has.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.peers.keys()
    }

    /// Over all peers, for control to compare with its own.
    pub fn digest(&self) -> [u8; 32] {
        self.digest.to_bytes()
    }

    /// Forgets everything, before it is all read again.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Replaces what is known of which policy holds; 0 for none.
    pub fn set_policy(&mut self, id: u64) {
        self.digest.subtract_policy(self.policy);
        self.digest.add_policy(id);
        self.policy = id;
    }

    /// Id of the policy that holds; 0 for none.
    pub fn policy(&self) -> u64 {
        self.policy
    }

    /// The kernel has noted a packet from the peer since. Takes no part in the digest.
    pub fn saw_activity(&mut self, key: &PublicKey, activity: u64) {
        let session = self
            .peers
            .get_mut(key)
            .and_then(|held| held.datapath.as_mut())
            .and_then(|half| half.session.as_mut());
        if let Some(session) = session {
            session.last_activity = session.last_activity.max(activity);
        }
    }

    /// Replaces what is known of WireGuard's half of a peer.
    pub fn set_wireguard(&mut self, key: PublicKey, config: Option<PeerConfig>) {
        self.change(key, |held| held.wireguard = config);
    }

    /// Replaces what is known of the datapath's half of a peer.
    pub fn set_datapath(&mut self, key: PublicKey, peer: Option<DatapathPeer>) {
        self.change(key, |held| held.datapath = peer);
    }

    fn change(&mut self, key: PublicKey, change: impl FnOnce(&mut Held)) {
        let mut held = self.peers.remove(&key).unwrap_or_default();
        if !held.is_empty() {
            with_entry(&key, &held, |entry| self.digest.subtract(entry));
        }
        change(&mut held);
        if !held.is_empty() {
            with_entry(&key, &held, |entry| self.digest.add(entry));
            self.peers.insert(key, held);
        }
    }
}

/// A peer counts as control describes it only where both halves agree on its addresses. Otherwise
/// its entry has none, which no peer of control's has, so that control sees the difference.
fn with_entry(key: &PublicKey, held: &Held, with: impl FnOnce(&PeerEntry<'_>)) {
    let agreed: Vec<(IpAddr, u8)> = match (&held.wireguard, &held.datapath) {
        (Some(wireguard), Some(datapath)) if wireguard.allowed_ips == datapath.addresses => {
            wireguard
                .allowed_ips
                .iter()
                .map(|net| (net.addr(), net.prefix_len()))
                .collect()
        }
        _ => Vec::new(),
    };
    let config = held.wireguard.as_ref();
    with(&PeerEntry {
        public_key: key.as_bytes(),
        preshared_key: config
            .and_then(|config| config.preshared_key.as_ref())
            .map(|key| key.as_bytes()),
        allowed_ips: &agreed,
        persistent_keepalive_s: config.map_or(0, |config| config.persistent_keepalive),
        session: held.session().map(|session| session.tag),
        policy: held.policy(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> PublicKey {
        PublicKey::try_from([1; 32]).expect("key")
    }

    fn config(allowed_ips: &[&str]) -> PeerConfig {
        PeerConfig {
            preshared_key: None,
            allowed_ips: allowed_ips
                .iter()
                .map(|net| net.parse().expect("network"))
                .collect(),
            persistent_keepalive: 25,
        }
    }

    fn datapath(addresses: &[&str]) -> DatapathPeer {
        DatapathPeer {
            addresses: config(addresses).allowed_ips,
            session: None,
            policy: 0,
        }
    }

    /// As control computes it.
    fn expected() -> [u8; 32] {
        let mut digest = StateDigest::default();
        digest.add(&PeerEntry {
            public_key: &[1; 32],
            preshared_key: None,
            allowed_ips: &[("10.77.0.2".parse().expect("address"), 32)],
            persistent_keepalive_s: 25,
            session: None,
            policy: 0,
        });
        digest.to_bytes()
    }

    #[test]
    fn inv4_the_digest_is_controls_only_where_both_halves_agree() {
        let mut view = KernelView::default();
        view.set_wireguard(key(), Some(config(&["10.77.0.2/32"])));
        assert_ne!(view.digest(), expected(), "the datapath does not know it");
        view.set_datapath(key(), Some(datapath(&["10.77.0.3/32"])));
        assert_ne!(view.digest(), expected(), "another address");
        view.set_datapath(key(), Some(datapath(&["10.77.0.2/32"])));
        assert_eq!(view.digest(), expected());
        view.set_wireguard(key(), None);
        assert_ne!(view.digest(), expected(), "WireGuard does not know it");
        view.set_datapath(key(), None);
        assert_eq!(view.digest(), KernelView::default().digest());
    }
}
