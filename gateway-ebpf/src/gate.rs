//! What both programs do: parse, decide, count, tell.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    programs::TcContext,
};
use gateway_common::{
    abi::{AddressV4, AddressV6, Direction, counter_index},
    decide::{Decision, established, judge},
    packet::Packet,
    parse,
    verdict::{Reason, Verdict},
};

use crate::{answer, clock, emit, log, maps, parse::SkBuff, tables::Maps};

/// Handles one packet and returns the TC action.
///
/// A pass is `TC_ACT_UNSPEC`: to tcx it means "next program" (`TCX_NEXT`), to clsact "next filter",
/// and with none left the packet goes on in both. `TC_ACT_OK` would skip whatever else the admin has
/// on the hook. A drop is final in both.
#[inline(always)]
pub(crate) fn handle(ctx: &TcContext, direction: Direction) -> i32 {
    let now = clock::now();
    if let Some(action) = answer::pass(ctx, direction) {
        return action;
    }
    let bytes = SkBuff::new(ctx);
    let skb = ctx.skb.skb;
    let mut packet = MaybeUninit::<Packet<AddressV6>>::uninit();
    // The interface has no link-layer header, and under program test-run `skb->protocol` means
    // nothing: the version nibble tells.
    match (parse::version(&bytes), direction) {
        (Ok(4), Direction::FromPeer) => known_v4::<true>(skb, &mut packet, now),
        (Ok(4), Direction::ToPeer) => known_v4::<false>(skb, &mut packet, now),
        (Ok(6), Direction::FromPeer) => known_v6::<true>(skb, &mut packet, now),
        (Ok(6), Direction::ToPeer) => known_v6::<false>(skb, &mut packet, now),
        (Ok(_), _) => unparsable(skb, direction as u32, Reason::NotIp as u32, now),
        (Err(reason), _) => unparsable(skb, direction as u32, reason as u32, now),
    }
}

/// Instead of a reason, below which it lies: there is a packet, and no verdict yet.
const UNDECIDED: u32 = 0x100;
/// Added to a reason: there is no packet.
const UNPARSABLE: u32 = 0x200;

// Functions of their own, one after the other, for the sake of their stack: 512 bytes is all that a
// chain of calls has.

macro_rules! family {
    ($address:ty, $parse:path, $known:ident, $established:ident, $judge:ident, $tell:ident) => {
        #[inline(always)]
        fn $known<const FROM_PEER: bool>(
            skb: *mut __sk_buff,
            packet: &mut MaybeUninit<Packet<AddressV6>>,
            now: u64,
        ) -> i32 {
            let direction = direction::<FROM_PEER>();
            // The room is for the larger family.
            let packet: *mut Packet<$address> = packet.as_mut_ptr().cast();
            let known = $established::<FROM_PEER>(skb, packet, now);
            if known & UNPARSABLE != 0 {
                return unparsable(skb, direction as u32, known & 0xff, now);
            }
            if known & UNDECIDED == 0 {
                return TC_ACT_UNSPEC;
            }
            let mut decision = MaybeUninit::<Decision>::uninit();
            if $judge::<FROM_PEER>(skb, packet, now, decision.as_mut_ptr()) != 0 {
                return TC_ACT_UNSPEC;
            }
            $tell::<FROM_PEER>(skb, packet, now, decision.as_ptr())
        }

        /// Parses the packet, and decides about those of established flows.
        #[inline(never)]
        extern "C" fn $established<const FROM_PEER: bool>(
            skb: *mut __sk_buff,
            room: *mut Packet<$address>,
            now: u64,
        ) -> u32 {
            let direction = direction::<FROM_PEER>();
            let ctx = TcContext::new(skb);
            let bytes = SkBuff::new(&ctx);
            let packet = match $parse(&bytes) {
                Ok(packet) => unfold(packet, now),
                Err(reason) => return UNPARSABLE | reason as u32,
            };
            match established(&mut Maps { now, length: 0 }, direction, &packet, now) {
                Some(decision) => {
                    maps::count(counter_index(direction, decision.reason));
                    log::decided(&ctx, direction, decision);
                    decision.reason as u32
                }
                None => {
                    // SAFETY: the caller's, for a packet of this type.
                    unsafe { room.write(packet) };
                    UNDECIDED
                }
            }
        }

        /// Decides about the others; returns 1 for a pass.
        #[inline(never)]
        extern "C" fn $judge<const FROM_PEER: bool>(
            skb: *mut __sk_buff,
            packet: *const Packet<$address>,
            now: u64,
            room: *mut Decision,
        ) -> u32 {
            let direction = direction::<FROM_PEER>();
            let length = TcContext::new(skb).len();
            // SAFETY: written by the function above.
            let packet = unsafe { &*packet };
            let decision = judge(&mut Maps { now, length }, direction, packet, now);
            maps::count(counter_index(direction, decision.reason));
            log::decided(&TcContext::new(skb), direction, decision);
            // SAFETY: the caller's, for a decision.
            unsafe { room.write(decision) };
            match decision.reason.verdict() {
                Verdict::Pass => 1,
                Verdict::Drop => 0,
            }
        }

        /// Tells of a dropped packet: userspace, and the sender where that is wanted.
        #[inline(never)]
        extern "C" fn $tell<const FROM_PEER: bool>(
            skb: *mut __sk_buff,
            packet: *const Packet<$address>,
            now: u64,
            decision: *const Decision,
        ) -> i32 {
            let direction = direction::<FROM_PEER>();
            let ctx = TcContext::new(skb);
            // SAFETY: written by the functions above.
            let (packet, decision) = unsafe { (&*packet, *decision) };
            emit::dropped(ctx.len(), direction, Some(packet), decision, now);
            maps::count_drop(decision.peer, decision.reason);
            answer::send(&ctx, direction, packet, decision.reason, now)
        }
    };
}

family!(
    AddressV4,
    parse::ipv4,
    known_v4,
    established_v4,
    judge_v4,
    tell_v4
);
family!(
    AddressV6,
    parse::ipv6,
    known_v6,
    established_v6,
    judge_v6,
    tell_v6
);

/// Hides from the verifier what each way through the parser knows about the packet. Otherwise it
/// walks through the decision once for every kind of packet, which on some kernels is too much.
#[inline(always)]
fn unfold<A>(mut packet: Packet<A>, now: u64) -> Packet<A> {
    let nothing = clock::nothing(now);
    packet.traits.0 ^= nothing;
    packet.fragment_id ^= nothing;
    packet.source_port ^= nothing as u16;
    packet.destination_port ^= nothing as u16;
    packet
}

const fn direction<const FROM_PEER: bool>() -> Direction {
    if FROM_PEER {
        Direction::FromPeer
    } else {
        Direction::ToPeer
    }
}

#[inline(never)]
extern "C" fn unparsable(skb: *mut __sk_buff, direction: u32, reason: u32, now: u64) -> i32 {
    let direction = if direction == 0 {
        Direction::FromPeer
    } else {
        Direction::ToPeer
    };
    // What is not the number of a reason cannot be here.
    let reason = Reason::from_number(reason as u8).unwrap_or(Reason::MissingState);
    maps::count(counter_index(direction, reason));
    let decision = Decision::without_peer(reason);
    log::decided(&TcContext::new(skb), direction, decision);
    emit::dropped::<AddressV6>(TcContext::new(skb).len(), direction, None, decision, now);
    TC_ACT_SHOT
}
