//! IPv4 (RFC 791).

use super::{
    Bytes, Fragment, byte, half, icmp,
    transport::{self, Payload, Transport},
};
use crate::{
    abi::AddressV4,
    packet::{Packet, protocol},
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
        return finish(bytes, &header, HEADER, end, fragment, payload);
    }
    if header_length != HEADER {
        options(bytes, header_length)?;
    }
    let payload = if matches!(fragment, Fragment::Later) {
        Payload::Transport(Transport::without_ports(protocol))
    } else {
        match transport::parse::<B, AddressV4, false>(bytes, header_length, end, protocol) {
            // RFC 1858: a first fragment too short for its header evades filters that go by it.
            Err(Reason::Truncated) if matches!(fragment, Fragment::First) => {
                return Err(Reason::TinyFragment);
            }
            payload => payload?,
        }
    };
    finish(bytes, &header, header_length, end, fragment, payload)
}

#[inline(always)]
fn finish<B: Bytes>(
    bytes: &B,
    header: &[u32; 5],
    header_length: u32,
    end: u32,
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
            return quoting(
                bytes,
                header_length + icmp::HEADER,
                end,
                AddressV4(source),
                AddressV4(destination),
            );
        }
    };
    Ok(Packet {
        source: AddressV4(source),
        destination: AddressV4(destination),
        source_port: transport.source_port,
        destination_port: transport.destination_port,
        traits: fragment.mark(transport.traits),
        fragment_id: u32::from(half(id, 0)),
        sender: AddressV4(source),
    })
}

/// The flags and offset word, for a payload of this many bytes.
#[inline(always)]
fn fragment(word: u16, payload: u32) -> Result<Fragment, Reason> {
    let offset = u32::from(word & OFFSET) * 8;
    let more = word & MORE_FRAGMENTS != 0;
    super::fragment(offset, more, payload)
}

/// Walks the options: source routing and nonsense are dropped, so are more of them than anyone
/// sends; the rest is left to the hosts.
#[inline(always)]
fn options<B: Bytes>(bytes: &B, header_length: u32) -> Result<(), Reason> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const LSRR: u8 = 131;
    const SSRR: u8 = 137;
    /// Options and no-ops; honest packets have a few.
    const MOST: u32 = 12;

    let mut at = HEADER;
    for _ in 0..MOST {
        if at >= header_length {
            return Ok(());
        }
        let kind = option_byte(bytes, at)?;
        match kind {
            END => return Ok(()),
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
    if at < header_length {
        Err(Reason::BadOptions)
    } else {
        Ok(())
    }
}

#[inline(always)]
fn option_byte<B: Bytes>(bytes: &B, at: u32) -> Result<u8, Reason> {
    let [word] = bytes.far::<1>(at & !3).ok_or(Reason::Truncated)?;
    // A shift, since the kernel's verifier wants neither a variable index into the stack nor four ways
    // to go on from here.
    Ok((u32::from_le(word) >> (8 * (at & 3))) as u8)
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
    let [first, fragment, time_protocol, source, destination] =
        bytes.far::<5>(at).ok_or(Reason::Truncated)?;
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
        traits: transport.traits,
        fragment_id: 0,
        sender: error_from,
    })
}
