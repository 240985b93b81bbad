//! What both programs do: parse, decide, count, tell.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
    programs::TcContext,
};
use gateway_common::{
    abi::{AddressV4, AddressV6, Direction, counter_index},
    answer::may_be_led,
    decide::{Decision, Known, established, judge},
    packet::Packet,
    parse,
    verdict::{Reason, Verdict},
};

use crate::{answer, captive, clock, emit, flows, log, maps, parse::SkBuff, tables::Maps};

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
        (Ok(4), Direction::FromPeer) => known_v4_from_peer(skb, &mut packet, now),
        (Ok(4), Direction::ToPeer) => known_v4_to_peer(skb, &mut packet, now),
        (Ok(6), Direction::FromPeer) => known_v6_from_peer(skb, &mut packet, now),
        (Ok(6), Direction::ToPeer) => known_v6_to_peer(skb, &mut packet, now),
        (Ok(_), _) => unparsable(skb, direction as u32, Reason::NotIp as u32, now),
        (Err(reason), _) => unparsable(skb, direction as u32, reason as u32, now),
    }
}

/// Instead of a reason, below which it lies: there is a packet, and no verdict yet.
const UNDECIDED: u32 = 0x100;
/// Added to a reason: there is no packet.
const UNPARSABLE: u32 = 0x200;
/// Added to [`UNDECIDED`]: the packet belongs to no flow.
const NO_FLOW: u32 = 0x400;
/// Instead of a reason: dropped, as others like it; the decision is in its place.
const REFUSED: u32 = 0x800;

// Functions of their own, one after the other, for the sake of their stack: 512 bytes is all that a
// chain of calls has. And global ones, which the kernel's verifier walks through once for whatever
// arguments, instead of once for every way to each call. It then takes any pointer for one that may be
// null.

macro_rules! way {
    (
        $address:ty, $parse:path, $direction:expr, $refused:ident, $refuse:ident,
        $known:ident, $established:ident, $judge:ident, $note:ident, $lead:ident,
        $tell:ident
    ) => {
        #[inline(always)]
        fn $known(
            skb: *mut __sk_buff,
            packet: &mut MaybeUninit<Packet<AddressV6>>,
            now: u64,
        ) -> i32 {
            let direction: Direction = $direction;
            // The room is for the larger family.
            let packet: *mut Packet<$address> = packet.as_mut_ptr().cast();
            let mut decision = MaybeUninit::<Decision>::uninit();
            let known = $established(skb, packet, now, decision.as_mut_ptr());
            if known & UNPARSABLE != 0 {
                return unparsable(skb, direction as u32, known & 0xff, now);
            }
            if known & (UNDECIDED | REFUSED) == 0 {
                return TC_ACT_UNSPEC;
            }
            if known & UNDECIDED != 0 {
                let no_flow = known & NO_FLOW;
                if $judge(skb, packet, now, decision.as_mut_ptr(), no_flow) != 0 {
                    return TC_ACT_UNSPEC;
                }
                $note(packet, now, decision.as_ptr());
            }
            $tell(skb, packet, now, decision.as_ptr())
        }

        /// Parses the packet, and decides about those of established flows.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $established(
            skb: *mut __sk_buff,
            room: *mut Packet<$address>,
            now: u64,
            decision: *mut Decision,
        ) -> u32 {
            if room.is_null() || decision.is_null() {
                return UNPARSABLE | Reason::MissingState as u32;
            }
            let direction: Direction = $direction;
            let ctx = TcContext::new(skb);
            let bytes = SkBuff::new(&ctx);
            let packet = match $parse(&bytes) {
                Ok(packet) => unfold(packet, now),
                Err(reason) => return UNPARSABLE | reason as u32,
            };
            let known = established(&mut Maps { now, length: 0 }, direction, &packet, now);
            if let Known::Passes(decision) = known {
                maps::count(counter_index(direction, decision.reason));
                log::decided(&ctx, direction, decision);
                return decision.reason as u32;
            }
            // SAFETY: the caller's, for a packet of this type.
            unsafe { room.write(packet) };
            if known != Known::NoFlow {
                return UNDECIDED;
            }
            match flows::$refused(&packet.flow_key(direction), direction, now) {
                Some(refused) => {
                    log::decided(&ctx, direction, refused);
                    // SAFETY: the caller's, for a decision.
                    unsafe { decision.write(refused) };
                    REFUSED
                }
                None => UNDECIDED | NO_FLOW,
            }
        }

        /// Decides about the others; returns 1 for a pass.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $judge(
            skb: *mut __sk_buff,
            packet: *const Packet<$address>,
            now: u64,
            room: *mut Decision,
            no_flow: u32,
        ) -> u32 {
            if packet.is_null() || room.is_null() {
                return 0;
            }
            let direction: Direction = $direction;
            let length = TcContext::new(skb).len();
            // SAFETY: written by the function above.
            let packet = unsafe { &*packet };
            let mut maps = Maps { now, length };
            let decision = judge(&mut maps, direction, packet, now, no_flow != 0);
            log::decided(&TcContext::new(skb), direction, decision);
            // SAFETY: the caller's, for a decision.
            unsafe { room.write(decision) };
            match decision.reason.verdict() {
                Verdict::Pass => {
                    maps::count(counter_index(direction, decision.reason));
                    1
                }
                Verdict::Drop => 0,
            }
        }

        /// Remembers a drop, for packets like it.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $note(
            packet: *const Packet<$address>,
            now: u64,
            decision: *const Decision,
        ) -> u32 {
            if packet.is_null() || decision.is_null() {
                return 0;
            }
            let direction: Direction = $direction;
            // SAFETY: written by the functions above.
            let (packet, decision) = unsafe { (&*packet, &*decision) };
            if packet.is_plain() {
                let key = packet.flow_key(direction);
                flows::$refuse(&key, direction, decision, now);
            }
            0
        }

        /// Leads a packet that would be dropped to the portal, or back; returns a [`captive::Led`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $lead(skb: *mut __sk_buff, packet: *const Packet<$address>) -> u32 {
            if packet.is_null() {
                return captive::Led::No as u32;
            }
            // SAFETY: written by the functions above.
            captive::lead(skb, $direction, unsafe { &*packet }) as u32
        }

        /// Counts a packet that is to be dropped, and tells of it: userspace, and the sender where that
        /// is wanted. Plain HTTP may be led elsewhere instead.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $tell(
            skb: *mut __sk_buff,
            packet: *const Packet<$address>,
            now: u64,
            decision: *const Decision,
        ) -> i32 {
            if packet.is_null() || decision.is_null() {
                return TC_ACT_SHOT;
            }
            let direction: Direction = $direction;
            let ctx = TcContext::new(skb);
            // SAFETY: written by the functions above.
            let (packet, decision) = unsafe { (&*packet, *decision) };
            let mut led = captive::Led::No as u32;
            if may_be_led(direction, packet, decision.reason) {
                led = $lead(skb, packet);
                if led == captive::Led::On as u32 {
                    maps::count(counter_index(direction, Reason::Captive));
                    return TC_ACT_UNSPEC;
                }
            }
            maps::count(counter_index(direction, decision.reason));
            emit::dropped(ctx.len(), direction, Some(packet), decision, now);
            maps::count_drop(decision.peer, decision.reason);
            if led != captive::Led::No as u32 {
                return TC_ACT_SHOT;
            }
            answer::send(&ctx, direction, packet, decision.reason, now)
        }
    };
}

