//! A peer as control wants it.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_proto::digest::key_mark;
use portcullis_proto::v1;

use super::session::SessionError;
use super::{Moment, Session};
use crate::keys::{KeyError, PresharedKey};
use crate::wireguard::PeerConfig;

/// A peer that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("its pre-shared key: {0}")]
    PresharedKey(#[from] KeyError),
    #[error("{0:?} is not an address or a network")]
    AllowedIp(String),
    #[error("{0} has host bits set")]
    HostBits(IpNet),
    #[error("its keepalive of {0} s is longer than 65535 s")]
    Keepalive(u32),
    #[error("there is no effective policy {0}")]
    Policy(u32),
    #[error("the mark of the key that it renews has {0} bytes, not 32")]
    Renews(usize),
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// A peer of the location, with its session where it holds one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Mixed into the peer's handshakes.
    pub preshared_key: Option<PresharedKey>,
    /// Sorted, none twice, none with host bits.
    pub allowed_ips: Vec<IpNet>,
    /// Seconds; 0 for none.
    pub persistent_keepalive: u16,
    /// `None` where the peer must be locked.
    pub session: Option<Session>,
    /// Number of its effective policy.
    pub policy: u32,
    /// [`key_mark`] of the pre-shared key that was the session's before.
    pub renews: Option<[u8; 32]>,
}

impl Peer {
    pub(super) fn parse(wire: v1::Peer, moment: Moment) -> Result<Self, PeerError> {
        let mut allowed_ips = wire
            .allowed_ips
            .into_iter()
            .map(allowed_ip)
            .collect::<Result<Vec<_>, _>>()?;
        allowed_ips.sort_unstable();
        allowed_ips.dedup();
        Ok(Self {
            preshared_key: PresharedKey::from_wire(&wire.preshared_key)?,
            allowed_ips,
            persistent_keepalive: u16::try_from(wire.persistent_keepalive_s)
                .map_err(|_| PeerError::Keepalive(wire.persistent_keepalive_s))?,
            session: wire
                .session
                .map(|session| Session::parse(&session, moment))
                .transpose()?,
            policy: wire.policy,
            renews: match wire.renews.as_slice() {
                [] => None,
                mark => Some(mark.try_into().map_err(|_| PeerError::Renews(mark.len()))?),
            },
        })
    }

    /// Whether its pre-shared key takes the place of this one within one session.
    pub fn renews(&self, held: Option<&PresharedKey>) -> bool {
        self.renews.is_some() && self.renews == held.map(|held| key_mark(held.as_bytes()))
    }

    /// What of it WireGuard is told.
    pub fn config(&self) -> PeerConfig {
        PeerConfig {
            preshared_key: self.preshared_key.clone(),
            allowed_ips: self.allowed_ips.clone(),
            persistent_keepalive: self.persistent_keepalive,
        }
    }
}

fn allowed_ip(text: String) -> Result<IpNet, PeerError> {
    let network = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| PeerError::AllowedIp(text))?;
    if network == network.trunc() {
        Ok(network)
    } else {
        Err(PeerError::HostBits(network))
    }
}
