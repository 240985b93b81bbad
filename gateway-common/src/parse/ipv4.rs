//! IPv4 (RFC 791).

use super::{
    Bytes, byte, half, icmp,
    transport::{self, Payload, Transport},
};
use crate::{
    abi::AddressV4,
    packet::{Fragment, Packet, protocol},
    verdict::Reason,
};

const HEADER: u32 = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Parses an IPv4 packet.
#[inline(always)]
pub fn parse<B: Bytes>(bytes: &B) -> Result<Packet<AddressV4>, Reason> {
    let header = bytes.near::<5>(0).ok_or(Reason::Truncated)?;
    let header_length = u32::from(byte(header[0], 0) & 0xf) * 4;
    let end = u32::from(half(header[0], 1));
    if byte(header[0], 0) >> 4 != 4 || header_length < HEADER || end < header_length {
        return Err(Reason::BadHeader);
    }
    if end > bytes.len() {
        return Err(Reason::Truncated);
    }
    let protocol = byte(header[2], 1);
    let fragment = fragment(half(header[1], 1), end - header_length)?;
    if header_length == HEADER && matches!(fragment, Fragment::Whole) {
        let payload = transport::parse::<B, AddressV4, true>(bytes, HEADER, end, protocol)?;
        return finish(bytes, &header, HEADER, end, protocol, fragment, payload);
    }
    if header_length != HEADER {
        options(bytes, header_length)?;
    }
    let payload = if matches!(fragment, Fragment::Later) {
        Payload::Transport(Transport::NONE)
    } else {
        match transport::parse::<B, AddressV4, false>(bytes, header_length, end, protocol) {
            // RFC 1858: a first fragment too short for its header evades filters that go by it.
            Err(Reason::Truncated) if matches!(fragment, Fragment::First) => return Err(Reason::TinyFragment),
            payload => payload?,
        }
    };
    finish(bytes, &header, header_length, end, protocol, fragment, payload)
}

#[inline(always)]
fn finish<B: Bytes>(
    bytes: &B,
    header: &[u32; 5],
    header_length: u32,
    end: u32,
    protocol: u8,
    fragment: Fragment,
    payload: Payload,
) -> Result<Packet<AddressV4>, Reason> {
    let [_, id, _, source, destination] = *header;
    let transport = match payload {
        Payload::Transport(transport) => transport,
        Payload::IcmpError => {
            // RFC 1812 section 4.3.2.7 keeps errors far below any MTU.
            if !matches!(fragment, Fragment::Whole) {
                return Err(Reason::IcmpErrorWithoutFlow);
            }
            return quoting(bytes, header_length + icmp::HEADER, end, AddressV4(source), AddressV4(destination));
        }
    };
    Ok(Packet {
        source: AddressV4(source),
        destination: AddressV4(destination),
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        protocol,
        tcp: transport.tcp,
        kind: transport.kind,
        fragment,
        fragment_id: u32::from(half(id, 0)),
        error_from: AddressV4(source),
        is_error: false,
    })
}

/// The flags and offset word, for a payload of this many bytes.
#[inline(always)]
fn fragment(word: u16, payload: u32) -> Result<Fragment, Reason> {
    let offset = u32::from(word & OFFSET) * 8;
    let more = word & MORE_FRAGMENTS != 0;
    super::fragment(offset, more, payload)
}

/// Walks the options: source routing and nonsense are dropped, the rest is left to the hosts.
#[inline(always)]
fn options<B: Bytes>(bytes: &B, header_length: u32) -> Result<(), Reason> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const LSRR: u8 = 131;
    const SSRR: u8 = 137;
    const LONGEST: u32 = 40;

    let mut at = HEADER;
    for _ in 0..LONGEST {
        if at >= header_length {
            break;
        }
        let kind = option_byte(bytes, at)?;
        match kind {
            END => break,
            NOP => at += 1,
            LSRR | SSRR => return Err(Reason::SourceRoute),
            _ => {
                if at + 1 >= header_length {
                    return Err(Reason::BadOptions);
                }
                let length = u32::from(option_byte(bytes, at + 1)?);
                if length < 2 || at + length > header_length {
                    return Err(Reason::BadOptions);
                }
                at += length;
            }
        }
    }
    Ok(())
}

#[inline(always)]
fn option_byte<B: Bytes>(bytes: &B, at: u32) -> Result<u8, Reason> {
    let [word] = bytes.far::<1>(at & !3).ok_or(Reason::Truncated)?;
    let [a, b, c, d] = word.to_ne_bytes();
    // A match, since the kernel's verifier wants no variable index into the stack.
    Ok(match at & 3 {
        0 => a,
        1 => b,
        2 => c,
        _ => d,
    })
}

/// The packet that an ICMP error stands for: a reply to the one quoted at `at`.
#[inline(always)]
fn quoting<B: Bytes>(
    bytes: &B,
    at: u32,
    end: u32,
    error_from: AddressV4,
    error_to: AddressV4,
) -> Result<Packet<AddressV4>, Reason> {
    if at + HEADER > end {
        return Err(Reason::Truncated);
    }
    let [first, fragment, time_protocol, source, destination] = bytes.far::<5>(at).ok_or(Reason::Truncated)?;
    let header_length = u32::from(byte(first, 0) & 0xf) * 4;
    if byte(first, 0) >> 4 != 4 || header_length < HEADER {
        return Err(Reason::BadHeader);
    }
    // An error goes to whoever sent the quoted packet, and only a first fragment names its flow.
    if AddressV4(source) != error_to || half(fragment, 1) & OFFSET != 0 {
        return Err(Reason::IcmpErrorWithoutFlow);
    }
    let offset = at + header_length;
    if offset + icmp::HEADER > end {
        return Err(Reason::Truncated);
    }
    let protocol = byte(time_protocol, 1);
    if protocol == protocol::ICMPV6 {
        return Err(Reason::IcmpErrorWithoutFlow);
    }
    let transport = icmp::reply_to(transport::quoted::<B, AddressV4>(bytes, offset, protocol)?);
    Ok(Packet {
        source: AddressV4(destination),
        destination: AddressV4(source),
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        protocol,
        tcp: transport.tcp,
        kind: transport.kind,
        fragment: Fragment::Whole,
        fragment_id: 0,
        error_from,
        is_error: true,
    })
}
