//! Keys and values of every map, each defined once for both sides.
//!
//! All are `#[repr(C)]` without implicit padding; sizes and offsets are asserted below. Whoever
//! changes one raises [`ABI_VERSION`], which is part of the pin path, so that maps of another shape
//! are never taken for these.

mod address;
mod captive;
mod event;
mod flow;
mod fragment;
mod lpm;
mod peer;
#[cfg(feature = "user")]
mod pod;
mod policy;
mod service;
mod settings;

pub use address::{Address, AddressV4, AddressV6};
pub use captive::{CAPTIVE_FAMILIES, CAPTIVE_PORT, CaptiveKey, CaptivePortal};
pub use event::{Event, EventBudget, PeerDrops};
pub use flow::{Check, FlowKey, FlowKeyV4, FlowKeyV6, FlowState};
pub use fragment::{FragmentKey, FragmentState};
pub use lpm::LpmKey;
pub use peer::{Ended, Level, NO_PEER, PeerKey, PeerState};
pub use policy::{
    DEEPEST, EffectivePolicy, GrantKey, IntervalList, NO_REGION, NO_RULE, Outcome, POLICY_SETS,
    PRINCIPALS_PER_POLICY, PolicyPrefix, PortInterval, Region, RuleOutcome, SEARCH_STEPS, port_key,
    principal_bit,
};
pub use service::ServiceKey;
pub use settings::Settings;

/// Version of everything in this module.
pub const ABI_VERSION: u32 = 4;

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
    /// [`super::CaptivePortal`] by family, while plain HTTP is led there.
    pub const CAPTIVE: &str = "CAPTIVE";
    /// Where peers wanted to go, by [`super::CaptiveKey`].
    pub const CAPTIVE_FLOWS: &str = "CAPTIVE_FLOWS";
    /// By parity: region by IPv4 prefix.
    pub const POLICY_V4: &str = "POLICY_V4";
    /// By parity: region by IPv6 prefix.
    pub const POLICY_V6: &str = "POLICY_V6";
    /// By parity: [`super::Region`]s.
    pub const POLICY_REGIONS: &str = "POLICY_REGIONS";
    /// By parity: [`super::IntervalList`] by [`super::GrantKey`].
    pub const POLICY_GRANTS: &str = "POLICY_GRANTS";
    /// By parity: [`super::PortInterval`]s.
    pub const POLICY_INTERVALS: &str = "POLICY_INTERVALS";
    /// By parity: [`super::Outcome`]s.
    pub const POLICY_OUTCOMES: &str = "POLICY_OUTCOMES";
    /// By parity: [`super::EffectivePolicy`]s.
    pub const POLICY_CLASSES: &str = "POLICY_CLASSES";
    /// [`super::FlowState`] by [`super::FlowKeyV4`].
    pub const FLOWS_V4: &str = "FLOWS_V4";
    /// As FLOWS_V4, of flows that need no session.
    pub const OPEN_FLOWS_V4: &str = "OPEN_FLOWS_V4";
    /// As FLOWS_V6, likewise.
    pub const OPEN_FLOWS_V6: &str = "OPEN_FLOWS_V6";
    /// [`super::FlowState`] by [`super::FlowKeyV6`].
    pub const FLOWS_V6: &str = "FLOWS_V6";
    /// [`super::FragmentState`] by [`super::FragmentKey`].
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Packets by [`super::counter_index`].
    pub const COUNTERS: &str = "COUNTERS";
    /// By peer index: [`super::PeerDrops`].
    pub const PEER_DROPS: &str = "PEER_DROPS";
    /// [`super::EventBudget`], one for each CPU.
    pub const EVENT_BUDGET: &str = "EVENT_BUDGET";
    /// Ring buffer of [`super::Event`].
    pub const EVENTS: &str = "EVENTS";
    /// Program for [`super::Direction::FromPeer`].
    pub const FROM_PEER: &str = "from_peer";
    /// Program for [`super::Direction::ToPeer`].
    pub const TO_PEER: &str = "to_peer";
    /// How often a flow was stored.
    pub const STORED: &str = "STORED";
    /// The global variable that says how long the link-layer header is.
    pub const LINK_HEADER: &str = "LINK_HEADER";
    /// The program that does nothing, for measurements.
    pub const EMPTY: &str = "empty";
    /// The program that looks up one thing, for measurements.
    pub const FLOOR: &str = "floor";
    /// The program for which each run's packet is another flow's, and what it is measured over.
    pub const RENUMBERED_FROM_PEER: &str = "renumbered_from_peer";
    /// As above.
    pub const RENUMBERED: &str = "renumbered";
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
    assert!(offset_of!(PeerState, reserved) == 48);
    assert!(offset_of!(PeerState, level) == 52);
    assert!(offset_of!(PeerState, ended) == 53);
    assert!(offset_of!(PeerState, policy) == 56);
    assert!(size_of::<PeerKey>() == 32);
    assert!(size_of::<FlowKeyV4>() == 16 && align_of::<FlowKeyV4>() == 4);
    assert!(size_of::<FlowKeyV6>() == 40 && align_of::<FlowKeyV6>() == 4);
    assert!(size_of::<FlowState>() == 48);
    assert!(
        offset_of!(FlowState, peer) == 24
            && offset_of!(FlowState, opener) == 40
            && offset_of!(FlowState, rule) == 44
    );
    assert!(size_of::<FragmentKey>() == 40);
    assert!(size_of::<FragmentState>() == 32);
    assert!(size_of::<ServiceKey>() == 20 && size_of::<CaptiveKey>() == 20);
    assert!(size_of::<CaptivePortal>() == 20);
    assert!(size_of::<Settings>() == 40 && align_of::<Settings>() == 8);
    assert!(offset_of!(Settings, epoch) == 0 && offset_of!(Settings, flags) == 4);
    assert!(offset_of!(Settings, service_filter) == 8 && offset_of!(Settings, policies) == 16);
    assert!(size_of::<Event>() == 64);
    assert!(size_of::<EventBudget>() == 32 && size_of::<PeerDrops>() == 64);
    assert!(size_of::<LpmKey<AddressV4>>() == 8 && size_of::<LpmKey<AddressV6>>() == 20);
    assert!(
        size_of::<LpmKey<PolicyPrefix<AddressV4>>>() == 12
            && size_of::<LpmKey<PolicyPrefix<AddressV6>>>() == 24
    );
    assert!(
        size_of::<Region>() == 24 && size_of::<Outcome>() == 16 && size_of::<PortInterval>() == 12
    );
    assert!(size_of::<GrantKey>() == 8 && size_of::<IntervalList>() == 8);
    assert!(size_of::<EffectivePolicy>() == 16 + 4 * PRINCIPALS_PER_POLICY);
};
