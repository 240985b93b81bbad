//! The WireGuard interface's own configuration: what of it the agent reads and changes.

mod decode;
mod encode;
mod genl;
mod kernel;

use std::io;
use std::net::SocketAddr;

use ipnet::IpNet;

pub use kernel::Kernel;

use crate::keys::{PresharedKey, PrivateKey, PublicKey};

/// A WireGuard interface. [`Kernel`] is the real one; a benchmark may bring one of its own.
pub trait WireGuard: Send + Sync {
    /// Everything the interface holds, private keys left out.
    fn read(&self) -> Result<Device, WireGuardError>;

    /// Sets what belongs to the interface itself. Peers are not touched.
    fn configure(&self, settings: &DeviceSettings) -> Result<(), WireGuardError>;

    /// Applies the changes in their order. Peers that are not named are not touched.
    fn apply(&self, changes: &[PeerChange]) -> Result<(), WireGuardError>;
}

/// A request that the kernel refused, or an answer that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum WireGuardError {
    #[error("there is no WireGuard interface {0}")]
    NoDevice(String),
    #[error(
        "the kernel has no WireGuard (the generic netlink family is missing): load the module with `modprobe wireguard`"
    )]
    NoFamily,
    #[error("{action} of WireGuard interface {interface}: {source}")]
    Netlink {
        action: &'static str,
        interface: String,
        source: io::Error,
    },
}

/// A WireGuard interface as it is.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// Absent where no private key is set.
    pub public_key: Option<PublicKey>,
    /// UDP port; 0 before one is chosen.
    pub listen_port: u16,
    /// In no particular order.
    pub peers: Vec<DevicePeer>,
}

/// A peer of an interface as it is.
#[derive(Clone, Debug)]
pub struct DevicePeer {
    /// Its identity.
    pub key: PublicKey,
    /// What is configured.
    pub config: PeerConfig,
    /// What happens to it.
    pub status: PeerStatus,
}

/// What of a peer is configured, as opposed to what happens to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Mixed into its handshakes.
    pub preshared_key: Option<PresharedKey>,
    /// Sorted; networks without host bits.
    pub allowed_ips: Vec<IpNet>,
    /// Seconds; 0 for none.
    pub persistent_keepalive: u16,
}

/// What happened to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStatus {
    /// Where it was heard from last.
    pub endpoint: Option<SocketAddr>,
    /// Unix time in milliseconds on this machine's clock; 0 for never.
    pub last_handshake_ms: i64,
    /// Received from it, since it was added.
    pub rx_bytes: u64,
    /// Sent to it, since it was added.
    pub tx_bytes: u64,
}

/// What belongs to the interface itself.
#[derive(Clone, Debug)]
pub struct DeviceSettings {
    /// The gateway's own.
    pub private_key: PrivateKey,
    /// UDP port.
    pub listen_port: u16,
}

/// One change to the peers of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// Ends the peer's WireGuard session too. No error where there is no such peer.
    Remove(PublicKey),
    /// Adds or changes the peer.
    Update(PeerUpdate),
}

/// Changes one peer; what is `None` stays, and so does its WireGuard session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerUpdate {
    /// Which peer.
    pub key: PublicKey,
    /// Whether a missing peer is added; otherwise the change is for an existing peer only.
    pub create: bool,
    /// `Some(None)` removes it.
    pub preshared_key: Option<Option<PresharedKey>>,
    /// Where to find it: clients know, gateways hear.
    pub endpoint: Option<SocketAddr>,
    /// Seconds; 0 for none.
    pub persistent_keepalive: Option<u16>,
    /// The whole new set. An address is taken from whichever peer has it.
    pub allowed_ips: Option<Vec<IpNet>>,
}
