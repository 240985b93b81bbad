//! Tells userspace about dropped messages, a few a second and CPU at most.

use gateway_common::{
    abi::AddressV6,
    shield::{Cpu, Datagram, Message, ShieldEvent, ShieldReason, message},
};

use crate::{frame::Frame, maps};

/// Windows are 2^29 ns long, about half a second.
const WINDOW_SHIFT: u32 = 29;
/// Events per window and CPU.
const MOST: u64 = 8;
/// A flood looks at the clock with every many-th message only.
const SELDOM: u64 = 64;

/// Whether this CPU may send another event, as far as can be told without the clock.
#[inline(always)]
pub(crate) fn is_due(cpu: *mut Cpu) -> bool {
    // SAFETY: a valid value, this CPU's own.
    let cpu = unsafe { &mut *cpu };
    cpu.sent = cpu.sent.wrapping_add(1);
    cpu.sent < MOST || cpu.sent % SELDOM == 0
}

/// Sends an event for a dropped message, unless this CPU has sent enough of late. Out of line: it is
/// seldom called.
#[inline(never)]
pub(crate) fn dropped(frame: &Frame, datagram: &Datagram, reason: ShieldReason) {
    let Some(cpu) = maps::cpu() else {
        return;
    };
    // SAFETY: as above.
    let cpu = unsafe { &mut *cpu };
    let now = maps::now();
    if cpu.window != now >> WINDOW_SHIFT {
        cpu.window = now >> WINDOW_SHIFT;
        cpu.sent = 0;
    }
    if cpu.sent >= MOST {
        return;
    }
    maps::send(&ShieldEvent {
        time: now,
        source: datagram.source(frame).unwrap_or(AddressV6([0; 4])),
        receiver: message(frame, datagram).map_or(0, Message::receiver),
        port: datagram.source_port,
        length: datagram.length.unwrap_or(0),
        reason: reason as u8,
        pad: [0; 7],
    });
}
