//! Answers to dropped packets, so that applications fail at once instead of hanging: TCP RST for an
//! opener (RFC 9293, 3.10.7.1), "administratively prohibited" for the rest (RFC 1812, 5.2.7.1 and
//! RFC 4443, 3.1).
//!
//! An answer is built over the headers of the dropped packet, as if its destination had sent it:
//! that address is one that the sender can be answered from, whatever its own filters are.
//!
//! # Checksums
//!
//! A packet towards a peer may come with a checksum that hardware is still to fill in, which the
//! programs cannot see: later, somebody sums from the transport header on, whatever is there, and
//! writes the complement where the *dropped* packet had its checksum. So answers in that direction
//! are built such that their checksum is right before and after: a field that receivers ignore (the
//! window of a RST, the unused word of an ICMPv6 error) is chosen so that filling in changes
//! nothing that matters. (An ICMP checksum, which covers no pseudo-header, is so by itself.)

use crate::{
    abi::{Address, CAPTIVE_PORT, Direction},
    packet::{Packet, Traits, protocol},
    verdict::Reason,
};

/// What a dropped packet is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Answer {
    /// TCP RST.
    Reset,
    /// ICMP or ICMPv6 "administratively prohibited".
    Prohibited,
}

/// Words at the front of the dropped packet that an answer is made of: header and eight bytes.
pub const QUOTED_V4: usize = 7;
/// Likewise for IPv6.
pub const QUOTED_V6: usize = 12;

const TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;
const RST_ACK: u16 = 5 << 12 | 0x14;

/// Whether the packet itself was in order, and of a known peer.
#[inline(always)]
fn by_policy(reason: Reason) -> bool {
    by_session(reason)
        || matches!(
            reason,
            Reason::NoRule | Reason::Unsolicited | Reason::Denied
        )
}

/// Whether a login would help.
#[inline(always)]
const fn by_session(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Locked | Reason::Expired | Reason::Idle | Reason::LevelTooLow | Reason::NotFresh
    )
}

/// Whether a packet that was dropped for this reason may be plain HTTP that is led to the portal, or
/// the portal's answer.
#[inline(always)]
pub fn may_be_led<A: Address>(direction: Direction, packet: &Packet<A>, reason: Reason) -> bool {
    if !packet.is_plain() || packet.traits.protocol() != protocol::TCP {
        return false;
    }
    match direction {
        Direction::FromPeer => {
            packet.destination_port == CAPTIVE_PORT
                && by_session(reason)
                && !packet.destination.is_martian()
        }
        Direction::ToPeer => by_policy(reason),
    }
}

/// Whether and how a packet that was dropped for this reason is answered.
///
/// Never: errors, fragments, answers, RSTs and whatever else is no opener of TCP, packets that do not
/// parse, of unknown peers, or whose addresses no honest host has.
#[inline(always)]
pub fn answer<A: Address>(
    direction: Direction,
    packet: &Packet<A>,
    reason: Reason,
) -> Option<Answer> {
    if !by_policy(reason)
        || packet.traits.has(
            Traits::FIRST_FRAGMENT | Traits::LATER_FRAGMENT | Traits::ERROR | Traits::ECHO_REPLY,
        )
        || packet.source.is_martian()
        || packet.destination.is_martian()
    {
        return None;
    }
    let traits = packet.traits;
    match traits.protocol() {
        protocol::TCP => {
            if traits.opens() && !traits.closes() {
                Some(Answer::Reset)
            } else {
                None
            }
        }
        protocol::UDP => Some(Answer::Prohibited),
        _ if traits.has(Traits::ECHO_REQUEST) => Some(Answer::Prohibited),
        // Towards a peer a checksum may be outstanding anywhere in other protocols. From a peer,
        // decryption has left none.
        _ => match direction {
            Direction::FromPeer => Some(Answer::Prohibited),
            Direction::ToPeer => None,
        },
    }
}

/// Whether these are the words of a packet whose transport header follows the IP header at once:
/// others are not answered.
#[inline(always)]
pub fn is_plain_v4(packet: &[u32; QUOTED_V4]) -> bool {
    packet[0].to_ne_bytes()[0] == 0x45
}

/// Likewise for IPv6, given the transport protocol that the parser found.
#[inline(always)]
pub fn is_plain_v6(packet: &[u32; QUOTED_V6], protocol: u8) -> bool {
    packet[1].to_ne_bytes()[2] == protocol
}

/// The RST for a TCP opener over IPv4.
#[inline(always)]
pub fn reset_v4(packet: &[u32; QUOTED_V4]) -> [u32; 10] {
    let [_, _, _, source, destination, ports, sequence] = *packet;
    let header = header_v4(40, protocol::TCP, destination, source);
    let pseudo = u64::from(source) + u64::from(destination) + pseudo_tail(protocol::TCP, 20);
    let tcp = reset(ports, sequence, pseudo);
    let mut answer = [0; 10];
    let mut i = 0;
    while i < 5 {
        answer[i] = header[i];
        answer[i + 5] = tcp[i];
        i += 1;
    }
    answer
}

/// The RST for a TCP opener over IPv6.
#[inline(always)]
pub fn reset_v6(packet: &[u32; QUOTED_V6]) -> [u32; 15] {
    let header = header_v6(packet, 20, protocol::TCP);
    let tcp = reset(packet[10], packet[11], pseudo_v6(packet, protocol::TCP, 20));
    let mut answer = [0; 15];
    let mut i = 0;
    while i < 10 {
        answer[i] = header[i];
        i += 1;
    }
    let mut i = 0;
    while i < 5 {
        answer[i + 10] = tcp[i];
        i += 1;
    }
    answer
}

