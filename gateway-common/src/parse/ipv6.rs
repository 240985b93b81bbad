//! IPv6 (RFC 8200).

use super::{
    Bytes, Fragment, byte, half, icmp,
    transport::{self, Payload, Transport},
};
use crate::{
    abi::AddressV6,
    packet::{Packet, protocol},
    verdict::Reason,
};

const HEADER: u32 = 40;
/// More extension headers than this in one packet have no honest use (RFC 8504 section 5.3 lets a
/// node set such a limit).
const MOST_EXTENSIONS: u32 = 4;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Parses an IPv6 packet.
#[inline(always)]
pub fn parse<B: Bytes>(bytes: &B) -> Result<Packet<AddressV6>, Reason> {
    let [first, lengths, s0, s1, s2, s3, d0, d1, d2, d3] =
        bytes.near::<10>(0).ok_or(Reason::Truncated)?;
    if byte(first, 0) >> 4 != 6 {
        return Err(Reason::BadHeader);
    }
    let source = AddressV6([s0, s1, s2, s3]);
    let destination = AddressV6([d0, d1, d2, d3]);
    let end = HEADER + u32::from(half(lengths, 0));
    if end > bytes.len() {
        return Err(Reason::Truncated);
    }
    let next = byte(lengths, 2);
    if !is_extension(next) {
        let payload = transport::parse::<B, AddressV6, true>(bytes, HEADER, end, next)?;
        let chain = Chain {
            protocol: next,
            offset: HEADER,
            fragment: Fragment::Whole,
            id: 0,
        };
        return finish(bytes, source, destination, end, &chain, payload);
    }
    let chain = walk(bytes, HEADER, end, next)?;
    let payload = if matches!(chain.fragment, Fragment::Later) {
        Payload::Transport(Transport::without_ports(chain.protocol))
    } else {
        match transport::parse::<B, AddressV6, false>(bytes, chain.offset, end, chain.protocol) {
            // RFC 7112: the first fragment holds the whole header chain.
            Err(Reason::Truncated) if matches!(chain.fragment, Fragment::First) => {
                return Err(Reason::TinyFragment);
            }
            payload => payload?,
        }
    };
    finish(bytes, source, destination, end, &chain, payload)
}

/// Where the extension headers lead.
struct Chain {
    protocol: u8,
    offset: u32,
    fragment: Fragment,
    id: u32,
}

#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

/// Walks the extension headers that begin at `offset`.
#[inline(always)]
fn walk<B: Bytes>(bytes: &B, offset: u32, end: u32, next: u8) -> Result<Chain, Reason> {
    let mut chain = Chain {
        protocol: next,
        offset,
        fragment: Fragment::Whole,
        id: 0,
    };
    let mut fragmented = false;
    for i in 0..MOST_EXTENSIONS {
        if !is_extension(chain.protocol) {
            return Ok(chain);
        }
        if chain.offset + 8 > end {
            return Err(if fragmented {
                Reason::TinyFragment
            } else {
                Reason::Truncated
            });
        }
        let [first, second] = bytes.far::<2>(chain.offset).ok_or(Reason::Truncated)?;
        let next = byte(first, 0);
        match chain.protocol {
            FRAGMENT => {
                if fragmented {
                    return Err(Reason::ExtensionHeaders);
                }
                fragmented = true;
                let word = half(first, 1);
                chain.offset += 8;
                chain.fragment =
                    super::fragment(u32::from(word & !7), word & 1 != 0, end - chain.offset)?;
                chain.id = second;
                if matches!(chain.fragment, Fragment::Later) {
                    chain.protocol = next;
                    return Ok(chain);
                }
                // They would put the transport header where a later fragment may begin.
                if matches!(chain.fragment, Fragment::First) && is_extension(next) {
                    return Err(Reason::ExtensionHeaders);
                }
            }
            header => {
                if header == HOP_BY_HOP && i != 0 {
                    return Err(Reason::ExtensionHeaders);
                }
                if header == ROUTING && byte(first, 3) != 0 {
                    return Err(Reason::SourceRoute);
                }
                chain.offset += (u32::from(byte(first, 1)) + 1) * 8;
                if chain.offset > end {
                    return Err(if fragmented {
                        Reason::TinyFragment
                    } else {
                        Reason::Truncated
                    });
                }
            }
        }
        chain.protocol = next;
    }
    if is_extension(chain.protocol) {
        return Err(Reason::ExtensionHeaders);
    }
    Ok(chain)
}

#[inline(always)]
fn finish<B: Bytes>(
    bytes: &B,
    source: AddressV6,
    destination: AddressV6,
    end: u32,
    chain: &Chain,
    payload: Payload,
) -> Result<Packet<AddressV6>, Reason> {
    let transport = match payload {
        Payload::Transport(transport) => transport,
        Payload::IcmpError => {
            // RFC 4443 section 2.4 (c) keeps errors within the minimum MTU.
            if !matches!(chain.fragment, Fragment::Whole) {
                return Err(Reason::IcmpErrorWithoutFlow);
            }
            return quoting(bytes, chain.offset + icmp::HEADER, end, source, destination);
        }
    };
    Ok(Packet {
        source,
        destination,
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        traits: chain.fragment.mark(transport.traits),
        fragment_id: chain.id,
        sender: source,
    })
}

/// The packet that an ICMP error stands for: a reply to the one quoted at `at`. A quoted packet
/// with extension headers other than one fragment header belongs to no flow that is told apart.
#[inline(always)]
fn quoting<B: Bytes>(
    bytes: &B,
    at: u32,
    end: u32,
    error_from: AddressV6,
    error_to: AddressV6,
) -> Result<Packet<AddressV6>, Reason> {
    if at + HEADER > end {
        return Err(Reason::Truncated);
    }
    let [first, lengths] = bytes.far::<2>(at).ok_or(Reason::Truncated)?;
    let source = AddressV6(bytes.far::<4>(at + 8).ok_or(Reason::Truncated)?);
    let destination = AddressV6(bytes.far::<4>(at + 24).ok_or(Reason::Truncated)?);
    if byte(first, 0) >> 4 != 6 {
        return Err(Reason::BadHeader);
    }
    if source != error_to {
        return Err(Reason::IcmpErrorWithoutFlow);
    }
    let mut protocol = byte(lengths, 2);
    let mut offset = at + HEADER;
    if protocol == FRAGMENT {
        if offset + 8 > end {
            return Err(Reason::Truncated);
        }
        let [fragment] = bytes.far::<1>(offset).ok_or(Reason::Truncated)?;
        if half(fragment, 1) & !7 != 0 {
            return Err(Reason::IcmpErrorWithoutFlow);
        }
        protocol = byte(fragment, 0);
        offset += 8;
    }
    if is_extension(protocol) || protocol == protocol::ICMP {
        return Err(Reason::IcmpErrorWithoutFlow);
    }
    if offset + icmp::HEADER > end {
        return Err(Reason::Truncated);
    }
    let transport = icmp::reply_to(transport::quoted::<B, AddressV6>(bytes, offset, protocol)?);
    Ok(Packet {
        source: destination,
        destination: source,
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        traits: transport.traits,
        fragment_id: 0,
        sender: error_from,
    })
}
