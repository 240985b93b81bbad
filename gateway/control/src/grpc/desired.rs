//! Desired state in the terms of the stream, and the digest expected of it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_proto::digest::{PeerEntry, StateDigest, session_tag};
use portcullis_proto::v1;

use crate::core::Core;
use crate::domain::{DeviceKey, Mode};
use crate::error::OperationError;
use crate::ops::devices::preshared_key_field;
use crate::ops::session_key;
use crate::store::StoreError;
use crate::store::changes::{LiveSession, PeerRow};
use crate::store::locations::LocationRow;
use crate::store::to_u64;

const TCP: u32 = 6;
const UDP: u32 = 17;
const DNS: u32 = 53;

/// What a gateway holds once it has applied everything it was sent.
#[derive(Default)]
pub(super) struct Expected {
    peers: HashMap<DeviceKey, Held>,
    /// Id; 0 for none.
    policy: u64,
    digest: StateDigest,
}

struct Held {
    preshared_key: Option<zeroize::Zeroizing<[u8; 32]>>,
    allowed_ips: Vec<(IpAddr, u8)>,
    session: Option<u64>,
    policy: u32,
}

impl Held {
    fn entry<'a>(&'a self, key: &'a DeviceKey) -> PeerEntry<'a> {
        PeerEntry {
            public_key: key.as_bytes(),
            preshared_key: self.preshared_key.as_deref(),
            allowed_ips: &self.allowed_ips,
            persistent_keepalive_s: 0,
            session: self.session,
            policy: self.policy,
        }
    }
}

impl Expected {
    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest.to_bytes()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Id of the policy; 0 for none.
    pub(super) fn policy(&self) -> u64 {
        self.policy
    }

    pub(super) fn set_policy(&mut self, id: u64) {
        self.digest.subtract_policy(self.policy);
        self.digest.add_policy(id);
        self.policy = id;
    }

    pub(super) fn remove(&mut self, key: &DeviceKey) {
        if let Some(held) = self.peers.remove(key) {
            self.digest.subtract(&held.entry(key));
        }
    }

    /// Takes in a peer as it is sent.
    pub(super) fn put(&mut self, key: DeviceKey, peer: &v1::Peer, allowed_ips: Vec<(IpAddr, u8)>) {
        self.remove(&key);
        let held = Held {
            preshared_key: peer
                .preshared_key
                .as_slice()
                .try_into()
                .ok()
                .map(zeroize::Zeroizing::new),
            allowed_ips,
            session: peer.session.as_ref().map(session_tag),
            policy: peer.policy,
        };
        self.digest.add(&held.entry(&key));
        self.peers.insert(key, held);
    }
}

/// A peer for the wire, and its allowed IPs as numbers.
pub(super) type WirePeer = (v1::Peer, Vec<(IpAddr, u8)>);

