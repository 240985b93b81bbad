//! A baseline of measurements: a program that does a single look-up, which is the least that any gate
//! does. The agent never loads it.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use gateway_common::{abi::AddressV4, parse::Bytes as _};

use crate::{maps, parse::SkBuff};

/// Lets every packet go on whose IPv4 source is a peer's.
#[classifier]
pub(crate) fn floor(ctx: TcContext) -> i32 {
    match SkBuff::new(&ctx).near::<5>(0) {
        Some([_, _, _, source, _]) if maps::is_peer_v4(AddressV4(source)) => TC_ACT_UNSPEC,
        _ => TC_ACT_SHOT,
    }
}
