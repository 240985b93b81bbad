//! ICMP types (RFC 792, RFC 4443).

use super::transport::Transport;
use crate::packet::Kind;

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
pub(super) fn echo(of: Type, id: u16) -> Transport {
    if matches!(of, Type::EchoRequest) {
        Transport { source_port: id, kind: Kind::EchoRequest, ..Transport::NONE }
    } else {
        Transport { destination_port: id, kind: Kind::EchoReply, ..Transport::NONE }
    }
}

/// The reply to what was quoted.
#[inline(always)]
pub(super) fn reply_to(quoted: Transport) -> Transport {
    Transport {
        source_port: quoted.destination_port,
        destination_port: quoted.source_port,
        tcp: quoted.tcp,
        kind: match quoted.kind {
            Kind::Plain => Kind::Plain,
            Kind::EchoRequest => Kind::EchoReply,
            Kind::EchoReply => Kind::EchoRequest,
        },
    }
}