/// A device as a peer with its class of the policy. `None` where no gateway is to know the device: at a
/// session-key location, without a live session.
pub(super) fn peer(
    core: &Core,
    row: &PeerRow,
    mode: Mode,
    policy: u32,
    now_ms: i64,
) -> Result<Option<WirePeer>, OperationError> {
    // One that is over, but not yet ended in the store, is not worth sending.
    let live = row
        .session
        .as_ref()
        .filter(|session| session.deadline_ms > now_ms);
    let sealed = match mode {
        Mode::Gate => {
            let sealed = row.preshared_key.as_deref();
            sealed.map(|sealed| (preshared_key_field(&row.device_id), sealed))
        }
        Mode::SessionKey => {
            let Some((id, sealed)) =
                live.and_then(|live| Some((live.id.as_str(), live.preshared_key.as_deref()?)))
            else {
                return Ok(None);
            };
            Some((session_key::field(id), sealed))
        }
    };
    let preshared_key = match sealed {
        None => Vec::new(),
        Some((field, sealed)) => core.vault.unseal(field, sealed)?.to_vec(),
    };
    let mut allowed_ips = Vec::with_capacity(row.addresses.len());
    for address in &row.addresses {
        let address: IpAddr = address
            .parse()
            .map_err(|_| StoreError::Value("tunnel address"))?;
        allowed_ips.push((address, if address.is_ipv4() { 32 } else { 128 }));
    }
    let peer = v1::Peer {
        public_key: row.public_key.as_bytes().to_vec(),
        preshared_key,
        allowed_ips: allowed_ips
            .iter()
            .map(|(ip, prefix)| format!("{ip}/{prefix}"))
            .collect(),
        // The gateway answers; it is the client behind a NAT that keeps the mapping alive.
        persistent_keepalive_s: 0,
        session: live.map(session).transpose()?,
        policy,
        renews: match live.and_then(|live| live.renews.as_deref()) {
            None => Vec::new(),
            Some(mark) => STANDARD
                .decode(mark)
                .map_err(|_| StoreError::Value("mark of a key"))?,
        },
    };
    Ok(Some((peer, allowed_ips)))
}

fn session(session: &LiveSession) -> Result<v1::Session, StoreError> {
    let id = uuid::Uuid::parse_str(&session.id).map_err(|_| StoreError::Value("session id"))?;
    Ok(v1::Session {
        id: id.as_bytes().to_vec(),
        level: session.level.into(),
        authenticated_at_ms: session.authenticated_at_ms,
        deadline_ms: session.deadline_ms,
        idle_timeout_ms: to_u64(session.idle_timeout_ms),
        last_activity_ms: session.last_activity_ms,
    })
}

/// The location as its gateway configures it.
pub(super) fn location(row: &LocationRow) -> Result<v1::LocationConfig, StoreError> {
    let pools = row.pools()?;
    let own: Vec<_> = pools.iter().map(|pool| pool.gateway()).collect();
    let small = |value: i64| u32::try_from(value).map_err(|_| StoreError::Value("number"));
    Ok(v1::LocationConfig {
        name: row.name.clone(),
        addresses: own.iter().map(ToString::to_string).collect(),
        listen_port: small(row.listen_port)?,
        mtu: small(row.mtu)?,
        open_services: open_services(row)?,
        answer_drops: row.answer_drops != 0,
        captive_portals: match row.captive {
            0 => Vec::new(),
            _ => portal_sockets(row)?,
        },
    })
}

/// The portal's addresses.
fn portals(row: &LocationRow) -> Result<Vec<String>, StoreError> {
    Ok(match row.portals.as_slice() {
        [] => row
            .pools()?
            .iter()
            .map(|pool| pool.gateway().addr().to_string())
            .collect(),
        portals => portals.to_vec(),
    })
}

fn portal_sockets(row: &LocationRow) -> Result<Vec<String>, StoreError> {
    let port = u16::try_from(row.portal_port).map_err(|_| StoreError::Value("portal port"))?;
    let portals = portals(row)?.into_iter().map(|address| {
        let address: IpAddr = address
            .parse()
            .map_err(|_| StoreError::Value("portal address"))?;
        Ok(SocketAddr::new(address, port).to_string())
    });
    portals.collect()
}

/// What is reachable before login: the portal, and the resolvers.
pub(crate) fn open_services(row: &LocationRow) -> Result<Vec<v1::OpenService>, StoreError> {
    let portal_port =
        u32::try_from(row.portal_port).map_err(|_| StoreError::Value("portal port"))?;
    let mut open_services = Vec::new();
    for address in portals(row)? {
        open_services.push(v1::OpenService {
            address,
            protocol: TCP,
            port: portal_port,
        });
    }
    for address in &row.dns {
        for protocol in [UDP, TCP] {
            open_services.push(v1::OpenService {
                address: address.clone(),
                protocol,
                port: DNS,
            });
        }
    }
    Ok(open_services)
}
