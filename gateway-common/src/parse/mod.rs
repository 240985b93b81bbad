//! From bytes to [`Packet`]: pure, bounded, and without a panic for any input.
//!
//! Bytes are read in words, because that is how the kernel side gets them out of a packet with one
//! bounds check each, and every IP header is a whole number of words long.

mod icmp;
mod ipv4;
mod ipv6;
mod transport;

pub use ipv4::parse as ipv4;
pub use ipv6::parse as ipv6;

use crate::{packet::Traits, verdict::Reason};

/// Access to a packet that begins with its IP header.
pub trait Bytes {
    /// Length of the packet.
    fn len(&self) -> u32;

    /// `N` words at a constant `offset` near the front, as they lie in memory; `None` past the end.
    fn near<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;

    /// `N` words at any offset: as [`Bytes::near`], but slower where the packet is the kernel's.
    fn far<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;

    /// Whether there is nothing at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Version nibble of the packet.
#[inline(always)]
pub fn version<B: Bytes>(bytes: &B) -> Result<u8, Reason> {
    let [first] = bytes.near::<1>(0).ok_or(Reason::Truncated)?;
    Ok(byte(first, 0) >> 4)
}

/// A packet in memory.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a>(pub &'a [u8]);

impl Bytes for Slice<'_> {
    fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    fn near<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.far(offset)
    }

    fn far<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let start = usize::try_from(offset).ok()?;
        let bytes = self.0.get(start..start.checked_add(4 * N)?)?;
        let mut words = [0; N];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        }
        Some(words)
    }
}

/// Byte `i` of a word, in the order of the wire.
#[inline(always)]
pub(crate) const fn byte(word: u32, i: usize) -> u8 {
    word.to_ne_bytes()[i]
}

/// The first (`i` = 0) or second 16-bit number of a word.
#[inline(always)]
pub(crate) const fn half(word: u32, i: usize) -> u16 {
    let bytes = word.to_ne_bytes();
    u16::from_be_bytes([bytes[2 * i], bytes[2 * i + 1]])
}

/// How a packet is part of a larger datagram.
#[derive(Clone, Copy)]
enum Fragment {
    Whole,
    First,
    Later,
}

impl Fragment {
    #[inline(always)]
    const fn mark(self, traits: Traits) -> Traits {
        match self {
            Self::Whole => traits,
            Self::First => traits.with(Traits::FIRST_FRAGMENT),
            Self::Later => traits.with(Traits::LATER_FRAGMENT),
        }
    }
}

/// Bytes of a datagram's payload that no later fragment may begin in: they hold the TCP header, and
/// no link has so small an MTU (RFC 791 asks for 68 bytes) that an honest fragment would end there.
const FIRST_FRAGMENT: u32 = 24;
const LONGEST_DATAGRAM: u32 = 65_535;

/// How a packet with this offset and more-fragments flag is part of its datagram.
#[inline(always)]
fn fragment(offset: u32, more: bool, payload: u32) -> Result<Fragment, Reason> {
    if offset == 0 && !more {
        return Ok(Fragment::Whole);
    }
    // All but the last are whole multiples of eight, none is empty, and the sum has its limit.
    if payload == 0 || (more && !payload.is_multiple_of(8)) || offset + payload > LONGEST_DATAGRAM {
        return Err(Reason::BadFragment);
    }
    if offset == 0 {
        Ok(Fragment::First)
    } else if offset < FIRST_FRAGMENT {
        Err(Reason::FragmentOverlap)
    } else {
        Ok(Fragment::Later)
    }
}
