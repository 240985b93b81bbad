//! Addresses as they lie in a packet.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the parser and the tables ask of an address family.
pub trait Address: Copy + Eq {
    /// The address as IPv6, an IPv4 address as IPv4-mapped.
    fn mapped(self) -> AddressV6;

    /// Whether no honest sender has this address: unspecified, loopback, multicast, broadcast, or an
    /// IPv4-mapped address on the wire.
    fn is_martian(self) -> bool;
}

/// An IPv4 address, four bytes in network order read as one word.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressV4(pub u32);

/// An IPv6 address, sixteen bytes in network order read as four words.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Hash)]
#[expect(
    clippy::derived_hash_with_manual_eq,
    reason = "the comparison below is of the same words"
)]
pub struct AddressV6(pub [u32; 4]);

// By hand: derived, it becomes a call to memcmp, which the kernel side has not.
impl PartialEq for AddressV6 {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.differs(other) == 0
    }
}

impl AddressV6 {
    /// 0 for the same address, without a branch.
    #[inline(always)]
    pub(super) const fn differs(&self, other: &Self) -> u32 {
        let (a, b) = (&self.0, &other.0);
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3])
    }
}

impl Eq for AddressV6 {}

/// Third word of an IPv4-mapped IPv6 address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Address for AddressV4 {
    #[inline(always)]
    fn mapped(self) -> AddressV6 {
        AddressV6([0, 0, MAPPED, self.0])
    }

    #[inline(always)]
    fn is_martian(self) -> bool {
        let first = self.0.to_ne_bytes()[0];
        first == 0 || first == 127 || first >= 224
    }
}

impl Address for AddressV6 {
    #[inline(always)]
    fn mapped(self) -> AddressV6 {
        self
    }

    #[inline(always)]
    fn is_martian(self) -> bool {
        let [a, b, c, d] = self.0;
        if (a | b) == 0 && (c == MAPPED || (c == 0 && u32::from_be(d) <= 1)) {
            return true;
        }
        a.to_ne_bytes()[0] == 0xff
    }
}

impl From<Ipv4Addr> for AddressV4 {
    fn from(address: Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(address.octets()))
    }
}

impl From<AddressV4> for Ipv4Addr {
    fn from(address: AddressV4) -> Self {
        Self::from(address.0.to_ne_bytes())
    }
}

impl From<Ipv6Addr> for AddressV6 {
    fn from(address: Ipv6Addr) -> Self {
        let octets = address.octets();
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Self(words)
    }
}

impl From<AddressV6> for Ipv6Addr {
    fn from(address: AddressV6) -> Self {
        let mut octets = [0; 16];
        for (bytes, word) in octets.chunks_exact_mut(4).zip(address.0) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        Self::from(octets)
    }
}

impl From<IpAddr> for AddressV6 {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => AddressV4::from(v4).mapped(),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<AddressV6> for IpAddr {
    fn from(address: AddressV6) -> Self {
        Self::V6(address.into()).to_canonical()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn martians_of_both_families() {
        for text in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            let address: Ipv4Addr = text.parse().unwrap();
            assert!(AddressV4::from(address).is_martian(), "{text}");
        }
        for text in ["::", "::1", "ff02::1", "::ffff:10.0.0.1"] {
            let address: Ipv6Addr = text.parse().unwrap();
            assert!(AddressV6::from(address).is_martian(), "{text}");
        }
        for text in ["10.0.0.1", "1.2.3.4", "223.1.1.1"] {
            let address: Ipv4Addr = text.parse().unwrap();
            assert!(!AddressV4::from(address).is_martian(), "{text}");
        }
        for text in ["fd00::1", "2001:db8::1", "64:ff9b::1.2.3.4"] {
            let address: Ipv6Addr = text.parse().unwrap();
            assert!(!AddressV6::from(address).is_martian(), "{text}");
        }
    }
}
