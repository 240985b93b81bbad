//! Keys and values of every map, each defined once for both sides.
//!
//! All are `#[repr(C)]` without implicit padding; sizes and offsets are asserted below. Whoever
//! changes one raises [`ABI_VERSION`], which is part of the pin path, so that maps of another shape
//! are never taken for these.

mod address;
mod event;
mod flow;
mod fragment;
mod lpm;
mod peer;
#[cfg(feature = "user")]
mod pod;
mod service;
mod settings;

pub use address::{Address, AddressV4, AddressV6};
pub use event::Event;
pub use flow::{Check, FlowKey, FlowKeyV4, FlowKeyV6, FlowState};
pub use fragment::{FragmentKey, FragmentState};
pub use lpm::LpmKey;
pub use peer::{Ended, Level, NO_PEER, PeerKey, PeerState};
pub use service::ServiceKey;
pub use settings::Settings;

/// Version of everything in this module.
pub const ABI_VERSION: u32 = 1;

/// Which way a packet crosses the WireGuard interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// Decrypted, from a peer (TC ingress).
    FromPeer = 0,
    /// Towards a peer, before encryption (TC egress).
    ToPeer = 1,
}

impl Direction {
    /// Both, by number.
    pub const ALL: [Self; 2] = [Self::FromPeer, Self::ToPeer];
}

/// Index of a counter: packets of `direction` that ended for the reason of this number.
#[inline(always)]
pub const fn counter_index(direction: Direction, reason: crate::verdict::Reason) -> u32 {
    direction as u32 * crate::verdict::REASON_SLOTS + reason as u32
}

/// Entries of the counter map.
pub const COUNTERS: u32 = 2 * crate::verdict::REASON_SLOTS;

/// Names of maps and programs in the object and on the BPF file system.
pub mod names {
    /// [`super::Settings`], one entry.
    pub const SETTINGS: &str = "SETTINGS";
    /// [`super::PeerState`] by peer index.
    pub const PEERS: &str = "PEERS";
    /// [`super::PeerKey`] by peer index.
    pub const PEER_KEYS: &str = "PEER_KEYS";
    /// Peer index by IPv4 address.
    pub const PEER_V4: &str = "PEER_V4";
    /// Peer index by IPv6 address.
    pub const PEER_V6: &str = "PEER_V6";
    /// Peer index by IPv4 prefix, for peers with wider allowed IPs.
    pub const WIDE_V4: &str = "WIDE_V4";
    /// Peer index by IPv6 prefix, for peers with wider allowed IPs.
    pub const WIDE_V6: &str = "WIDE_V6";
    /// Set of [`super::ServiceKey`].
    pub const SERVICES: &str = "SERVICES";
    /// [`super::FlowState`] by [`super::FlowKeyV4`].
    pub const FLOWS_V4: &str = "FLOWS_V4";
    /// [`super::FlowState`] by [`super::FlowKeyV6`].
    pub const FLOWS_V6: &str = "FLOWS_V6";
    /// [`super::FragmentState`] by [`super::FragmentKey`].
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Packets by [`super::counter_index`].
    pub const COUNTERS: &str = "COUNTERS";
    /// Ring buffer of [`super::Event`].
    pub const EVENTS: &str = "EVENTS";
    /// Program for [`super::Direction::FromPeer`].
    pub const FROM_PEER: &str = "from_peer";
    /// Program for [`super::Direction::ToPeer`].
    pub const TO_PEER: &str = "to_peer";
    /// The program that does nothing, for measurements.
    pub const EMPTY: &str = "empty";
}

const _: () = {
    use core::mem::{align_of, offset_of, size_of};
    assert!(size_of::<AddressV4>() == 4 && size_of::<AddressV6>() == 16);
    assert!(size_of::<PeerState>() == 64 && align_of::<PeerState>() == 8);
    assert!(offset_of!(PeerState, incarnation) == 0);
    assert!(offset_of!(PeerState, generation) == 4);
    assert!(offset_of!(PeerState, deadline) == 8);
    assert!(offset_of!(PeerState, idle_timeout) == 16);
    assert!(offset_of!(PeerState, last_activity) == 24);
    assert!(offset_of!(PeerState, authenticated_at) == 32);
    assert!(offset_of!(PeerState, tag) == 40);
    assert!(offset_of!(PeerState, policy) == 48);
    assert!(offset_of!(PeerState, level) == 52);
    assert!(offset_of!(PeerState, ended) == 53);
    assert!(offset_of!(PeerState, reserved) == 56);
    assert!(size_of::<PeerKey>() == 32);
    assert!(size_of::<FlowKeyV4>() == 16 && align_of::<FlowKeyV4>() == 4);
    assert!(size_of::<FlowKeyV6>() == 40 && align_of::<FlowKeyV6>() == 4);
    assert!(size_of::<FlowState>() == 48);
    assert!(offset_of!(FlowState, peer) == 24 && offset_of!(FlowState, opener) == 40);
    assert!(size_of::<FragmentKey>() == 40);
    assert!(size_of::<FragmentState>() == 40);
    assert!(size_of::<ServiceKey>() == 20);
    assert!(size_of::<Settings>() == 24);
    assert!(size_of::<Event>() == 56);
    assert!(size_of::<LpmKey<AddressV4>>() == 8 && size_of::<LpmKey<AddressV6>>() == 20);
};
