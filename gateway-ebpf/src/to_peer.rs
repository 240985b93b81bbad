//! TC egress: packets towards a peer, before encryption.

use aya_ebpf::{macros::classifier, programs::TcContext};
use gateway_common::abi::Direction;

use crate::gate;

/// Decides about a packet towards a peer.
#[classifier]
pub(crate) fn to_peer(ctx: TcContext) -> i32 {
    gate::handle(&ctx, Direction::ToPeer)
}