/// ICMP destination unreachable, code 13, quoting the packet.
#[inline(always)]
pub fn prohibited_v4(packet: &[u32; QUOTED_V4]) -> [u32; 14] {
    let header = header_v4(56, protocol::ICMP, packet[4], packet[3]);
    let kind = halves(3 << 8 | 13, 0);
    let sum = u64::from(kind) + sum(packet);
    let mut answer = [0; 14];
    let mut i = 0;
    while i < 5 {
        answer[i] = header[i];
        i += 1;
    }
    answer[5] = with_checksum(kind, !fold(sum));
    let mut i = 0;
    while i < QUOTED_V4 {
        answer[i + 7] = packet[i];
        i += 1;
    }
    answer
}

/// ICMPv6 destination unreachable, code 1, quoting the packet.
#[inline(always)]
pub fn prohibited_v6(packet: &[u32; QUOTED_V6], direction: Direction) -> [u32; 24] {
    const LENGTH: u16 = 8 + 4 * QUOTED_V6 as u16;
    let header = header_v6(packet, LENGTH, protocol::ICMPV6);
    let kind = halves(1 << 8 | 1, 0);
    let pseudo = pseudo_v6(packet, protocol::ICMPV6, LENGTH);
    // See the module about checksums: X = P and C = ~(S + 2P).
    let unused = match direction {
        Direction::FromPeer => 0,
        Direction::ToPeer => fold(pseudo),
    };
    let sum = u64::from(kind) + sum(packet) + pseudo + u64::from(unused);
    let mut answer = [0; 24];
    let mut i = 0;
    while i < 10 {
        answer[i] = header[i];
        i += 1;
    }
    answer[10] = with_checksum(kind, !fold(sum));
    answer[11] = native_halves(0, unused);
    let mut i = 0;
    while i < QUOTED_V6 {
        answer[i + 12] = packet[i];
        i += 1;
    }
    answer
}

#[inline(always)]
fn header_v4(length: u16, protocol: u8, source: u32, destination: u32) -> [u32; 5] {
    let first = halves(0x4500, length);
    let second = halves(0, DONT_FRAGMENT);
    let third = halves((TTL as u16) << 8 | protocol as u16, 0);
    let sum = u64::from(first)
        + u64::from(second)
        + u64::from(third)
        + u64::from(source)
        + u64::from(destination);
    [
        first,
        second,
        with_checksum(third, !fold(sum)),
        source,
        destination,
    ]
}

#[inline(always)]
fn header_v6(packet: &[u32; QUOTED_V6], length: u16, protocol: u8) -> [u32; 10] {
    [
        halves(0x6000, 0),
        halves(length, (protocol as u16) << 8 | TTL as u16),
        packet[6],
        packet[7],
        packet[8],
        packet[9],
        packet[2],
        packet[3],
        packet[4],
        packet[5],
    ]
}

/// RFC 9293: to a segment without ACK, sequence number 0 and an acknowledgement of the SYN.
#[inline(always)]
fn reset(ports: u32, sequence: u32, pseudo: u64) -> [u32; 5] {
    let acknowledgement = u32::from_be(sequence).wrapping_add(1).to_be();
    let swapped = ports.rotate_left(16);
    let flags = halves(RST_ACK, 0);
    // See the module about checksums: F = P and W = ~(S + 2P).
    let checksum = fold(pseudo);
    let sum = u64::from(swapped)
        + u64::from(acknowledgement)
        + u64::from(flags)
        + 2 * u64::from(checksum);
    [
        swapped,
        0,
        acknowledgement,
        with_checksum(flags, !fold(sum)),
        native_halves(checksum, 0),
    ]
}

#[inline(always)]
fn pseudo_v6(packet: &[u32; QUOTED_V6], protocol: u8, length: u16) -> u64 {
    let mut sum = pseudo_tail(protocol, length);
    let mut i = 2;
    while i < 10 {
        sum += u64::from(packet[i]);
        i += 1;
    }
    sum
}

#[inline(always)]
fn pseudo_tail(protocol: u8, length: u16) -> u64 {
    u64::from(u16::from(protocol).to_be()) + u64::from(length.to_be())
}

#[inline(always)]
fn sum<const N: usize>(words: &[u32; N]) -> u64 {
    let mut sum = 0;
    let mut i = 0;
    while i < N {
        sum += u64::from(words[i]);
        i += 1;
    }
    sum
}

/// Two numbers in network order as the word that they are in memory.
#[inline(always)]
const fn halves(first: u16, second: u16) -> u32 {
    ((first as u32) << 16 | second as u32).to_be()
}

/// Two halves that are in the order of memory already.
#[inline(always)]
const fn native_halves(first: u16, second: u16) -> u32 {
    let (first, second) = (first.to_ne_bytes(), second.to_ne_bytes());
    u32::from_ne_bytes([first[0], first[1], second[0], second[1]])
}

/// The word with this as its second half, which was zero.
#[inline(always)]
const fn with_checksum(word: u32, checksum: u16) -> u32 {
    word | native_halves(0, checksum)
}

/// RFC 1071: the sum of words as one of 16 bits, in the order of memory.
#[inline(always)]
const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16 & 0xffff) + (sum >> 32) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

#[cfg(test)]
mod tests;
