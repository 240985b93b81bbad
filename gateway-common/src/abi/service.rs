//! What is reachable before login.

use super::AddressV6;

/// An address, protocol and port that need no session.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// Address, IPv4-mapped for IPv4.
    pub address: AddressV6,
    /// Destination port in host order; 0 for a protocol without ports.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

impl ServiceKey {
    /// The bit of [`super::Settings::service_filter`] that stands for this service and others.
    #[inline(always)]
    pub const fn filter_bit(port: u16, protocol: u8) -> u64 {
        1 << ((port ^ (port >> 6) ^ protocol as u16) & 63)
    }
}
