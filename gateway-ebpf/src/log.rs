//! A log line for every packet, for debugging only: without the feature `debug-log` it is nothing.

use aya_ebpf::programs::TcContext;
use gateway_common::{abi::Direction, decide::Decision};

/// Logs what became of a packet.
#[cfg(feature = "debug-log")]
#[inline(always)]
pub(crate) fn decided(ctx: &TcContext, direction: Direction, decision: Decision) {
    // Numbers, since names of reasons would have to be in the object: docs/drop-reasons.md has them.
    aya_log_ebpf::trace!(
        ctx,
        "direction {} reason {} peer {}",
        direction as u8,
        decision.reason as u8,
        decision.peer
    );
}

/// Does nothing.
#[cfg(not(feature = "debug-log"))]
#[inline(always)]
pub(crate) fn decided(_ctx: &TcContext, _direction: Direction, _decision: Decision) {}
