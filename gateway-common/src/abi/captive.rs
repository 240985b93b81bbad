//! Plain HTTP of peers that have to log in, which is led to the portal.

use super::AddressV6;

/// Port of plain HTTP.
pub const CAPTIVE_PORT: u16 = 80;

/// Keys of [`CaptivePortal`]: the families 4 and 6.
pub const CAPTIVE_FAMILIES: [u32; 2] = [4, 6];

/// Where plain HTTP is led to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CaptivePortal {
    /// The portal's address, IPv4-mapped for IPv4.
    pub address: AddressV6,
    /// Its port in host order: that of its pages, so that nothing else becomes reachable.
    pub port: u16,
    /// Zero.
    pub pad: u16,
}

/// Names a connection that was led to the portal, the value being where the peer wanted to go
/// (IPv4-mapped for IPv4).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CaptiveKey {
    /// The peer's address, IPv4-mapped for IPv4.
    pub peer: AddressV6,
    /// The peer's port in host order.
    pub port: u16,
    /// Zero.
    pub pad: u16,
}
