//! Flows: the tables all CPUs share, and before them a small one of each CPU's own.
//!
//! A look-up in a hash map is most of what a packet of a known flow costs. So each CPU keeps a copy of
//! the flows it has seen last, by the digest of their keys, and looks them up in the shared table
//! anew after [`GOOD_FOR`]. A copy gives away nothing: like the entry itself it is good only for one
//! incarnation and generation of the peer and one epoch of the settings, which are compared for each
//! packet. What it may miss for so long is that another CPU saw the connection close.

use aya_ebpf::bindings::BPF_ANY;
use gateway_common::{
    abi::{Check, FlowKey, FlowKeyV4, FlowKeyV6, FlowState},
    clock::SECOND,
};

use crate::maps;

/// Copies per CPU and address family; a power of two.
pub(crate) const COPIES: u32 = 4096;
/// How long a copy is good for.
const GOOD_FOR: u64 = SECOND;

/// A CPU's own copy of one flow.
#[repr(C)]
pub(crate) struct Copied<A> {
    flow: FlowState,
    good_until: u64,
    key: FlowKey<A>,
}

macro_rules! flows {
    ($key:ty, $get:ident, $put:ident, $copy:ident, $shared:ident, $store:ident) => {
        /// The flow's entry, the check read after the rest where it is shared (see `FlowState::check`).
        #[inline(always)]
        pub(crate) fn $get(key: &$key, now: u64) -> Option<FlowState> {
            let check = key.check();
            let Some(copy) = maps::$copy(slot(check)) else {
                return maps::$shared(key);
            };
            // SAFETY: a valid value, this CPU's own; programs do not interrupt each other.
            let copy = unsafe { &mut *copy };
            if copy.flow.check == check && now < copy.good_until && copy.key.same(key) {
                return Some(copy.flow);
            }
            let flow = maps::$shared(key)?;
            if flow.check == check {
                copy.flow = flow;
                copy.good_until = now + GOOD_FOR;
                copy.key = *key;
            }
            Some(flow)
        }

        /// Remembers a flow. One that cannot be stored is decided anew for each packet of the peer, and
        /// its replies are dropped.
        #[inline(always)]
        pub(crate) fn $put(key: &$key, flow: &FlowState, now: u64) {
            if !maps::$store(key, flow, BPF_ANY) {
                return;
            }
            if let Some(copy) = maps::$copy(slot(flow.check)) {
                // SAFETY: as above.
                let copy = unsafe { &mut *copy };
                copy.flow = *flow;
                copy.good_until = now + GOOD_FOR;
                copy.key = *key;
            }
        }
    };
}

flows!(FlowKeyV4, get_v4, put_v4, copy_v4, shared_v4, store_v4);
flows!(FlowKeyV6, get_v6, put_v6, copy_v6, shared_v6, store_v6);

/// The upper bits of a digest by multiplication are the well-mixed ones.
#[inline(always)]
const fn slot(check: u64) -> u32 {
    (check >> (64 - COPIES.trailing_zeros())) as u32
}
