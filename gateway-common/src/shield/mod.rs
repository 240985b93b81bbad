//! What the shield decides about frames on the network card, before WireGuard decrypts anything.
//!
//! WireGuard names each of its sessions by a 32-bit index that its receiver chose: an initiation and
//! a response carry the sender's, and what comes back carries it as the receiver's. So whoever sees
//! the handshake messages that the gateway sends knows every index that a packet to the gateway can
//! honestly carry. The learner (TC egress) writes them down, the guard (XDP) drops the rest.
//!
//! Nothing here is a security boundary: the shield keeps load from WireGuard, and `decide` judges
//! what comes out of it. In doubt the shield therefore lets a message pass.

mod abi;
mod budget;
mod frame;
mod judge;
mod message;
mod reason;
mod slot;

pub use abi::{
    BUCKET_SLOTS, Bucket, Cpu, LOCAL_MOST, Learned, LearnedBucket, ShieldEvent, ShieldSettings,
    names,
};
pub use budget::{Budget, admit, source_key};
pub use frame::{Datagram, Network, datagram, ipv4, ipv6, network};
pub use judge::{Tables, judge};
pub use message::{Message, message};
pub use reason::{SHIELD_REASON_SLOTS, ShieldReason};
pub use slot::{Kind, Slot};

use crate::clock::SECOND;

/// How long a session's index is of use: WireGuard refuses a key pair 180 s after its handshake
/// (REJECT_AFTER_TIME, section 6.1 of its paper), and 5 s are for delays on our side.
pub const SESSION_LIFE: u64 = 185 * SECOND;

/// How long an initiation may wait for its response: WireGuard gives up retrying after this
/// (REKEY_ATTEMPT_TIME).
pub const PENDING_LIFE: u64 = 90 * SECOND;

/// After this time every index in use has been seen: the oldest session that a learner can have
/// missed is the answer to an initiation that went out just before it started.
pub const LEARNING: u64 = PENDING_LIFE + SESSION_LIFE;