way!(
    AddressV4,
    parse::ipv4,
    Direction::FromPeer,
    refused_v4,
    refuse_v4,
    known_v4_from_peer,
    established_v4_from_peer,
    judge_v4_from_peer,
    note_v4_from_peer,
    lead_v4_from_peer,
    tell_v4_from_peer
);
way!(
    AddressV4,
    parse::ipv4,
    Direction::ToPeer,
    refused_v4,
    refuse_v4,
    known_v4_to_peer,
    established_v4_to_peer,
    judge_v4_to_peer,
    note_v4_to_peer,
    lead_v4_to_peer,
    tell_v4_to_peer
);
way!(
    AddressV6,
    parse::ipv6,
    Direction::FromPeer,
    refused_v6,
    refuse_v6,
    known_v6_from_peer,
    established_v6_from_peer,
    judge_v6_from_peer,
    note_v6_from_peer,
    lead_v6_from_peer,
    tell_v6_from_peer
);
way!(
    AddressV6,
    parse::ipv6,
    Direction::ToPeer,
    refused_v6,
    refuse_v6,
    known_v6_to_peer,
    established_v6_to_peer,
    judge_v6_to_peer,
    note_v6_to_peer,
    lead_v6_to_peer,
    tell_v6_to_peer
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

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn unparsable(skb: *mut __sk_buff, direction: u32, reason: u32, now: u64) -> i32 {
    let direction = if direction == 0 {
        Direction::FromPeer
    } else {
        Direction::ToPeer
    };
    let reason = flows::reason(reason as u8);
    maps::count(counter_index(direction, reason));
    let decision = Decision::without_peer(reason);
    log::decided(&TcContext::new(skb), direction, decision);
    emit::dropped::<AddressV6>(TcContext::new(skb).len(), direction, None, decision, now);
    TC_ACT_SHOT
}
