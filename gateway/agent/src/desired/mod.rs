//! What control wants the kernel to hold: wire messages, parsed once, kept as domain types.

mod location;
mod moment;
mod peer;
mod policy;
mod session;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;
use portcullis_proto::v1;

pub use location::Location;
pub use moment::Moment;
pub use peer::Peer;
pub use policy::{Policy, PolicyError};
pub use session::{Session, SessionId};

use crate::keys::{KeyError, PublicKey};

/// The whole desired state of this gateway at one revision.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Control's number for this state.
    pub revision: u64,
    /// Of the store that the revision belongs to.
    pub store_id: String,
    /// What the interface is configured with; `None` as long as there was none that could be.
    pub location: Option<Location>,
    /// The rules, `None` for none; or why those that control has sent cannot be used.
    pub policy: Result<Option<Arc<Policy>>, PolicyError>,
    peers: HashMap<PublicKey, Peer>,
    /// Which peer an allowed IP belongs to: never two.
    owners: HashMap<IpNet, PublicKey>,
}

/// A message that cannot be used as a whole.
#[derive(Debug, thiserror::Error)]
pub enum DesiredError {
    #[error("a delta on top of revision {from} came while {have} is what was applied")]
    Gap { have: u64, from: u64 },
}

/// A part of a message that cannot be used. The peer it is about is treated as absent, which
/// shuts it out; all others are served. A location is ignored: whatever is wrong with it must not
/// keep a revocation from being applied.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    #[error("the location cannot be configured and stays as it was: {0}")]
    Location(#[from] location::LocationError),
    #[error("a peer without a valid key is ignored: {0}")]
    Key(#[from] KeyError),
    #[error("peer {key} is shut out: {reason}")]
    Peer {
        key: PublicKey,
        reason: peer::PeerError,
    },
    #[error("peer {key} is shut out: {network} belongs to peer {owner}")]
    Conflict {
        key: PublicKey,
        network: IpNet,
        owner: PublicKey,
    },
}

/// What a message changed.
#[derive(Debug, Default)]
pub struct Change {
    /// Peers that were added, changed or removed; none twice.
    pub touched: Vec<PublicKey>,
    /// Whether the interface itself must be configured anew.
    pub location: bool,
    /// What of the message could not be used.
    pub rejected: Vec<Rejection>,
}

impl Desired {
    /// The state that a snapshot describes. `received_at` is on the clock of the maps.
    pub fn from_snapshot(snapshot: v1::Snapshot, received_at: u64) -> (Self, Vec<Rejection>) {
        let mut change = Change::default();
        let location = snapshot
            .location
            .ok_or(location::LocationError::Missing)
            .and_then(Location::try_from)
            .map_err(|error| change.rejected.push(error.into()))
            .ok();
        let mut desired = Self {
            revision: snapshot.revision,
            store_id: snapshot.store_id,
            location,
            policy: snapshot
                .policy
                .map(Policy::try_from)
                .transpose()
                .map(|policy| policy.map(Arc::new)),
            peers: HashMap::with_capacity(snapshot.peers.len()),
            owners: HashMap::with_capacity(snapshot.peers.len()),
        };
        let moment = Moment {
            control_ms: snapshot.control_now_ms,
            map: received_at,
        };
        desired.add(snapshot.peers, moment, &mut change);
        (desired, change.rejected)
    }

    /// Goes on to the delta's revision, or changes nothing.
    pub fn apply(&mut self, delta: v1::Delta, received_at: u64) -> Result<Change, DesiredError> {
        if delta.from_revision != self.revision {
            return Err(DesiredError::Gap {
                have: self.revision,
                from: delta.from_revision,
            });
        }
        let mut change = Change::default();
        match delta.location.map(Location::try_from) {
            Some(Ok(location)) if self.location.as_ref() != Some(&location) => {
                self.location = Some(location);
                change.location = true;
            }
            Some(Err(error)) => change.rejected.push(error.into()),
            _ => {}
        }
        for key in delta.removed {
            match PublicKey::try_from(key.as_slice()) {
                Ok(key) => {
                    self.release(&key);
                    change.touched.push(key);
                }
                Err(error) => change.rejected.push(error.into()),
            }
        }
        let moment = Moment {
            control_ms: delta.control_now_ms,
            map: received_at,
        };
        self.add(delta.peers, moment, &mut change);
        let mut seen = HashSet::with_capacity(change.touched.len());
        change.touched.retain(|key| seen.insert(*key));
        self.revision = delta.revision;
        Ok(change)
    }

    /// What is wanted of this peer; `None` where it is to be gone.
    pub fn peer(&self, key: &PublicKey) -> Option<&Peer> {
        self.peers.get(key)
    }

    /// Every wanted peer.
    pub fn peers(&self) -> impl Iterator<Item = (&PublicKey, &Peer)> {
        self.peers.iter()
    }

    fn add(&mut self, peers: Vec<v1::Peer>, moment: Moment, change: &mut Change) {
        // Every changed peer lets go of its addresses before any takes one, so that an address
        // can move between two peers of one message in either order.
        let mut parsed = Vec::with_capacity(peers.len());
        for wire in peers {
            let key = match PublicKey::try_from(wire.public_key.as_slice()) {
                Ok(key) => key,
                Err(error) => {
                    change.rejected.push(error.into());
                    continue;
                }
            };
            self.release(&key);
            change.touched.push(key);
            match Peer::parse(wire, moment).and_then(|peer| self.classified(peer)) {
                Ok(peer) => parsed.push((key, peer)),
                Err(reason) => change.rejected.push(Rejection::Peer { key, reason }),
            }
        }
        for (key, peer) in parsed {
            let taken = peer.allowed_ips.iter().find_map(|network| {
                let owner = self.owners.get(network).filter(|owner| **owner != key)?;
                Some((*network, *owner))
            });
            if let Some((network, owner)) = taken {
                change.rejected.push(Rejection::Conflict {
                    key,
                    network,
                    owner,
                });
                continue;
            }
            // A peer named twice in one message: the later one counts.
            self.release(&key);
            self.owners
                .extend(peer.allowed_ips.iter().map(|network| (*network, key)));
            self.peers.insert(key, peer);
        }
    }

    /// The peer, whose effective policy must be one of the policy's.
    fn classified(&self, peer: Peer) -> Result<Peer, peer::PeerError> {
        match &self.policy {
            Ok(Some(policy)) if peer.policy as usize >= policy.tables.policies.len() => {
                Err(peer::PeerError::Policy(peer.policy))
            }
            _ => Ok(peer),
        }
    }

    fn release(&mut self, key: &PublicKey) {
        for network in self
            .peers
            .remove(key)
            .into_iter()
            .flat_map(|peer| peer.allowed_ips)
        {
            self.owners.remove(&network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location() -> v1::LocationConfig {
        v1::LocationConfig {
            name: "office".into(),
            addresses: vec!["10.77.0.1/24".into()],
            listen_port: 51820,
            mtu: 1420,
            open_services: Vec::new(),
            answer_drops: false,
            captive_portals: Vec::new(),
        }
    }

    fn peer(key: u8, allowed_ip: &str) -> v1::Peer {
        v1::Peer {
            public_key: vec![key; 32],
            allowed_ips: vec![allowed_ip.into()],
            ..v1::Peer::default()
        }
    }

    fn key(byte: u8) -> PublicKey {
        PublicKey::try_from([byte; 32]).expect("key")
    }

    fn desired(peers: Vec<v1::Peer>) -> (Desired, Vec<Rejection>) {
        let snapshot = v1::Snapshot {
            revision: 5,
            location: Some(location()),
            peers,
            ..v1::Snapshot::default()
        };
        Desired::from_snapshot(snapshot, 0)
    }

    #[test]
    fn inv5_a_delta_applies_only_on_top_of_its_revision() {
        let (mut desired, _) = desired(vec![peer(1, "10.77.0.2/32")]);
        for from_revision in [4, 6] {
            let delta = v1::Delta {
                from_revision,
                revision: 7,
                removed: vec![vec![1; 32]],
                ..v1::Delta::default()
            };
            assert!(matches!(
                desired.apply(delta, 0),
                Err(DesiredError::Gap { .. })
            ));
            assert!(desired.peer(&key(1)).is_some(), "nothing has changed");
        }
        let delta = v1::Delta {
            from_revision: 5,
            revision: 7,
            removed: vec![vec![1; 32]],
            ..v1::Delta::default()
        };
        assert_eq!(desired.apply(delta, 0).expect("applies").touched, [key(1)]);
        assert_eq!(desired.revision, 7);
        assert!(desired.peer(&key(1)).is_none());
    }

    #[test]
    fn inv4_an_unusable_location_keeps_no_peer_from_changing() {
        let unusable = v1::LocationConfig {
            mtu: 576,
            ..location()
        };
        let (mut desired, _) = desired(vec![peer(1, "10.77.0.2/32")]);
        let delta = v1::Delta {
            from_revision: 5,
            revision: 6,
            location: Some(unusable.clone()),
            removed: vec![vec![1; 32]],
            ..v1::Delta::default()
        };
        let change = desired.apply(delta, 0).expect("applies");
        assert!(
            matches!(change.rejected[..], [Rejection::Location(_)]),
            "{:?}",
            change.rejected
        );
        assert!(!change.location && desired.peer(&key(1)).is_none());
        assert_eq!(desired.location.map(|location| location.mtu), Some(1420));
        let snapshot = v1::Snapshot {
            location: Some(unusable),
            peers: vec![peer(2, "10.77.0.3/32")],
            ..v1::Snapshot::default()
        };
        let (desired, rejected) = Desired::from_snapshot(snapshot, 0);
        assert!(desired.location.is_none() && desired.peer(&key(2)).is_some());
        assert_eq!(rejected.len(), 1, "{rejected:?}");
    }

    #[test]
    fn inv4_an_unusable_policy_keeps_no_peer_from_changing() {
        let snapshot = v1::Snapshot {
            location: Some(location()),
            // Without an id.
            policy: Some(v1::Policy::default()),
            peers: vec![v1::Peer {
                policy: 3,
                ..peer(2, "10.77.0.3/32")
            }],
            ..v1::Snapshot::default()
        };
        let (desired, rejected) = Desired::from_snapshot(snapshot, 0);
        assert!(rejected.is_empty(), "{rejected:?}");
        assert_eq!(desired.policy, Err(PolicyError::NoId));
        assert!(desired.peer(&key(2)).is_some());
    }

    #[test]
    fn inv1_an_unusable_peer_is_shut_out_and_the_others_are_served() {
        let (mut desired, rejected) = desired(vec![
            peer(1, "10.77.0.2/32"),
            peer(2, "10.77.0.3/24"),
            peer(0, "10.77.0.4/32"),
        ]);
        assert_eq!(rejected.len(), 2, "{rejected:?}");
        assert!(desired.peer(&key(1)).is_some());
        assert!(desired.peer(&key(2)).is_none(), "host bits set");
        let bad = v1::Peer {
            preshared_key: vec![1; 5],
            ..peer(1, "10.77.0.2/32")
        };
        let delta = v1::Delta {
            from_revision: 5,
            revision: 6,
            peers: vec![bad],
            ..v1::Delta::default()
        };
        let change = desired.apply(delta, 0).expect("applies");
        assert_eq!(change.touched, [key(1)]);
        assert!(
            desired.peer(&key(1)).is_none(),
            "a peer that became unusable is removed"
        );
    }

    #[test]
    fn an_address_moves_between_peers_of_one_delta_in_either_order() {
        for order in [[1, 2], [2, 1]] {
            let (mut desired, _) = desired(vec![peer(1, "10.77.0.2/32"), peer(2, "10.77.0.3/32")]);
            let address = |key| {
                if key == 1 {
                    "10.77.0.3/32"
                } else {
                    "10.77.0.2/32"
                }
            };
            let delta = v1::Delta {
                from_revision: 5,
                revision: 6,
                peers: order.iter().map(|key| peer(*key, address(*key))).collect(),
                ..v1::Delta::default()
            };
            let change = desired.apply(delta, 0).expect("applies");
            assert!(change.rejected.is_empty(), "{:?}", change.rejected);
            let now = desired.peer(&key(1)).expect("peer").allowed_ips[0];
            assert_eq!(now.to_string(), "10.77.0.3/32");
        }
    }

    #[test]
    fn an_address_that_another_peer_has_is_refused() {
        let (desired, rejected) = desired(vec![peer(1, "10.77.0.2/32"), peer(2, "10.77.0.2/32")]);
        assert!(
            matches!(rejected[..], [Rejection::Conflict { .. }]),
            "{rejected:?}"
        );
        assert!(desired.peer(&key(2)).is_none());
    }
}
