//! What the programs tell about single packets, a few a second at most.

use super::AddressV6;

/// One dropped packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds of the maps' clock.
    pub time: u64,
    /// Source, IPv4-mapped for IPv4; zero where the packet could not be parsed.
    pub source: AddressV6,
    /// Destination, likewise.
    pub destination: AddressV6,
    /// Source port in host order, or 0.
    pub source_port: u16,
    /// Destination port in host order, or 0.
    pub destination_port: u16,
    /// IP protocol number, or 0.
    pub protocol: u8,
    /// [`super::Direction`].
    pub direction: u8,
    /// [`crate::verdict::Reason`].
    pub reason: u8,
    /// Zero.
    pub pad: u8,
    /// Index of the peer, or [`super::NO_PEER`].
    pub peer: u32,
    /// Length of the packet in bytes.
    pub length: u32,
}
