//! Where the peers are that have just been locked or removed: the shield forgets their indexes by that.

use std::collections::HashSet;
use std::net::SocketAddr;

use crate::keys::PublicKey;
use crate::wireguard::{Device, WireGuardError};

/// Peers that were cut off, until the shield asks.
#[derive(Debug)]
pub(crate) struct Cut {
    /// Of removed peers, asked for before they went.
    left: HashSet<SocketAddr>,
    locked: HashSet<PublicKey>,
    with_locked: bool,
}

impl Cut {
    /// Nobody so far; of the locked ones only where `with_locked` says so.
    pub(crate) fn new(with_locked: bool) -> Self {
        Self {
            left: HashSet::new(),
            locked: HashSet::new(),
            with_locked,
        }
    }

    /// Takes everybody, and begins anew.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new(self.with_locked))
    }

    /// A session was ended.
    pub(crate) fn locked(&mut self, key: PublicKey) {
        if self.with_locked {
            self.locked.insert(key);
        }
    }

    /// These are about to be removed: WireGuard forgets where a peer was together with the peer.
    pub(crate) fn left(&mut self, device: &Device, removed: &HashSet<PublicKey>) {
        self.left.extend(endpoints(device, removed));
    }

    /// Where they all were or are. Only those that `is_locked` still holds for count as locked, and only
    /// for them is the device read.
    pub(crate) fn endpoints(
        self,
        is_locked: impl Fn(&PublicKey) -> bool,
        read: impl FnOnce() -> Result<Device, WireGuardError>,
    ) -> HashSet<SocketAddr> {
        let Self {
            mut left, locked, ..
        } = self;
        let locked: HashSet<_> = locked.into_iter().filter(is_locked).collect();
        if !locked.is_empty() {
            match read() {
                Ok(device) => left.extend(endpoints(&device, &locked)),
                Err(error) => tracing::debug!("where locked peers are is not known: {error}"),
            }
        }
        left
    }
}

/// Where these peers are, but not where somebody else is as well.
fn endpoints(device: &Device, cut: &HashSet<PublicKey>) -> HashSet<SocketAddr> {
    let of = |wanted: bool| {
        device
            .peers
            .iter()
            .filter(move |peer| cut.contains(&peer.key) == wanted)
            .filter_map(|peer| peer.status.endpoint)
    };
    let mut endpoints: HashSet<_> = of(true).collect();
    of(false).for_each(|endpoint| {
        endpoints.remove(&endpoint);
    });
    endpoints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wireguard::{DevicePeer, PeerConfig, PeerStatus};

    fn key(n: u8) -> PublicKey {
        PublicKey::try_from([n; 32]).expect("a key")
    }

    fn device(peers: &[(u8, &str)]) -> Device {
        let peers = peers.iter().map(|&(n, endpoint)| DevicePeer {
            key: key(n),
            config: PeerConfig {
                preshared_key: None,
                allowed_ips: Vec::new(),
                persistent_keepalive: 0,
            },
            status: PeerStatus {
                endpoint: endpoint.parse().ok(),
                ..PeerStatus::default()
            },
        });
        Device {
            peers: peers.collect(),
            ..Device::default()
        }
    }

    #[test]
    fn who_was_cut_is_found_and_nobody_who_shares_the_address() {
        let now = device(&[(1, "192.0.2.1:1"), (2, "192.0.2.2:2"), (3, "192.0.2.2:2")]);
        let mut cut = Cut::new(true);
        cut.left(&now, &HashSet::from([key(1)]));
        cut.locked(key(2));
        let found = cut.endpoints(|_| true, || Ok(device(&[(2, "192.0.2.2:2")])));
        let all = ["192.0.2.1:1", "192.0.2.2:2"].map(|at| at.parse().expect("an address"));
        assert_eq!(found, HashSet::from(all));

        let mut shared = Cut::new(true);
        shared.locked(key(2));
        assert_eq!(shared.endpoints(|_| true, || Ok(now)), HashSet::new());
    }

    #[test]
    fn who_has_a_session_again_is_left_alone_and_the_device_unread() {
        let mut cut = Cut::new(true);
        cut.locked(key(2));
        let found = cut.endpoints(|_| false, || panic!("nobody is locked"));
        assert_eq!(found, HashSet::new());
        let mut cut = Cut::new(false);
        cut.locked(key(2));
        let found = cut.endpoints(|_| true, || panic!("locked ones are not asked for"));
        assert_eq!(found, HashSet::new());
    }
}
