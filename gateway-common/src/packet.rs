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

/// What kind of packet it is, beyond its addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// TCP, UDP, or a protocol without ports.
    Plain,
    /// ICMP echo request: the identifier is the source port.
    EchoRequest,
    /// ICMP echo reply: the identifier is the destination port.
    EchoReply,
}

/// The TCP flags that matter to a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;

    /// The packet asks for a new connection.
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN
    }

    /// The packet ends a connection, or half of one.
    #[inline(always)]
    pub const fn closes(self) -> bool {
        self.0 & (Self::FIN | Self::RST) != 0
    }
}

/// How a packet is part of a larger datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fragment {
    /// It is the whole datagram.
    Whole,
    /// It is the first fragment: transport header and all.
    First,
    /// It is a later fragment: ports are 0.
    Later,
}

/// A well-formed packet.
///
/// An ICMP error stands for a reply to the packet it quotes: source, destination, ports, protocol
/// and kind are those of such a reply, and `error_from` is who sent the error.
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
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags; none for other protocols.
    pub tcp: TcpFlags,
    /// Echo or not.
    pub kind: Kind,
    /// Part of a datagram, or whole.
    pub fragment: Fragment,
    /// The datagram's identification, where it is fragmented.
    pub fragment_id: u32,
    /// Sender of the ICMP error that this packet stands for.
    ///
    /// Of the packet itself where it is none ([`Packet::is_error`]): to the kernel's verifier, the void
    /// in an `Option` is memory that was never written.
    pub error_from: A,
    /// Whether it stands for an ICMP error.
    pub is_error: bool,
}

impl<A: Copy> Packet<A> {
    /// The flow it belongs to.
    #[inline(always)]
    pub fn flow_key(&self, direction: Direction) -> FlowKey<A> {
        let from_peer = matches!(direction, Direction::FromPeer);
        let (peer, remote, peer_port, remote_port) = if from_peer {
            (self.source, self.destination, self.source_port, self.destination_port)
        } else {
            (self.destination, self.source, self.destination_port, self.source_port)
        };
        let remote_asks = match self.kind {
            Kind::Plain => false,
            Kind::EchoRequest => !from_peer,
            Kind::EchoReply => from_peer,
        };
        FlowKey {
            peer,
            remote,
            peer_port,
            remote_port,
            protocol: self.protocol,
            remote_asks: remote_asks as u8,
            pad: 0,
        }
    }
}
