//! From an Ethernet frame to the UDP datagram in it.
//!
//! Up to two VLAN tags are looked through. IPv4 options are skipped. Later fragments, and IPv6
//! datagrams behind extension headers, say nothing about their ports here: they pass, and meet
//! WireGuard's own checks once they are put together.

use crate::{
    abi::{Address as _, AddressV4, AddressV6},
    parse::{Bytes, byte, half},
};

const ETHERTYPE: u32 = 12;
const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1Q customer and service tags.
const TYPE_TAG: u16 = 0x8100;
const TYPE_SERVICE_TAG: u16 = 0x88a8;
const UDP: u8 = 17;
const UDP_HEADER: u32 = 8;
/// More fragments, and the offset.
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// A UDP datagram, or the first fragment of one: where it is, and what its ports are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The family.
    pub is_v6: bool,
    /// Where the IP header begins.
    pub network: u32,
    /// In host order.
    pub source_port: u16,
    /// In host order.
    pub destination_port: u16,
    /// Length of the UDP payload as the UDP header says; `None` where that cannot be.
    pub length: Option<u16>,
    /// Where the payload begins.
    pub payload: u32,
}

impl Datagram {
    /// Source address, IPv4-mapped for IPv4. Read when it is needed, which for most messages is never.
    #[inline(always)]
    pub fn source<B: Bytes>(&self, frame: &B) -> Option<AddressV6> {
        self.address(frame, 12, 8)
    }

    /// Destination address, likewise.
    #[inline(always)]
    pub fn destination<B: Bytes>(&self, frame: &B) -> Option<AddressV6> {
        self.address(frame, 16, 24)
    }

    #[inline(always)]
    fn address<B: Bytes>(&self, frame: &B, v4: u32, v6: u32) -> Option<AddressV6> {
        if self.is_v6 {
            frame.near::<4>(self.network + v6).map(AddressV6)
        } else {
            frame
                .near::<1>(self.network + v4)
                .map(|[word]| AddressV4(word).mapped())
        }
    }
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4 at this offset.
    V4(u32),
    /// IPv6 at this offset.
    V6(u32),
}

/// The datagram in a frame; `None` where there is none to look at.
#[inline(always)]
pub fn datagram<B: Bytes>(frame: &B) -> Option<Datagram> {
    match network(frame)? {
        Network::V4(at) => ipv4(frame, at),
        Network::V6(at) => ipv6(frame, at),
    }
}

/// The IP packet in a frame; `None` where there is none to look at.
#[inline(always)]
pub fn network<B: Bytes>(frame: &B) -> Option<Network> {
    let mut at = ETHERTYPE;
    let mut kind = half(frame.near::<1>(at)?[0], 0);
    if kind == TYPE_TAG || kind == TYPE_SERVICE_TAG {
        at += 4;
        kind = half(frame.near::<1>(at)?[0], 0);
        if kind == TYPE_TAG || kind == TYPE_SERVICE_TAG {
            at += 4;
            kind = half(frame.near::<1>(at)?[0], 0);
        }
    }
    match kind {
        TYPE_IPV4 => Some(Network::V4(at + 2)),
        TYPE_IPV6 => Some(Network::V6(at + 2)),
        _ => None,
    }
}

/// The datagram in an IPv4 packet.
#[inline(always)]
pub fn ipv4<B: Bytes>(frame: &B, at: u32) -> Option<Datagram> {
    let [first, second, third, ..] = frame.near::<5>(at)?;
    let words = u32::from(byte(first, 0) & 15);
    if byte(third, 1) != UDP
        || byte(first, 0) >> 4 != 4
        || words < 5
        || half(second, 1) & FRAGMENT_OFFSET != 0
    {
        return None;
    }
    udp(frame, false, at, at + words * 4)
}

/// The datagram in an IPv6 packet.
#[inline(always)]
pub fn ipv6<B: Bytes>(frame: &B, at: u32) -> Option<Datagram> {
    let header = frame.near::<10>(at)?;
    if byte(header[1], 2) != UDP || byte(header[0], 0) >> 4 != 6 {
        return None;
    }
    udp(frame, true, at, at + 40)
}

