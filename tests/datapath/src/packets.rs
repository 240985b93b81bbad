//! Builds packets byte by byte, the well-formed and the other kind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol and extension header numbers.
pub mod number {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// GRE, as a protocol without ports.
    pub const GRE: u8 = 47;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
}

/// TCP flags.
pub mod flag {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// ACK.
    pub const ACK: u8 = 16;
}

/// A TCP segment without payload.
pub fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut bytes = ports(source, destination);
    bytes.extend([0; 8]);
    bytes.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes
}

/// A UDP datagram with this many bytes of payload.
pub fn udp(source: u16, destination: u16, payload: usize) -> Vec<u8> {
    let mut bytes = ports(source, destination);
    bytes.extend(u16::try_from(8 + payload).unwrap_or(0).to_be_bytes());
    bytes.extend([0; 2]);
    bytes.extend(std::iter::repeat_n(0x61, payload));
    bytes
}

/// An ICMP message of either family.
pub fn icmp(kind: u8, code: u8, rest: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// An echo request of the family of `to`.
pub fn echo_request(to: IpAddr, id: u16) -> Vec<u8> {
    icmp(
        if to.is_ipv4() { 8 } else { 128 },
        0,
        u32::from(id) << 16 | 1,
        &[0; 16],
    )
}

/// An echo reply of the family of `to`.
pub fn echo_reply(to: IpAddr, id: u16) -> Vec<u8> {
    icmp(
        if to.is_ipv4() { 0 } else { 129 },
        0,
        u32::from(id) << 16 | 1,
        &[0; 16],
    )
}

/// "Port unreachable" about the packet `quoted`.
pub fn unreachable(to: IpAddr, quoted: &[u8]) -> Vec<u8> {
    if to.is_ipv4() {
        icmp(3, 3, 0, quoted)
    } else {
        icmp(1, 4, 0, quoted)
    }
}

/// Number of ICMP in the family of `to`.
pub fn icmp_number(to: IpAddr) -> u8 {
    if to.is_ipv4() {
        number::ICMP
    } else {
        number::ICMPV6
    }
}

/// A packet of the family of its addresses, which must be one family.
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Ipv4::new(source, destination, protocol).build(payload)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Ipv6::new(source, destination, protocol).build(payload)
        }
        _ => panic!("addresses of two families"),
    }
}

/// An IPv4 header.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Number of what follows all headers.
    pub protocol: u8,
    /// Options, padded by the caller to a multiple of four.
    pub options: Vec<u8>,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset, as on the wire.
    pub fragment: u16,
    /// Version and header length, where not the right ones.
    pub first: Option<u8>,
    /// Total length, where not the right one.
    pub total: Option<u16>,
}

impl Ipv4 {
    /// A plain header.
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Self {
        Self {
            source,
            destination,
            protocol,
            options: Vec::new(),
            id: 7,
            fragment: 0,
            first: None,
            total: None,
        }
    }

    /// The packet with this payload.
    pub fn build(&self, payload: &[u8]) -> Vec<u8> {
        let words = 5 + self.options.len() / 4;
        let total = words * 4 + payload.len();
        let mut bytes = vec![self.first.unwrap_or(0x40 | words as u8), 0];
        bytes.extend(self.total.unwrap_or(total as u16).to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([64, self.protocol, 0, 0]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(&self.options);
        bytes.extend(payload);
        bytes
    }
}

/// An IPv6 header and its extension headers.
#[derive(Clone, Debug)]
pub struct Ipv6 {
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// Number of what follows all headers.
    pub protocol: u8,
    /// Extension headers: number and bytes, the first of which (next header) is filled in.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Payload length, where not the right one.
    pub length: Option<u16>,
    /// First byte, where not the right one.
    pub first: Option<u8>,
}

impl Ipv6 {
    /// A plain header.
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8) -> Self {
        Self {
            source,
            destination,
            protocol,
            extensions: Vec::new(),
            length: None,
            first: None,
        }
    }

    /// With one more extension header.
    #[must_use]
    pub fn with(mut self, number: u8, bytes: Vec<u8>) -> Self {
        self.extensions.push((number, bytes));
        self
    }

    /// The packet with this payload.
    pub fn build(&self, payload: &[u8]) -> Vec<u8> {
        let mut chain = Vec::new();
        for (i, (_, bytes)) in self.extensions.iter().enumerate() {
            let next = self
                .extensions
                .get(i + 1)
                .map_or(self.protocol, |(number, _)| *number);
            let start = chain.len();
            chain.extend(bytes);
            chain[start] = next;
        }
        let first = self
            .extensions
            .first()
            .map_or(self.protocol, |(number, _)| *number);
        let mut packet = vec![self.first.unwrap_or(0x60), 0, 0, 0];
        packet.extend(
            self.length
                .unwrap_or((chain.len() + payload.len()) as u16)
                .to_be_bytes(),
        );
        packet.extend([first, 64]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(chain);
        packet.extend(payload);
        packet
    }
}

/// An extension header of options (hop-by-hop, destination) of `units` times eight bytes.
pub fn options(units: u8) -> Vec<u8> {
    // One PadN option over the whole.
    let length = usize::from(units) * 8;
    let mut bytes = vec![0; length];
    bytes[1] = units - 1;
    bytes[2] = 1;
    bytes[3] = (length - 4) as u8;
    bytes
}

/// A routing header of this type, with so many segments left.
pub fn routing(kind: u8, left: u8) -> Vec<u8> {
    vec![0, 0, kind, left, 0, 0, 0, 0]
}

/// An IPv6 fragment header.
pub fn fragment(offset: u16, more: bool, id: u32) -> Vec<u8> {
    let mut bytes = vec![0, 0];
    bytes.extend((offset & !7 | u16::from(more)).to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes
}

/// IPv4 flags and offset word.
pub fn flags(offset: u16, more: bool) -> u16 {
    (offset / 8) | if more { 0x2000 } else { 0 }
}

fn ports(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}
