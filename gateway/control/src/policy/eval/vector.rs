//! One line of a file of vectors.

use std::net::IpAddr;

use gateway_common::abi;
use serde::Deserialize;

use super::packet;
use crate::policy::ports;
use crate::policy::principal::Subject;

/// The most that a session's ages and limits may be, in seconds: a century.
pub const SECONDS: u64 = 100 * 365 * 24 * 3600;

/// The first packet of a new flow, the peer it is from or to, and the peer's session.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    /// Whose packet.
    pub peer: Peer,
    /// `None` without a session.
    #[serde(default)]
    pub session: Option<Session>,
    /// The packet.
    pub packet: Packet,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// In the tunnel.
    pub address: IpAddr,
    /// Name of its user.
    pub user: String,
    /// The user's groups.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// A session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Assurance of the login.
    #[serde(deserialize_with = "level")]
    pub level: abi::Level,
    /// Seconds since the login.
    pub age_s: u64,
    /// Seconds since the last packet from the peer that passed.
    pub idle_s: u64,
    /// Seconds from login to deadline.
    pub lifetime_s: u64,
    /// Longest silence in seconds; `None` or 0 for no limit.
    #[serde(default)]
    pub idle_timeout_s: Option<u64>,
}

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packet {
    /// Which way it goes.
    pub direction: Direction,
    /// IP protocol number.
    #[serde(deserialize_with = "protocol")]
    pub protocol: u8,
    /// The other end's address.
    pub remote: IpAddr,
    /// The peer's port, where the protocol has any.
    #[serde(default)]
    pub peer_port: Option<u16>,
    /// The other end's port, likewise.
    #[serde(default)]
    pub remote_port: Option<u16>,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The peer sent it.
    FromPeer,
    /// It is sent to the peer.
    ToPeer,
}

impl From<Direction> for abi::Direction {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::FromPeer => Self::FromPeer,
            Direction::ToPeer => Self::ToPeer,
        }
    }
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant is its own message")]
pub enum VectorError {
    #[error("not a vector: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the peer's address {peer} and the remote address {remote} are of different families")]
    Families { peer: IpAddr, remote: IpAddr },
    #[error("protocol {0} has ports: both `peer_port` and `remote_port` are needed")]
    MissingPort(u8),
    #[error("protocol {0} has no ports")]
    PortOfPortless(u8),
    #[error("`{field}` is longer than a century")]
    TooLong { field: &'static str },
}

impl Vector {
    /// Reads a line.
    ///
    /// # Errors
    /// Where it is no JSON object of this form, or contradicts itself.
    pub fn parse(line: &str) -> Result<Self, VectorError> {
        let vector: Self = serde_json::from_str(line)?;
        vector.check()?;
        Ok(vector)
    }

    fn check(&self) -> Result<(), VectorError> {
        let (peer, remote) = (self.peer.address, self.packet.remote);
        if peer.is_ipv4() != remote.is_ipv4() {
            return Err(VectorError::Families { peer, remote });
        }
        let protocol = self.packet.protocol;
        let given = (self.packet.peer_port, self.packet.remote_port);
        match (packet::has_ports(protocol), given) {
            (true, (Some(_), Some(_))) | (false, (None, None)) => {}
            (true, _) => return Err(VectorError::MissingPort(protocol)),
            (false, _) => return Err(VectorError::PortOfPortless(protocol)),
        }
        if let Some(session) = &self.session {
            for (field, seconds) in [
                ("age_s", session.age_s),
                ("idle_s", session.idle_s),
                ("lifetime_s", session.lifetime_s),
                ("idle_timeout_s", session.idle_timeout_s.unwrap_or(0)),
            ] {
                if seconds > SECONDS {
                    return Err(VectorError::TooLong { field });
                }
            }
        }
        Ok(())
    }

    /// The peer's user, as rules look at it.
    pub fn subject(&self) -> Subject {
        Subject {
            user: self.peer.user.clone(),
            groups: self.peer.groups.clone(),
        }
    }

    /// The packet, from its IP header on.
    pub fn packet_bytes(&self) -> Vec<u8> {
        packet::bytes(self.peer.address, &self.packet)
    }
}

fn level<'de, D: serde::Deserializer<'de>>(from: D) -> Result<abi::Level, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Name {
        None,
        Mfa,
        PhishingResistant,
    }
    Ok(match Name::deserialize(from)? {
        Name::None => abi::Level::None,
        Name::Mfa => abi::Level::Mfa,
        Name::PhishingResistant => abi::Level::PhishingResistant,
    })
}

fn protocol<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u8),
        Name(String),
    }
    let wrong = "protocol: tcp, udp, icmp, icmp6 or a number from 0 to 255";
    match Either::deserialize(from).map_err(|_| serde::de::Error::custom(wrong))? {
        Either::Number(number) => Ok(number),
        Either::Name(name) => ports::protocol(&name).map_err(|_| serde::de::Error::custom(wrong)),
    }
}
