//! A packet as the decision sees it.

use crate::abi::{Direction, FlowKey};

/// IP protocol numbers that the decision tells apart.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
}

/// What kind of packet it is, in one word: the kernel's verifier then has one unknown to follow, not
/// the product of all fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits(pub u32);

impl Traits {
    /// ICMP echo request: the identifier is the source port.
    pub const ECHO_REQUEST: u32 = 1 << 16;
    /// ICMP echo reply: the identifier is the destination port.
    pub const ECHO_REPLY: u32 = 1 << 17;
    /// The first fragment of a datagram, transport header and all.
    pub const FIRST_FRAGMENT: u32 = 1 << 18;
    /// A later fragment: ports are 0.
    pub const LATER_FRAGMENT: u32 = 1 << 19;
    /// Stands for an ICMP error.
    pub const ERROR: u32 = 1 << 20;

    const FIN: u32 = 1 << 8;
    const SYN: u32 = 2 << 8;
    const RST: u32 = 4 << 8;
    const ACK: u32 = 16 << 8;

    /// A whole packet of this protocol, with these TCP flags.
    #[inline(always)]
    pub const fn new(protocol: u8, tcp_flags: u8) -> Self {
        Self(protocol as u32 | (tcp_flags as u32) << 8)
    }

    /// The same and this.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, bit: u32) -> Self {
        Self(self.0 | bit)
    }

    /// Whether this is among them.
    #[inline(always)]
    pub const fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    /// IP protocol number.
    #[inline(always)]
    pub const fn protocol(self) -> u8 {
        self.0 as u8
    }

    /// TCP: the packet asks for a new connection.
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }

    /// TCP: the packet ends a connection, or half of one.
    #[inline(always)]
    pub const fn closes(self) -> bool {
        self.0 & (Self::FIN | Self::RST) != 0
    }
}

/// A well-formed packet.
///
/// An ICMP error stands for a reply to the packet it quotes: source, destination, ports and traits are
/// those of such a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port in host order; 0 where there is none.
    pub source_port: u16,
    /// Destination port in host order; 0 where there is none.
    pub destination_port: u16,
    /// Protocol, and what else is special about it.
    pub traits: Traits,
    /// The datagram's identification, where it is fragmented.
    pub fragment_id: u32,
    /// Who sent it: the source, or the sender of the ICMP error that this packet stands for.
    pub sender: A,
}

impl<A: Copy> Packet<A> {
    /// Whether it is a whole datagram that stands for itself: no fragment, no ICMP error.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        let special = Traits::FIRST_FRAGMENT | Traits::LATER_FRAGMENT | Traits::ERROR;
        !self.traits.has(special)
    }

    /// The flow it belongs to.
    #[inline(always)]
    pub fn flow_key(&self, direction: Direction) -> FlowKey<A> {
        let from_peer = matches!(direction, Direction::FromPeer);
        let (peer, remote, peer_port, remote_port) = if from_peer {
            (
                self.source,
                self.destination,
                self.source_port,
                self.destination_port,
            )
        } else {
            (
                self.destination,
                self.source,
                self.destination_port,
                self.source_port,
            )
        };
        let asking = if from_peer {
            Traits::ECHO_REPLY
        } else {
            Traits::ECHO_REQUEST
        };
        FlowKey {
            peer,
            remote,
            peer_port,
            remote_port,
            protocol: self.traits.protocol(),
            remote_asks: self.traits.has(asking) as u8,
            pad: 0,
        }
    }
}
