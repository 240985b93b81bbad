//! Datagrams whose first fragment has passed.

use super::{AddressV6, Check, FlowKeyV6};

/// Names a datagram in one direction (RFC 791, RFC 8200 section 4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Source, IPv4-mapped for IPv4.
    pub source: AddressV6,
    /// Destination, IPv4-mapped for IPv4.
    pub destination: AddressV6,
    /// The datagram's identification.
    pub id: u32,
    /// IP protocol number for IPv4, 44 for IPv6.
    pub protocol: u8,
    /// [`super::Direction`].
    pub direction: u8,
    /// Zero.
    pub pad: u16,
}

/// What later fragments of the datagram need.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentState {
    /// As [`super::FlowState::check`], over the words of the key.
    pub check: u64,
    /// When the datagram is forgotten. Nanoseconds.
    pub expires: u64,
    /// Index of the peer.
    pub peer: u32,
    /// The peer's incarnation.
    pub incarnation: u32,
    /// As [`super::FlowKey::peer_port`].
    pub peer_port: u16,
    /// As [`super::FlowKey::remote_port`].
    pub remote_port: u16,
    /// IP protocol number of the flow.
    pub protocol: u8,
    /// As [`super::FlowState::opener`].
    pub opener: u8,
    /// Zero.
    pub pad: [u8; 2],
}

impl FragmentKey {
    /// As a flow's key, with the identification where the ports are.
    #[inline(always)]
    const fn as_flow(&self) -> FlowKeyV6 {
        FlowKeyV6 {
            peer: self.source,
            remote: self.destination,
            peer_port: self.id as u16,
            remote_port: (self.id >> 16) as u16,
            protocol: self.protocol,
            remote_asks: self.direction,
            pad: 0,
        }
    }
}

impl Check for FragmentKey {
    #[inline(always)]
    fn check(&self) -> u64 {
        self.as_flow().check()
    }

    #[inline(always)]
    fn same(&self, other: &Self) -> bool {
        self.as_flow().same(&other.as_flow())
    }
}
