//! What both programs do: parse, decide, count, tell.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    programs::TcContext,
};
use gateway_common::{
    abi::{Address, Direction, NO_PEER, counter_index},
    decide::{Decision, decide},
    packet::Packet,
    parse::{self, Bytes as _},
    verdict::{Reason, Verdict},
};

use crate::{clock, emit, log, maps, parse::SkBuff, tables::Maps};

/// Handles one packet and returns the TC action.
///
/// A pass is `TC_ACT_UNSPEC`: to tcx it means "next program" (`TCX_NEXT`), to clsact "next filter",
/// and with none left the packet goes on in both. `TC_ACT_OK` would skip whatever else the admin has
/// on the hook. A drop is final in both.
#[inline(always)]
pub(crate) fn handle(ctx: &TcContext, direction: Direction) -> i32 {
    let now = clock::now();
    let bytes = SkBuff::new(ctx);
    // The interface has no link-layer header, and under program test-run `skb->protocol` means
    // nothing: the version nibble tells.
    match parse::version(&bytes) {
        Ok(4) => verdict(&bytes, direction, parse::ipv4(&bytes), now),
        Ok(6) => verdict(&bytes, direction, parse::ipv6(&bytes), now),
        Ok(_) => unparsable(&bytes, direction, Reason::NotIp, now),
        Err(reason) => unparsable(&bytes, direction, reason, now),
    }
}

#[inline(always)]
fn verdict<A>(
    bytes: &SkBuff<'_>,
    direction: Direction,
    packet: Result<Packet<A>, Reason>,
    now: u64,
) -> i32
where
    A: Address,
    Maps: gateway_common::decide::Tables<A>,
    gateway_common::abi::FlowKey<A>: gateway_common::abi::Check,
{
    let packet = match packet {
        Ok(packet) => unfold(packet, now),
        Err(reason) => return unparsable(bytes, direction, reason, now),
    };
    let decision = decide(&mut Maps { now }, direction, &packet, now);
    maps::count(counter_index(direction, decision.reason));
    log::decided(bytes.context(), direction, decision);
    match decision.reason.verdict() {
        Verdict::Pass => TC_ACT_UNSPEC,
        Verdict::Drop => {
            emit::dropped(bytes.len(), direction, Some(&packet), decision, now);
            TC_ACT_SHOT
        }
    }
}

/// Hides from the verifier what each way through the parser knows about the packet. Otherwise it
/// walks through the decision once for every kind of packet, which on some kernels is too much.
#[inline(always)]
fn unfold<A>(mut packet: Packet<A>, now: u64) -> Packet<A> {
    // The clock's sign bit, everywhere: 0 for the next 292 years, but neither compiler nor verifier
    // knows.
    let nothing = (now.cast_signed() >> 63).cast_unsigned() as u32;
    packet.traits.0 ^= nothing;
    packet.fragment_id ^= nothing;
    packet.source_port ^= nothing as u16;
    packet.destination_port ^= nothing as u16;
    packet
}

#[inline(always)]
fn unparsable(bytes: &SkBuff<'_>, direction: Direction, reason: Reason, now: u64) -> i32 {
    maps::count(counter_index(direction, reason));
    let decision = Decision {
        reason,
        peer: NO_PEER,
    };
    log::decided(bytes.context(), direction, decision);
    emit::dropped::<gateway_common::abi::AddressV6>(bytes.len(), direction, None, decision, now);
    TC_ACT_SHOT
}
