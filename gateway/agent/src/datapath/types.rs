//! What the rest of the agent says to the datapath and hears from it.

use std::{net::IpAddr, path::PathBuf};

use gateway_common::{
    abi::{Direction, Level},
    verdict::Reason,
};
use ipnet::IpNet;

/// A peer's WireGuard public key.
pub type PublicKey = [u8; 32];

/// Where the maps live and how large they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of the WireGuard interface; a part of the pin path.
    pub interface: String,
    /// A directory on a BPF file system.
    pub pin_root: PathBuf,
    /// Most peers the maps can hold.
    pub max_peers: u32,
    /// Most flows remembered per address family; the least recently used one makes room.
    pub max_flows: u32,
}

/// A session as the kernel enforces it. Times are nanoseconds of [`gateway_common::clock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionGrant {
    /// Names the grant (`portcullis_proto::digest::session_tag`); never 0.
    pub tag: u64,
    /// Assurance level of the login.
    pub level: Level,
    /// When the login happened; a rule's `max_age` counts from here.
    pub authenticated_at: u64,
    /// The first instant at which the session no longer permits anything.
    pub deadline: u64,
    /// Longest silence from the peer, in nanoseconds; 0 for no limit.
    pub idle_timeout: u64,
    /// Last packet that came from the peer and passed.
    pub last_activity: u64,
}

/// A peer as the kernel holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Its WireGuard public key.
    pub key: PublicKey,
    /// Tunnel addresses that prove the peer, sorted.
    pub addresses: Vec<IpNet>,
    /// The session written last, even where its deadline has passed since; `None` when locked.
    pub session: Option<SessionGrant>,
    /// Number of its effective policy in the policy that holds.
    pub policy: u32,
}

/// Something reachable before login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Service {
    /// Its address.
    pub addr: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Destination port; 0 for a protocol without ports.
    pub port: u16,
}

/// Packets of one direction that ended for one reason, since the maps were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Why they passed or were dropped.
    pub reason: Reason,
    /// Which way they went.
    pub direction: Direction,
    /// How many.
    pub packets: u64,
}

/// What [`super::Datapath::attach`] found and did, for both hooks together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// At least one hook had no program of ours: there is one now.
    Afresh,
    /// Both hooks had one, and were switched to this program without a gap.
    Replaced,
}
