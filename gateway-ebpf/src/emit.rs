//! Tells userspace about single packets: dropped ones, a few a second and CPU, and more of them, and
//! the first packets of permitted flows, while somebody listens.

use gateway_common::{
    abi::{Address, AddressV6, Direction, EventBudget, Settings},
    decide::Decision,
    packet::Packet,
};

use crate::maps;

/// Windows are 2^29 ns long, about half a second.
const WINDOW_SHIFT: u32 = 29;
/// Events of dropped packets per window and CPU.
const MOST: u32 = 16;
/// Events of dropped packets, and of opened flows, per window and CPU while somebody listens. The
/// buffer holds what a few CPUs send until it is read, four times a second.
const MOST_TRACED: u32 = 512;

/// This CPU's budget in the window that `now` lies in.
#[inline(always)]
pub(crate) fn budget(now: u64) -> Option<&'static mut EventBudget> {
    let budget = maps::event_budget()?;
    // SAFETY: a valid value, this CPU's own, and programs do not interrupt each other.
    let budget = unsafe { &mut *budget };
    if budget.window != now >> WINDOW_SHIFT {
        budget.window = now >> WINDOW_SHIFT;
        budget.dropped = 0;
        budget.opened = 0;
        budget.answered = 0;
    }
    Some(budget)
}

/// Sends an event for a dropped packet, unless this CPU has sent enough of late.
#[inline(always)]
pub(crate) fn dropped<A: Address>(
    length: u32,
    direction: Direction,
    packet: Option<&Packet<A>>,
    decision: Decision,
    now: u64,
) {
    let Some(budget) = budget(now) else {
        return;
    };
    if budget.dropped >= MOST && (budget.dropped >= MOST_TRACED || !is_traced()) {
        budget.lost += 1;
        return;
    }
    budget.dropped += 1;
    send(budget, length, direction, packet, decision, now);
}

/// Sends an event for the first packet of a permitted flow, if somebody listens.
#[inline(always)]
pub(crate) fn opened<A: Address>(
    flags: u32,
    length: u32,
    direction: Direction,
    packet: &Packet<A>,
    decision: Decision,
    now: u64,
) {
    if flags & Settings::TRACE == 0 {
        return;
    }
    let Some(budget) = budget(now) else {
        return;
    };
    if budget.opened >= MOST_TRACED {
        budget.lost += 1;
        return;
    }
    budget.opened += 1;
    send(budget, length, direction, Some(packet), decision, now);
}

#[inline(always)]
fn is_traced() -> bool {
    match maps::settings() {
        Some(settings) => settings.flags & Settings::TRACE != 0,
        None => false,
    }
}

#[inline(always)]
fn send<A: Address>(
    budget: &mut EventBudget,
    length: u32,
    direction: Direction,
    packet: Option<&Packet<A>>,
    decision: Decision,
    now: u64,
) {
    // Written where it is read: the stack has no room for it.
    let Some(mut entry) = maps::event() else {
        budget.lost += 1;
        return;
    };
    let event = entry.as_mut_ptr();
    let (mut source, mut destination) = (AddressV6([0; 4]), AddressV6([0; 4]));
    let (mut source_port, mut destination_port, mut protocol) = (0, 0, 0);
    if let Some(packet) = packet {
        source = packet.source.mapped();
        destination = packet.destination.mapped();
        source_port = packet.source_port;
        destination_port = packet.destination_port;
        protocol = packet.traits.protocol();
    }
    // SAFETY: room for one event, of which every field is written.
    unsafe {
        (&raw mut (*event).time).write(now);
        (&raw mut (*event).source).write(source);
        (&raw mut (*event).destination).write(destination);
        (&raw mut (*event).source_port).write(source_port);
        (&raw mut (*event).destination_port).write(destination_port);
        (&raw mut (*event).protocol).write(protocol);
        (&raw mut (*event).direction).write(direction as u8);
        (&raw mut (*event).reason).write(decision.reason as u8);
        (&raw mut (*event).pad).write(0);
        (&raw mut (*event).peer).write(decision.peer);
        (&raw mut (*event).length).write(length);
        (&raw mut (*event).rule).write(decision.rule);
        (&raw mut (*event).reserved).write(0);
    }
    entry.submit(0);
}
