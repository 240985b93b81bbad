//! Flows: the tables all CPUs share, and before them a small one of each CPU's own.
//!
//! A look-up in a hash map is most of what a packet of a known flow costs. So each CPU keeps a copy of
//! the flows it has seen last, by the digest of their keys, and looks them up in the shared table
//! anew after [`GOOD_FOR`]. A copy gives away nothing: like the entry itself it is good only for one
//! incarnation and generation of the peer and one epoch of the settings, which are compared for each
//! packet. What it may miss for so long is that another CPU saw the connection close.
//!
//! In the same place a CPU remembers, until the clock's next tick, that a packet of no flow was dropped,
//! so that a flood of the like costs little. That it is of no flow still is sure as long as no CPU has
//! stored any flow since.

use aya_ebpf::bindings::BPF_ANY;
use gateway_common::{
    abi::{Check, Direction, FlowKey, FlowKeyV4, FlowKeyV6, FlowState},
    clock::SECOND,
    decide::Decision,
    verdict::{Reason, Verdict},
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

/// Among the flags of a copy: not a flow but a drop; `opener` is the packet's direction, `level` the
/// reason, `fresh_until` what [`maps::stored`] was before it was looked for.
const REFUSED: u8 = 1 << 7;

macro_rules! flows {
    ($key:ty, $get:ident, $put:ident, $refused:ident, $refuse:ident, $copy:ident, $shared:ident, $store:ident) => {
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
                if copy.flow.flags & REFUSED == 0 {
                    return Some(copy.flow);
                }
                if copy.flow.fresh_until == maps::stored() {
                    return None;
                }
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
            maps::count_stored();
            if let Some(copy) = maps::$copy(slot(flow.check)) {
                // SAFETY: as above.
                let copy = unsafe { &mut *copy };
                copy.flow = *flow;
                copy.good_until = now + GOOD_FOR;
                copy.key = *key;
            }
        }

        /// How a packet of no flow was decided in this tick, under all that holds still.
        #[inline(always)]
        pub(crate) fn $refused(key: &$key, direction: Direction, now: u64) -> Option<Decision> {
            let check = key.check();
            // SAFETY: as above.
            let copy = unsafe { &*maps::$copy(slot(check))? };
            if copy.flow.check != check
                || now >= copy.good_until
                || copy.flow.flags & REFUSED == 0
                || copy.flow.opener != direction as u8
                || !copy.key.same(key)
            {
                return None;
            }
            let (peer, settings) = (maps::peer(copy.flow.peer)?, maps::settings()?);
            if copy.flow.incarnation != peer.incarnation
                || copy.flow.generation != peer.generation
                || copy.flow.epoch != settings.epoch
            {
                return None;
            }
            Some(Decision {
                reason: reason(copy.flow.level),
                peer: copy.flow.peer,
                rule: copy.flow.rule,
            })
        }

        /// Remembers that a packet of no flow was dropped. Should the peer's state have changed since
        /// it was decided about, others like it are dropped until the next tick.
        #[inline(always)]
        pub(crate) fn $refuse(key: &$key, direction: Direction, decision: &Decision, now: u64) {
            let stored = maps::stored();
            if maps::$shared(key).is_some() {
                return;
            }
            let check = key.check();
            let (Some(peer), Some(settings)) = (maps::peer(decision.peer), maps::settings()) else {
                return;
            };
            if let Some(copy) = maps::$copy(slot(check)) {
                // SAFETY: as above.
                let copy = unsafe { &mut *copy };
                copy.flow.check = check;
                copy.flow.peer = decision.peer;
                copy.flow.incarnation = peer.incarnation;
                copy.flow.generation = peer.generation;
                copy.flow.epoch = settings.epoch;
                copy.flow.opener = direction as u8;
                copy.flow.flags = REFUSED;
                copy.flow.level = decision.reason as u8;
                copy.flow.rule = decision.rule;
                copy.flow.fresh_until = stored;
                copy.good_until = now + 1;
                copy.key = *key;
            }
        }
    };
}

flows!(
    FlowKeyV4, get_v4, put_v4, refused_v4, refuse_v4, copy_v4, shared_v4, store_v4
);
flows!(
    FlowKeyV6, get_v6, put_v6, refused_v6, refuse_v6, copy_v6, shared_v6, store_v6
);

/// The upper bits of a digest by multiplication are the well-mixed ones.
#[inline(always)]
const fn slot(check: u64) -> u32 {
    (check >> (64 - COPIES.trailing_zeros())) as u32
}

/// Numbers of the reasons to drop, which have no gap.
const DROPS: core::ops::RangeInclusive<u8> = Reason::NotIp as u8..=Reason::Denied as u8;

const _: () = {
    let (mut at, mut drops) = (0, 0);
    while at < Reason::ALL.len() {
        if matches!(Reason::ALL[at].verdict(), Verdict::Drop) {
            assert!(
                Reason::ALL[at] as u8 >= *DROPS.start() && Reason::ALL[at] as u8 <= *DROPS.end()
            );
            drops += 1;
        }
        at += 1;
    }
    assert!(drops == *DROPS.end() - *DROPS.start() + 1);
};

/// The reason to drop of this number, without a branch for each.
#[inline(always)]
pub(crate) fn reason(number: u8) -> Reason {
    if !DROPS.contains(&number) {
        return Reason::MissingState;
    }
    // SAFETY: each number of the range is a reason's, as is made sure above.
    unsafe { core::mem::transmute::<u8, Reason>(number) }
}
