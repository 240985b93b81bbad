//! For measurements: each run on a packet makes it the first of another flow. The agent never loads
//! these.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use gateway_common::abi::Direction;

use crate::{gate, maps};

/// What the other is measured over: renumbers, and lets the packet go on.
#[classifier]
pub(crate) fn renumbered(ctx: TcContext) -> i32 {
    renumber(&ctx);
    TC_ACT_UNSPEC
}

/// Renumbers, and decides about the packet as one from a peer.
#[classifier]
pub(crate) fn renumbered_from_peer(ctx: TcContext) -> i32 {
    maps::keep();
    renumber(&ctx);
    gate::handle(&ctx, Direction::FromPeer)
}

/// The last half of the destination address and the source port, which lie side by side without IP
/// options, are one number, to which the mark is added.
#[inline(always)]
fn renumber(ctx: &TcContext) {
    // SAFETY: the verifier checks accesses to the context.
    let step = unsafe { (*ctx.skb.skb).mark };
    let at = match ctx.load::<u8>(0) {
        Ok(first) if first >> 4 == 4 => 18,
        _ => 38,
    };
    if let Ok(number) = ctx.load::<u32>(at) {
        let number = u32::from_be(number).wrapping_add(step).to_be();
        // Failing, it is the same packet again; the measurement counts the flows.
        let _ = ctx.store(at, &number, 0);
    }
}
