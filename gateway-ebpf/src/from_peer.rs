//! TC ingress: packets that a peer sent, after decryption.

use aya_ebpf::{macros::classifier, programs::TcContext};
use gateway_common::abi::Direction;

use crate::{gate, maps};

/// Decides about a packet from a peer.
#[classifier]
pub(crate) fn from_peer(ctx: TcContext) -> i32 {
    maps::keep();
    gate::handle(&ctx, Direction::FromPeer)
}
