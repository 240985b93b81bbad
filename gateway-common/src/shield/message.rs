//! WireGuard's messages (section 5.4 of its paper), as far as they are in the clear.

use crate::parse::Bytes;

use super::{Datagram, ShieldReason};

const INITIATION: u32 = 1;
const RESPONSE: u32 = 2;
const COOKIE: u32 = 3;
const DATA: u32 = 4;
const INITIATION_LENGTH: u16 = 148;
const RESPONSE_LENGTH: u16 = 92;
const COOKIE_LENGTH: u16 = 64;
/// A keepalive: header and authentication tag. Payload is padded, but no further than the tunnel's
/// MTU, so longer ones need not be multiples of 16.
const DATA_LEAST: u16 = 32;
/// Type, reserved bytes and indexes: what is read of any message.
const START: u16 = 12;

/// A message of the right length, with zeros where zeros belong. Indexes as they are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Type 1.
    Initiation {
        /// Index that the sender chose.
        sender: u32,
    },
    /// Type 2.
    Response {
        /// Index that the sender chose.
        sender: u32,
        /// Index of the initiation it answers.
        receiver: u32,
    },
    /// Type 3, in answer to an initiation or a response.
    Cookie {
        /// Index of the message it answers.
        receiver: u32,
    },
    /// Type 4.
    Data {
        /// Index that the receiver chose.
        receiver: u32,
    },
}

/// The message in a datagram, or what is wrong with it.
#[inline(always)]
pub fn message<B: Bytes>(frame: &B, datagram: &Datagram) -> Result<Message, ShieldReason> {
    let length = match datagram.length {
        Some(length) if length >= START => length,
        _ => return Err(ShieldReason::Malformed),
    };
    let Some([kind, first, second]) = frame.near::<3>(datagram.payload) else {
        return Err(ShieldReason::OutOfSight);
    };
    // The three bytes after the type are reserved: zero.
    match u32::from_le(kind) {
        DATA if length >= DATA_LEAST => Ok(Message::Data { receiver: first }),
        INITIATION if length == INITIATION_LENGTH => Ok(Message::Initiation { sender: first }),
        RESPONSE if length == RESPONSE_LENGTH => Ok(Message::Response {
            sender: first,
            receiver: second,
        }),
        COOKIE if length == COOKIE_LENGTH => Ok(Message::Cookie { receiver: first }),
        _ => Err(ShieldReason::Malformed),
    }
}

impl Message {
    /// Whom it is addressed to; 0 for an initiation.
    #[inline(always)]
    pub const fn receiver(self) -> u32 {
        match self {
            Self::Initiation { .. } => 0,
            Self::Response { receiver, .. }
            | Self::Cookie { receiver }
            | Self::Data { receiver } => receiver,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::parse::Slice;

    fn parse(bytes: &[u8], length: Option<u16>) -> Result<Message, ShieldReason> {
        let datagram = Datagram {
            is_v6: false,
            network: 0,
            source_port: 1,
            destination_port: 2,
            length,
            payload: 0,
        };
        message(&Slice(bytes), &datagram)
    }

    #[test]
    fn each_type_has_its_length_and_reserved_zeros() {
        let (first, second) = (
            u32::from_ne_bytes([1, 2, 3, 4]),
            u32::from_ne_bytes([5, 6, 7, 8]),
        );
        let good = [
            (1, 148, Message::Initiation { sender: first }),
            (
                2,
                92,
                Message::Response {
                    sender: first,
                    receiver: second,
                },
            ),
            (3, 64, Message::Cookie { receiver: first }),
            (4, 32, Message::Data { receiver: first }),
            (4, 1452, Message::Data { receiver: first }),
        ];
        for (kind, length, wanted) in good {
            let mut bytes = [kind, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
            let malformed = Err(ShieldReason::Malformed);
            assert_eq!(parse(&bytes, Some(length)), Ok(wanted));
            assert_eq!(parse(&bytes, Some(31)), malformed);
            assert_eq!(parse(&bytes, None), malformed);
            assert_eq!(parse(&bytes[..11], Some(11)), malformed);
            assert_eq!(
                parse(&bytes[..11], Some(length)),
                Err(ShieldReason::OutOfSight),
                "a short first fragment, say"
            );
            if kind != 4 {
                assert_eq!(parse(&bytes, Some(length + 1)), malformed);
            }
            bytes[2] = 1;
            assert_eq!(parse(&bytes, Some(length)), malformed);
        }
        for kind in [0, 5, 255] {
            assert_eq!(
                parse(&[kind, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], Some(148)),
                Err(ShieldReason::Malformed)
            );
        }
    }
}
