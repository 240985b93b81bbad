//! The baseline of measurements: a program that does nothing. The agent never loads it.

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};

/// Lets every frame go on.
#[xdp(frags)]
pub(crate) fn empty_xdp(_ctx: XdpContext) -> u32 {
    XDP_PASS
}
