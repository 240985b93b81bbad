//! Tells userspace about dropped packets, a few a second and CPU at most.

use gateway_common::{
    abi::{Address, AddressV6, Direction, Event},
    decide::Decision,
    packet::Packet,
};

use crate::maps;

/// Windows are 2^29 ns long, about half a second.
const WINDOW_SHIFT: u32 = 29;
/// Events per window and CPU.
const MOST: u64 = 16;

/// Sends an event for a dropped packet, unless this CPU has sent enough of late.
#[inline(always)]
pub(crate) fn dropped<A: Address>(
    length: u32,
    direction: Direction,
    packet: Option<&Packet<A>>,
    decision: Decision,
    now: u64,
) {
    let Some(window) = maps::event_window() else {
        return;
    };
    // SAFETY: a valid value, this CPU's own.
    let window = unsafe { &mut *window };
    if window.window != now >> WINDOW_SHIFT {
        window.window = now >> WINDOW_SHIFT;
        window.sent = 0;
    }
    if window.sent >= MOST {
        return;
    }
    window.sent += 1;
    let Some(mut entry) = maps::event() else {
        return;
    };
    let mut event = Event {
        time: now,
        source: AddressV6([0; 4]),
        destination: AddressV6([0; 4]),
        source_port: 0,
        destination_port: 0,
        protocol: 0,
        direction: direction as u8,
        reason: decision.reason as u8,
        pad: 0,
        peer: decision.peer,
        length,
    };
    if let Some(packet) = packet {
        event.source = packet.source.mapped();
        event.destination = packet.destination.mapped();
        event.source_port = packet.source_port;
        event.destination_port = packet.destination_port;
        event.protocol = packet.traits.protocol();
    }
    entry.write(event);
    entry.submit(0);
}
