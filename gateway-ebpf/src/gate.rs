//! What both programs do: parse, decide, count, tell.

use core::mem::{self, MaybeUninit};

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::bpf_ktime_get_coarse_ns,
    programs::TcContext,
};
use gateway_common::{
    abi::{AddressV4, AddressV6, Direction, counter_index},
    decide::{Decision, established, judge},
    packet::{Fragment, Kind, Packet, TcpFlags},
    parse,
    verdict::{Reason, Verdict},
};

use crate::{answer, emit, maps, parse::SkBuff, tables::Maps};

/// Handles one packet and returns the TC action.
///
/// A pass is `TC_ACT_UNSPEC`: to tcx it means "next program" (`TCX_NEXT`), to clsact "next filter",
/// and with none left the packet goes on in both. `TC_ACT_OK` would skip whatever else the admin has
/// on the hook. A drop is final in both.
#[inline(always)]
pub(crate) fn handle(ctx: &TcContext, direction: Direction) -> i32 {
    // SAFETY: a helper without arguments (Linux 5.11).
    let now = unsafe { bpf_ktime_get_coarse_ns() };
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
                Ok(packet) => packet,
                Err(reason) => return UNPARSABLE | reason as u32,
            };
            match established(&mut Maps { length: 0 }, direction, &packet, now) {
                Some(Decision { reason, .. }) => {
                    maps::count(counter_index(direction, reason));
                    reason as u32
                }
                None => {
                    // SAFETY: the caller's, for a packet of this type.
                    unsafe { room.write(veiled(packet)) };
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
            let decision = judge(&mut Maps { length }, direction, packet, now);
            maps::count(counter_index(direction, decision.reason));
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

family!(AddressV4, parse::ipv4, known_v4, established_v4, judge_v4, tell_v4);
family!(AddressV6, parse::ipv6, known_v6, established_v6, judge_v6, tell_v6);

/// The packet, of which the verifier no longer knows how it was parsed. It would follow each of the many
/// ways there on through everything that comes after.
#[inline(always)]
fn veiled<A>(packet: Packet<A>) -> Packet<A> {
    let zero = maps::zero();
    Packet {
        source_port: packet.source_port ^ zero as u16,
        destination_port: packet.destination_port ^ zero as u16,
        protocol: packet.protocol ^ zero as u8,
        tcp: TcpFlags(packet.tcp.0 ^ zero as u8),
        // SAFETY: these are what they were: zero is 0.
        kind: unsafe { mem::transmute::<u8, Kind>(packet.kind as u8 ^ zero as u8) },
        // SAFETY: as above.
        fragment: unsafe { mem::transmute::<u8, Fragment>(packet.fragment as u8 ^ zero as u8) },
        fragment_id: packet.fragment_id ^ zero,
        is_error: (packet.is_error as u8 ^ zero as u8) != 0,
        ..packet
    }
}

const fn direction<const FROM_PEER: bool>() -> Direction {
    if FROM_PEER { Direction::FromPeer } else { Direction::ToPeer }
}

#[inline(never)]
extern "C" fn unparsable(skb: *mut __sk_buff, direction: u32, reason: u32, now: u64) -> i32 {
    let direction = if direction == 0 { Direction::FromPeer } else { Direction::ToPeer };
    // What is not the number of a reason cannot be here.
    let reason = Reason::from_number(reason as u8).unwrap_or(Reason::MissingState);
    maps::count(counter_index(direction, reason));
    let decision = Decision::without_peer(reason);
    emit::dropped::<AddressV6>(TcContext::new(skb).len(), direction, None, decision, now);
    TC_ACT_SHOT
}
