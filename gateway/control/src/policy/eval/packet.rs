//! The packet of a vector as bytes, for whatever reads packets: the parser here, or a kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_common::packet::protocol;

use super::vector::{Direction, Packet};

const HOPS: u8 = 64;
/// Of a protocol that nothing is known about.
const PAYLOAD: [u8; 16] = [0; 16];

/// Whether the gate looks at ports of this protocol.
pub(super) fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP)
}

/// The packet from its IP header on: a TCP SYN, a UDP datagram, an echo request, or a header of the
/// protocol with zeros behind.
pub(super) fn bytes(peer: IpAddr, packet: &Packet) -> Vec<u8> {
    let ports = (
        packet.peer_port.unwrap_or(0),
        packet.remote_port.unwrap_or(0),
    );
    let (source, destination, (source_port, destination_port)) = match packet.direction {
        Direction::FromPeer => (peer, packet.remote, ports),
        Direction::ToPeer => (packet.remote, peer, (ports.1, ports.0)),
    };
    let payload = transport(packet.protocol, source_port, destination_port);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ipv4(source, destination, packet.protocol, &payload)
        }
        // Of one family: the vector was checked.
        (source, destination) => ipv6(to_v6(source), to_v6(destination), packet.protocol, &payload),
    }
}

fn to_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn transport(number: u8, source_port: u16, destination_port: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    match number {
        protocol::TCP => {
            bytes.extend(source_port.to_be_bytes());
            bytes.extend(destination_port.to_be_bytes());
            // Numbers 0; five words long, SYN; window, checksum, urgent pointer.
            bytes.extend([0; 8]);
            bytes.extend([5 << 4, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
        }
        protocol::UDP => {
            bytes.extend(source_port.to_be_bytes());
            bytes.extend(destination_port.to_be_bytes());
            bytes.extend([0, 8, 0, 0]);
        }
        // Type, code, checksum, identifier, sequence number.
        protocol::ICMP => bytes.extend([8, 0, 0, 0, 0x12, 0x34, 0, 1]),
        protocol::ICMPV6 => bytes.extend([128, 0, 0, 0, 0x12, 0x34, 0, 1]),
        _ => bytes.extend(PAYLOAD),
    }
    bytes
}

/// Payloads here are a few words long.
fn length(of: usize) -> [u8; 2] {
    u16::try_from(of).unwrap_or(u16::MAX).to_be_bytes()
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, number: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0];
    bytes.extend(length(20 + payload.len()));
    bytes.extend([0, 0, 0x40, 0, HOPS, number, 0, 0]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    let sum = checksum(&bytes).to_be_bytes();
    bytes[10..12].copy_from_slice(&sum);
    bytes.extend(payload);
    bytes
}

fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, number: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(length(payload.len()));
    bytes.extend([number, HOPS]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(payload);
    bytes
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}
