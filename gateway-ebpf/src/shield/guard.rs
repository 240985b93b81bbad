//! XDP: frames from the network, before the stack sees them.

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    macros::xdp,
    programs::XdpContext,
};
use gateway_common::{
    shield::{Bucket, Datagram, Network, Slot, Tables, ipv4, ipv6, judge, message, network},
    verdict::Verdict,
};

use crate::{emit, frame::Frame, maps};

/// Drops messages for WireGuard that cannot belong to a live session, and handshakes beyond the
/// budgets. Everything else on the card passes untouched.
#[xdp(frags)]
pub(crate) fn guard(ctx: XdpContext) -> u32 {
    match handle(&Frame::new(ctx.data(), ctx.data_end())) {
        Some(Verdict::Drop) => XDP_DROP,
        Some(Verdict::Pass) | None => XDP_PASS,
    }
}

/// `None` for what is not WireGuard's. The families apart: what is constant for one costs nothing.
#[inline(always)]
fn handle(frame: &Frame) -> Option<Verdict> {
    match network(frame)? {
        Network::V4(at) => verdict(frame, &ipv4(frame, at)?),
        Network::V6(at) => verdict(frame, &ipv6(frame, at)?),
    }
}

#[inline(always)]
fn verdict(frame: &Frame, datagram: &Datagram) -> Option<Verdict> {
    let settings = maps::settings()?;
    if !settings.is_ours(frame, datagram) {
        return None;
    }
    let reason = judge(
        &mut Maps,
        settings,
        frame,
        datagram,
        message(frame, datagram),
    );
    let cpu = maps::cpu()?;
    maps::count(cpu, reason);
    let verdict = reason.verdict();
    if verdict == Verdict::Drop && emit::is_due(cpu) {
        emit::dropped(frame, datagram, reason);
    }
    Some(verdict)
}

struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn now(&self) -> u64 {
        maps::now()
    }

    #[inline(always)]
    fn bucket(&self, number: u32) -> Option<&Bucket> {
        maps::bucket(number)
    }

    #[inline(always)]
    fn replace(&mut self, number: u32, slot: usize, old: Slot, new: Slot) {
        // Failing, another copy of the response was faster, or the peer has just been removed.
        maps::replace(number, slot, old, new);
    }

    #[inline(always)]
    fn source(&self, key: u64) -> u64 {
        maps::source(key)
    }

    #[inline(always)]
    fn set_source(&mut self, key: u64, state: u64) {
        maps::set_source(key, state);
    }

    #[inline(always)]
    fn overall(&self) -> u64 {
        // SAFETY: a valid value, this CPU's own.
        maps::cpu().map_or(0, |cpu| unsafe { (*cpu).overall })
    }

    #[inline(always)]
    fn set_overall(&mut self, state: u64) {
        if let Some(cpu) = maps::cpu() {
            // SAFETY: as above.
            unsafe { (*cpu).overall = state };
        }
    }

    #[inline(always)]
    fn is_known(&self, key: u64) -> bool {
        maps::is_known(key)
    }
}
