//! Leads plain HTTP of peers that have to log in to the portal: what would be dropped gets the portal's
//! address and port as its destination, and the portal's answer what the peer asked for as its source.
//!
//! The table of what was led is filled by peers' openers alone, and is all that lets an answer back in.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_PSEUDO_HDR},
    helpers::generated::{
        bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_load_bytes,
        bpf_skb_store_bytes,
    },
};
use gateway_common::{
    abi::{Address, AddressV4, AddressV6, CAPTIVE_PORT, CaptiveKey, Direction},
    packet::{Packet, protocol},
};

use crate::maps;

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Led {
    /// Nothing: it is none of these.
    No,
    /// It goes on.
    On,
    /// It has been changed in part, and must not go on.
    Broken,
}

/// What the families differ in.
pub(crate) trait Family: Address {
    const NUMBER: u32;

    /// This family's part of an address in the maps.
    fn unmapped(address: AddressV6) -> Self;

    /// Writes address and port over the old ones, the packet's source or destination.
    fn write(self, skb: *mut __sk_buff, direction: Direction, old: Self, ports: Ports) -> bool;
}

/// A port that becomes another.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    old: u16,
    new: u16,
}

impl Ports {
    /// Writes it into the TCP header that begins here.
    #[inline(always)]
    fn write(self, skb: *mut __sk_buff, direction: Direction, tcp: u32) -> bool {
        let at = match direction {
            Direction::FromPeer => tcp + 2,
            Direction::ToPeer => tcp,
        };
        let (old, new) = (self.old.to_be(), self.new.to_be());
        // SAFETY: the helpers check the packet themselves, and the second reads two bytes.
        unsafe {
            bpf_l4_csum_replace(skb, tcp + TCP_CHECKSUM, old.into(), new.into(), 2) == 0
                && bpf_skb_store_bytes(skb, at, (&raw const new).cast(), 2, 0) == 0
        }
    }
}

/// Where it lies in the TCP header.
const TCP_CHECKSUM: u32 = 16;

/// Leads a packet for which [`gateway_common::answer::may_be_led`] holds.
#[inline(always)]
pub(crate) fn lead<A: Family>(
    skb: *mut __sk_buff,
    direction: Direction,
    packet: &Packet<A>,
) -> Led {
    let Some(portal) = maps::captive_portal(A::NUMBER) else {
        return Led::No;
    };
    let (old, new, ports) = match direction {
        Direction::FromPeer => {
            let key = CaptiveKey {
                peer: packet.source.mapped(),
                port: packet.source_port,
                pad: 0,
            };
            let wanted = packet.destination.mapped();
            let led = if packet.traits.opens() && !packet.traits.closes() {
                maps::store_captive_flow(&key, &wanted)
            } else {
                maps::captive_flow(&key) == Some(wanted)
            };
            if !led {
                return Led::No;
            }
            let ports = Ports {
                old: CAPTIVE_PORT,
                new: portal.port,
            };
            (packet.destination, A::unmapped(portal.address), ports)
        }
        Direction::ToPeer => {
            if packet.source_port != portal.port || packet.source.mapped() != portal.address {
                return Led::No;
            }
            let key = CaptiveKey {
                peer: packet.destination.mapped(),
                port: packet.destination_port,
                pad: 0,
            };
            match maps::captive_flow(&key) {
                Some(wanted) => {
                    let ports = Ports {
                        old: portal.port,
                        new: CAPTIVE_PORT,
                    };
                    (packet.source, A::unmapped(wanted), ports)
                }
                None => return Led::No,
            }
        }
    };
    if new.write(skb, direction, old, ports) {
        Led::On
    } else {
        Led::Broken
    }
}

impl Family for AddressV4 {
    const NUMBER: u32 = 4;

    #[inline(always)]
    fn unmapped(address: AddressV6) -> Self {
        Self(address.0[3])
    }

    #[inline(always)]
    fn write(self, skb: *mut __sk_buff, direction: Direction, old: Self, ports: Ports) -> bool {
        const CHECKSUM: u32 = 10;
        const TCP: u32 = 20;
        // With options the TCP header lies elsewhere.
        if byte(skb, 0) != Some(0x45) {
            return false;
        }
        let (old, new) = (u64::from(old.0), u64::from(self.0));
        let at = match direction {
            Direction::FromPeer => 16,
            Direction::ToPeer => 12,
        };
        let pseudo = u64::from(BPF_F_PSEUDO_HDR) | 4;
        // SAFETY: the helpers check the packet themselves, and the last reads four bytes.
        unsafe {
            bpf_l4_csum_replace(skb, TCP + TCP_CHECKSUM, old, new, pseudo) == 0
                && bpf_l3_csum_replace(skb, CHECKSUM, old, new, 4) == 0
                && bpf_skb_store_bytes(skb, at, (&raw const self.0).cast(), 4, 0) == 0
                && ports.write(skb, direction, TCP)
        }
    }
}

impl Family for AddressV6 {
    const NUMBER: u32 = 6;

    #[inline(always)]
    fn unmapped(address: AddressV6) -> Self {
        address
    }

    #[inline(always)]
    fn write(self, skb: *mut __sk_buff, direction: Direction, old: Self, ports: Ports) -> bool {
        const TCP: u32 = 40;
        // With extension headers the TCP header lies elsewhere.
        if byte(skb, 6) != Some(protocol::TCP) {
            return false;
        }
        let (mut old, mut new) = (old.0, self.0);
        let at = match direction {
            Direction::FromPeer => 24,
            Direction::ToPeer => 8,
        };
        // SAFETY: the helpers read 16 bytes of each, and check the packet themselves.
        unsafe {
            let difference = bpf_csum_diff(old.as_mut_ptr(), 16, new.as_mut_ptr(), 16, 0);
            difference >= 0
                && bpf_l4_csum_replace(
                    skb,
                    TCP + TCP_CHECKSUM,
                    0,
                    difference as u64,
                    u64::from(BPF_F_PSEUDO_HDR),
                ) == 0
                && bpf_skb_store_bytes(skb, at, new.as_ptr().cast(), 16, 0) == 0
                && ports.write(skb, direction, TCP)
        }
    }
}

#[inline(always)]
fn byte(skb: *mut __sk_buff, offset: u32) -> Option<u8> {
    let mut byte = 0_u8;
    // SAFETY: the helper writes one byte or fails.
    let failed = unsafe { bpf_skb_load_bytes(skb.cast(), offset, (&raw mut byte).cast(), 1) };
    if failed == 0 { Some(byte) } else { None }
}
