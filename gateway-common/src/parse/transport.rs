//! Transport headers.

use super::{Bytes, byte, half, icmp};
use crate::{
    abi::Address,
    packet::{Traits, protocol},
    verdict::Reason,
};

/// What a transport header says.
#[derive(Clone, Copy)]
pub(super) struct Transport {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) traits: Traits,
}

impl Transport {
    /// Of a protocol without ports, or a later fragment.
    #[inline(always)]
    pub(super) const fn without_ports(protocol: u8) -> Self {
        Self {
            source_port: 0,
            destination_port: 0,
            traits: Traits::new(protocol, 0),
        }
    }
}

/// A transport header, or the ICMP error that begins at this offset.
pub(super) enum Payload {
    Transport(Transport),
    IcmpError,
}

/// Shortest TCP header, in bytes; later fragments must not reach into it.
pub(super) const TCP_HEADER: u32 = 20;
const SHORT_HEADER: u32 = 8;

/// Reads the header at `offset` of a packet whose IP length is `end`. `NEAR` says that `offset` is
/// a constant of the caller.
#[inline(always)]
pub(super) fn parse<B: Bytes, A: Address, const NEAR: bool>(
    bytes: &B,
    offset: u32,
    end: u32,
    protocol: u8,
) -> Result<Payload, Reason> {
    let room = end.saturating_sub(offset);
    match protocol {
        protocol::TCP => {
            if room < TCP_HEADER {
                return Err(Reason::Truncated);
            }
            let [ports, _, _, flags] = words::<B, NEAR, 4>(bytes, offset)?;
            let header = u32::from(byte(flags, 0) >> 4) * 4;
            if header < TCP_HEADER || header > room {
                return Err(Reason::BadHeader);
            }
            Ok(Payload::Transport(with_ports(
                ports,
                Traits::new(protocol, byte(flags, 1)),
            )))
        }
        protocol::UDP => {
            if room < SHORT_HEADER {
                return Err(Reason::Truncated);
            }
            let [ports, length] = words::<B, NEAR, 2>(bytes, offset)?;
            // 0 is a jumbogram's or an offloaded super-packet's; the sum of fragments is more than `room`.
            let length = half(length, 0);
            if length != 0 && u32::from(length) < SHORT_HEADER {
                return Err(Reason::BadHeader);
            }
            Ok(Payload::Transport(with_ports(
                ports,
                Traits::new(protocol, 0),
            )))
        }
        protocol::ICMP | protocol::ICMPV6 => {
            if (protocol == protocol::ICMP) != (size_of::<A>() == 4) {
                // ICMP of the other family.
                return Err(Reason::IcmpType);
            }
            if room < SHORT_HEADER {
                return Err(Reason::Truncated);
            }
            let [kind, id] = words::<B, NEAR, 2>(bytes, offset)?;
            match icmp::classify::<A>(byte(kind, 0)) {
                icmp::Type::Error => Ok(Payload::IcmpError),
                icmp::Type::Other => Err(Reason::IcmpType),
                echo => Ok(Payload::Transport(icmp::echo(echo, protocol, half(id, 0)))),
            }
        }
        _ => Ok(Payload::Transport(Transport::without_ports(protocol))),
    }
}

/// Reads what an ICMP error quotes of a transport header: eight bytes are enough for a flow.
#[inline(always)]
pub(super) fn quoted<B: Bytes, A: Address>(
    bytes: &B,
    offset: u32,
    protocol: u8,
) -> Result<Transport, Reason> {
    match protocol {
        protocol::TCP | protocol::UDP => {
            let [ports] = bytes.far::<1>(offset).ok_or(Reason::Truncated)?;
            Ok(with_ports(ports, Traits::new(protocol, 0)))
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let [kind, id] = bytes.far::<2>(offset).ok_or(Reason::Truncated)?;
            match icmp::classify::<A>(byte(kind, 0)) {
                // RFC 1122 section 3.2.2: no error about an error.
                icmp::Type::Error | icmp::Type::Other => Err(Reason::IcmpErrorWithoutFlow),
                echo => Ok(icmp::echo(echo, protocol, half(id, 0))),
            }
        }
        _ => Ok(Transport::without_ports(protocol)),
    }
}

#[inline(always)]
fn with_ports(ports: u32, traits: Traits) -> Transport {
    Transport {
        source_port: half(ports, 0),
        destination_port: half(ports, 1),
        traits,
    }
}

#[inline(always)]
fn words<B: Bytes, const NEAR: bool, const N: usize>(
    bytes: &B,
    offset: u32,
) -> Result<[u32; N], Reason> {
    if NEAR {
        bytes.near(offset)
    } else {
        bytes.far(offset)
    }
    .ok_or(Reason::Truncated)
}
