//! ICMP types (RFC 792, RFC 4443).

use super::transport::Transport;
use crate::packet::Traits;

/// What the gate does with an ICMP type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    EchoRequest,
    EchoReply,
    /// Quotes the packet it is about.
    Error,
    /// Redirects, router and neighbour messages, timestamps: nothing for a routed tunnel.
    Other,
}

/// Length of the header before the quoted packet.
pub(super) const HEADER: u32 = 8;

#[inline(always)]
pub(super) fn classify<A>(number: u8) -> Type {
    if size_of::<A>() == 4 {
        match number {
            8 => Type::EchoRequest,
            0 => Type::EchoReply,
            // Destination unreachable, time exceeded, parameter problem.
            3 | 11 | 12 => Type::Error,
            _ => Type::Other,
        }
    } else {
        match number {
            128 => Type::EchoRequest,
            129 => Type::EchoReply,
            // Destination unreachable, packet too big, time exceeded, parameter problem.
            1..=4 => Type::Error,
            _ => Type::Other,
        }
    }
}

/// The identifier is the port of whoever asks.
#[inline(always)]
pub(super) fn echo(of: Type, protocol: u8, id: u16) -> Transport {
    let traits = Traits::new(protocol, 0);
    if matches!(of, Type::EchoRequest) {
        Transport {
            source_port: id,
            destination_port: 0,
            traits: traits.with(Traits::ECHO_REQUEST),
        }
    } else {
        Transport {
            source_port: 0,
            destination_port: id,
            traits: traits.with(Traits::ECHO_REPLY),
        }
    }
}

/// The error as a reply to what it quotes.
#[inline(always)]
pub(super) fn reply_to(quoted: Transport) -> Transport {
    const ECHO: u32 = Traits::ECHO_REQUEST | Traits::ECHO_REPLY;
    let swapped = if quoted.traits.has(ECHO) {
        quoted.traits.0 ^ ECHO
    } else {
        quoted.traits.0
    };
    Transport {
        source_port: quoted.destination_port,
        destination_port: quoted.source_port,
        traits: Traits(swapped).with(Traits::ERROR),
    }
}
