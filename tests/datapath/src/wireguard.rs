//! WireGuard's messages in frames, as far as the shield sees them.

use std::net::{IpAddr, SocketAddr};

use crate::packets::{self, number};

/// WireGuard's port on the gateway.
pub const PORT: u16 = 51820;

/// A message with this type, these words after it, and this length.
pub fn message(kind: u8, words: &[u32], length: usize) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0];
    for word in words {
        bytes.extend(word.to_le_bytes());
    }
    bytes.resize(length, 0);
    bytes
}

/// Type 1.
pub fn initiation(sender: u32) -> Vec<u8> {
    message(1, &[sender], 148)
}

/// Type 2.
pub fn response(sender: u32, receiver: u32) -> Vec<u8> {
    message(2, &[sender, receiver], 92)
}

/// Type 3.
pub fn cookie(receiver: u32) -> Vec<u8> {
    message(3, &[receiver], 64)
}

/// Type 4, with a small packet in it.
pub fn data(receiver: u32) -> Vec<u8> {
    message(4, &[receiver], 128)
}

/// An Ethernet frame with these VLAN tags and a UDP datagram.
pub fn frame(tags: &[u16], from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("a datagram of ordinary length");
    let mut udp = Vec::with_capacity(usize::from(length));
    for half in [from.port(), to.port(), length, 0] {
        udp.extend(half.to_be_bytes());
    }
    udp.extend(payload);
    ethernet(
        tags,
        to.ip(),
        &packets::ip(from.ip(), to.ip(), number::UDP, &udp),
    )
}

/// An Ethernet frame with these VLAN tags.
pub fn ethernet(tags: &[u16], to: IpAddr, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 100]);
    }
    frame.extend(if to.is_ipv4() {
        [0x08, 0x00]
    } else {
        [0x86, 0xdd]
    });
    frame.extend(packet);
    frame
}
