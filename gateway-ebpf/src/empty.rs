//! The baseline of measurements: a program that does nothing. The agent never loads it.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};

/// Lets every packet go on.
#[classifier]
pub(crate) fn empty(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}
