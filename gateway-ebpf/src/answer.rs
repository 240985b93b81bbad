//! Turns a dropped packet into the answer to its sender and sends it back through the interface.
//!
//! The answer crosses the interface like any packet, and so meets the program of the other hook. A
//! mark tells that program whose it is. It is a secret, random number that no packet from outside
//! can bear: decryption and every change of network namespace clear a packet's mark. The other
//! program clears it before the packet goes on. An answer is never judged: one that was would look
//! like the dropped packet's destination speaking, and could open a flow for it.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::{
        bpf_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use gateway_common::{
    abi::{Address, Direction, counter_index},
    answer::{self, Answer, QUOTED_V4, QUOTED_V6},
    packet::{Packet, protocol},
    verdict::Reason,
};

use crate::{emit, maps};

/// Answers per window of [`emit`] and CPU: about a hundred a second.
const MOST: u32 = 50;

/// Passes an answer of ours; `None` for every other packet.
#[inline(always)]
pub(crate) fn pass(ctx: &TcContext, direction: Direction) -> Option<i32> {
    // SAFETY: the verifier checks accesses to the context.
    let mark = unsafe { (*ctx.skb.skb).mark };
    if mark == 0 || mark != maps::answer_mark() {
        return None;
    }
    // SAFETY: as above.
    unsafe { (*ctx.skb.skb).mark = 0 };
    maps::count(counter_index(direction, Reason::Answer));
    Some(TC_ACT_UNSPEC)
}

/// Answers a dropped packet where that is wanted; returns its TC action.
#[inline(always)]
pub(crate) fn send<A: Address>(
    ctx: &TcContext,
    direction: Direction,
    packet: &Packet<A>,
    reason: Reason,
    now: u64,
) -> i32 {
    let Some(kind) = answer::answer(direction, packet, reason) else {
        return TC_ACT_SHOT;
    };
    if !maps::answers() {
        return TC_ACT_SHOT;
    }
    match emit::budget(now) {
        Some(budget) if budget.answered < MOST => budget.answered += 1,
        _ => return TC_ACT_SHOT,
    }
    let to_peer = matches!(direction, Direction::ToPeer) as u32;
    match (size_of::<A>() == 4, kind) {
        (true, Answer::Reset) => reset_v4(ctx.skb.skb, to_peer),
        (true, Answer::Prohibited) => prohibited_v4(ctx.skb.skb, to_peer),
        (false, Answer::Reset) => reset_v6(ctx.skb.skb, to_peer),
        (false, Answer::Prohibited) => {
            prohibited_v6(ctx.skb.skb, to_peer, u32::from(packet.traits.protocol()))
        }
    }
}

// Functions of their own, for the sake of their stack: 512 bytes is all that a chain of calls has.

#[inline(never)]
extern "C" fn reset_v4(skb: *mut __sk_buff, to_peer: u32) -> i32 {
    match load::<QUOTED_V4>(skb) {
        Some(packet) if answer::is_plain_v4(&packet) => {
            replace(skb, &answer::reset_v4(&packet), to_peer)
        }
        _ => TC_ACT_SHOT,
    }
}

#[inline(never)]
extern "C" fn reset_v6(skb: *mut __sk_buff, to_peer: u32) -> i32 {
    match load::<QUOTED_V6>(skb) {
        Some(packet) if answer::is_plain_v6(&packet, protocol::TCP) => {
            replace(skb, &answer::reset_v6(&packet), to_peer)
        }
        _ => TC_ACT_SHOT,
    }
}

#[inline(never)]
extern "C" fn prohibited_v4(skb: *mut __sk_buff, to_peer: u32) -> i32 {
    match load::<QUOTED_V4>(skb) {
        Some(packet) if answer::is_plain_v4(&packet) => {
            replace(skb, &answer::prohibited_v4(&packet), to_peer)
        }
        _ => TC_ACT_SHOT,
    }
}

#[inline(never)]
extern "C" fn prohibited_v6(skb: *mut __sk_buff, to_peer: u32, protocol: u32) -> i32 {
    let direction = if to_peer != 0 {
        Direction::ToPeer
    } else {
        Direction::FromPeer
    };
    match load::<QUOTED_V6>(skb) {
        Some(packet) if answer::is_plain_v6(&packet, protocol as u8) => {
            replace(skb, &answer::prohibited_v6(&packet, direction), to_peer)
        }
        _ => TC_ACT_SHOT,
    }
}

/// The first words of the packet; shorter ones are not answered.
#[inline(always)]
fn load<const N: usize>(skb: *mut __sk_buff) -> Option<[u32; N]> {
    let mut words = [0; N];
    // SAFETY: the helper writes `4 * N` bytes or fails.
    let failed =
        unsafe { bpf_skb_load_bytes(skb.cast(), 0, words.as_mut_ptr().cast(), (4 * N) as u32) };
    if failed == 0 { Some(words) } else { None }
}

/// Makes the packet this one, and sends it back. What fails half-way is dropped.
#[inline(always)]
fn replace<const N: usize>(skb: *mut __sk_buff, words: &[u32; N], to_peer: u32) -> i32 {
    let length = (4 * N) as u32;
    let mark = maps::answer_mark();
    if mark == 0 {
        return TC_ACT_SHOT;
    }
    // SAFETY: the helpers read `length` bytes and check the packet themselves; the verifier checks
    // accesses to the context.
    unsafe {
        if bpf_skb_change_tail(skb, length, 0) != 0
            || bpf_skb_store_bytes(skb, 0, words.as_ptr().cast(), length, 0) != 0
        {
            return TC_ACT_SHOT;
        }
        (*skb).mark = mark;
        // A packet towards the peer is answered as if the peer had sent the answer: at ingress.
        let flags = if to_peer != 0 {
            u64::from(BPF_F_INGRESS)
        } else {
            0
        };
        bpf_redirect((*skb).ifindex, flags) as i32
    }
}