#[inline(always)]
fn udp<B: Bytes>(frame: &B, is_v6: bool, network: u32, at: u32) -> Option<Datagram> {
    let [ports, length] = frame.near::<2>(at)?;
    Some(Datagram {
        is_v6,
        network,
        source_port: half(ports, 0),
        destination_port: half(ports, 1),
        length: half(length, 0).checked_sub(UDP_HEADER as u16),
        payload: at + UDP_HEADER,
    })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{string::ToString as _, vec::Vec};

    use proptest::prelude::*;

    use super::*;
    use crate::parse::Slice;

    /// Ethernet with these tags, then the rest.
    fn ethernet(tags: &[u16], kind: u16, rest: &[u8]) -> Vec<u8> {
        let mut frame = std::vec![2; 12];
        for tag in tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 5]);
        }
        frame.extend(kind.to_be_bytes());
        frame.extend(rest);
        frame
    }

    fn ipv4_udp(options: usize, fragment: u16) -> Vec<u8> {
        let mut packet = std::vec![0x45 + options as u8, 0, 0, 60, 0, 0, 0, 0, 64, 17, 0, 0];
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet.extend([192, 0, 2, 11, 192, 0, 2, 1]);
        packet.extend(std::iter::repeat_n(1, options * 4));
        packet.extend([0x12, 0x34, 0xca, 0x6c, 0, 40, 0, 0]);
        packet.extend([0; 32]);
        packet
    }

    #[test]
    fn a_datagram_is_found_behind_tags_and_options() {
        let frame = ethernet(&[], 0x0800, &ipv4_udp(0, 0));
        let plain = datagram(&Slice(&frame)).unwrap();
        let text =
            |address: Option<AddressV6>| std::net::IpAddr::from(address.unwrap()).to_string();
        assert_eq!(text(plain.source(&Slice(&frame))), "192.0.2.11");
        assert_eq!(text(plain.destination(&Slice(&frame))), "192.0.2.1");
        assert_eq!(
            (plain.source_port, plain.destination_port, plain.length),
            (0x1234, 51820, Some(32))
        );
        assert_eq!(plain.payload, 14 + 20 + 8);
        let tags: [&[u16]; 3] = [&[0x8100], &[0x88a8, 0x8100], &[0x8100, 0x8100]];
        for tags in tags {
            let tagged = datagram(&Slice(&ethernet(tags, 0x0800, &ipv4_udp(10, 0x2000)))).unwrap();
            assert_eq!(
                tagged,
                Datagram {
                    payload: tagged.payload,
                    network: tagged.network,
                    ..plain
                }
            );
            assert_eq!(tagged.payload, 14 + 4 * tags.len() as u32 + 60 + 8);
        }
        let mut v6 = std::vec![0x60, 0, 0, 0, 0, 40, 17, 64];
        v6.extend([0xfd; 16]);
        v6.extend([0xfe; 16]);
        v6.extend([0x12, 0x34, 0xca, 0x6c, 0, 4, 0, 0]);
        let frame = ethernet(&[], 0x86dd, &v6);
        let v6 = datagram(&Slice(&frame)).unwrap();
        assert_eq!(
            v6.source(&Slice(&frame)),
            Some(AddressV6([u32::MAX / 255 * 0xfd; 4]))
        );
        assert_eq!(
            v6.destination(&Slice(&frame)),
            Some(AddressV6([u32::MAX / 255 * 0xfe; 4]))
        );
        assert!(v6.is_v6 && v6.length.is_none() && v6.destination_port == 51820);
    }

    #[test]
    fn what_tells_no_ports_is_left_alone() {
        let three = ethernet(&[0x8100; 3], 0x0800, &ipv4_udp(0, 0));
        let later = ethernet(&[], 0x0800, &ipv4_udp(0, 0x2001));
        let mut tcp = ethernet(&[], 0x0800, &ipv4_udp(0, 0));
        tcp[23] = 6;
        let mut short_header = ethernet(&[], 0x0800, &ipv4_udp(0, 0));
        short_header[14] = 0x44;
        let arp = ethernet(&[], 0x0806, &ipv4_udp(0, 0));
        let mut extension = std::vec![0x60, 0, 0, 0, 0, 40, 44, 64];
        extension.extend([0; 72]);
        let extension = ethernet(&[], 0x86dd, &extension);
        for frame in [three, later, tcp, short_header, arp, extension] {
            assert_eq!(datagram(&Slice(&frame)), None);
        }
    }

    proptest! {
        #[test]
        fn no_frame_is_read_past_its_end(frame in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Some(found) = datagram(&Slice(&frame)) {
                prop_assert!(found.payload as usize <= frame.len());
            }
        }
    }
}
