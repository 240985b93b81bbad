//! The one decision: does this packet cross the interface, right now?
//!
//! Deterministic in its arguments: it reads the world through [`Tables`] and the time it is given,
//! and what it wants remembered it writes through [`Tables`] too. The eBPF programs, `policy eval`,
//! the property tests and the fuzzers all run this code (invariant 8).
//!
//! Order of reads: a peer's incarnation and generation come first, then the rest of its state,
//! because userspace writes them last. A verdict is thus never cached under a generation younger
//! than what it was made from.

mod flow;
mod fragment;
mod session;
mod steps;
mod tables;

pub use flow::timeout;
pub use fragment::FRAGMENT_TIMEOUT;
pub use tables::{Query, Tables, gate};

use session::touch;
use steps::{admit, known, look_up, settle};

use crate::{
    abi::{Address, Check, Direction, FlowKey, NO_PEER, NO_RULE, Outcome},
    packet::{Packet, Traits},
    verdict::{Reason, Verdict},
};

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Why; [`Reason::verdict`] says what.
    pub reason: Reason,
    /// The peer it was decided for, or [`NO_PEER`].
    pub peer: u32,
    /// Number of the rule that decided, in the policy that holds; [`NO_RULE`] where none did.
    pub rule: u32,
}

impl Decision {
    /// About a packet that belongs to no peer.
    #[inline(always)]
    pub const fn without_peer(reason: Reason) -> Self {
        Self {
            reason,
            peer: NO_PEER,
            rule: NO_RULE,
        }
    }
}

/// Decides about one packet.
#[inline(always)]
pub fn decide<A, T>(tables: &mut T, direction: Direction, packet: &Packet<A>, now: u64) -> Decision
where
    A: Address,
    T: Tables<A>,
    FlowKey<A>: Check,
{
    match established(tables, direction, packet, now) {
        Known::Passes(decision) => decision,
        known => judge(tables, direction, packet, now, known == Known::NoFlow),
    }
}

/// What is known about a packet from the flow that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Its flow has been permitted before, and nothing has changed since.
    Passes(Decision),
    /// It belongs to no flow.
    NoFlow,
    /// Nothing.
    Unsure,
}

/// The part of [`decide`] for a packet that [`established`] has not decided about; `no_flow` is whether
/// it has said [`Known::NoFlow`].
#[inline(always)]
pub fn judge<A, T>(
    tables: &mut T,
    direction: Direction,
    packet: &Packet<A>,
    now: u64,
    no_flow: bool,
) -> Decision
where
    A: Address,
    T: Tables<A>,
    FlowKey<A>: Check,
{
    let crossing = Crossing {
        direction,
        packet,
        now,
    };
    let mut pending = Pending::BLANK;
    let mut decision = Decision::without_peer(Reason::MissingState);
    let mut outcome = Outcome::default();
    let mut look = if packet.traits.has(Traits::LATER_FRAGMENT) {
        fragment::later(tables, &crossing, &mut pending, &mut decision)
    } else if no_flow {
        Look::Nothing
    } else {
        known(tables, &crossing, &mut pending, &mut decision)
    };
    if look == Look::Nothing {
        look = admit(tables, &crossing, &mut pending, &mut decision);
    }
    if look == Look::Pending {
        outcome.kind = look_up(tables, &crossing, &pending, &mut outcome);
        decision.reason = settle(tables, &crossing, &pending, &outcome, &mut decision);
        // A flow that the other side opened and may no longer have opened: the peer may open its own.
        // Written out, as the verifier takes a loop of two turns for an endless one.
        if matches!(decision.reason.verdict(), Verdict::Drop)
            && pending.what == What::Known as u8
            && pending.opener == Direction::ToPeer as u8
            && matches!(direction, Direction::FromPeer)
            && !packet.traits.has(Traits::ERROR)
            && admit(tables, &crossing, &mut pending, &mut decision) == Look::Pending
        {
            outcome.kind = look_up(tables, &crossing, &pending, &mut outcome);
            decision.reason = settle(tables, &crossing, &pending, &outcome, &mut decision);
        }
    }
    decision.reason = tables.opaque_reason(decision.reason);
    if packet.traits.has(Traits::FIRST_FRAGMENT)
        && matches!(decision.reason.verdict(), Verdict::Pass)
    {
        fragment::remember(tables, &crossing);
    }
    decision
}

/// The part of [`decide`] for most packets: a pass where the packet's flow has been permitted before
/// and nothing has changed since.
#[inline(always)]
pub fn established<A, T>(
    tables: &mut T,
    direction: Direction,
    packet: &Packet<A>,
    now: u64,
) -> Known
where
    A: Address,
    T: Tables<A>,
    FlowKey<A>: Check,
{
    if !packet.is_plain() {
        return Known::Unsure;
    }
    let Some(settings) = tables.settings() else {
        return Known::Unsure;
    };
    let key = packet.flow_key(direction);
    let Some(flow) = tables.flow(&key) else {
        return Known::NoFlow;
    };
    if now >= flow.expires || flow.check != key.check() {
        return Known::NoFlow;
    }
    let Some(peer) = tables.peer(flow.peer) else {
        return Known::Unsure;
    };
    if flow.incarnation != peer.incarnation
        || flow.generation != peer.generation
        || flow.epoch != settings.epoch
    {
        return Known::Unsure;
    }
    let Ok(reason) = flow::standing(flow.flags, flow.rule, flow.fresh_until, &peer, now) else {
        return Known::Unsure;
    };
    let mut next = flow;
    if flow::refresh(&mut next, direction, packet.traits, now) {
        tables.store_flow(&key, &next);
    }
    touch(tables, direction, flow.peer, &peer, now);
    Known::Passes(Decision {
        reason,
        peer: flow.peer,
        rule: flow.rule,
    })
}

/// One packet on its way.
struct Crossing<'a, A> {
    direction: Direction,
    packet: &'a Packet<A>,
    now: u64,
}

/// What a look at a packet came to.
///
/// With the verdict beside it and not in it, as it is part of a function's signature: what the
/// compiler writes of enums with data into BTF, the kernel does not accept.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Look {
    /// It has a verdict.
    Decided,
    /// The rules have to be asked.
    Pending,
    /// It is of no flow that is known.
    Nothing,
}

/// What the rules are asked for.
#[derive(Clone, Copy)]
#[repr(u8)]
enum What {
    /// A flow that was permitted before.
    Known = 0,
    /// A new flow.
    Open,
    /// A datagram whose first fragment passed.
    Fragment,
}

/// The direction of this number.
#[inline(always)]
const fn direction(number: u8) -> Direction {
    if number == Direction::FromPeer as u8 {
        Direction::FromPeer
    } else {
        Direction::ToPeer
    }
}

/// What tells a flow's opener from its destination.
struct Ends {
    peer_port: u16,
    remote_port: u16,
    protocol: u8,
}

impl Ends {
    #[inline(always)]
    fn of<A>(packet: &Packet<A>, direction: Direction) -> Self {
        let (peer_port, remote_port) = match direction {
            Direction::FromPeer => (packet.source_port, packet.destination_port),
            Direction::ToPeer => (packet.destination_port, packet.source_port),
        };
        Self {
            peer_port,
            remote_port,
            protocol: packet.traits.protocol(),
        }
    }
}

/// What was read of a packet that the rules have to be asked about.
struct Pending {
    /// [`What`].
    what: u8,
    /// [`Direction`] of the packet that opens, or opened, the flow.
    opener: u8,
    /// 1 where it may go to a service, for which the rules are not asked.
    service: u8,
    protocol: u8,
    /// The destination's.
    port: u16,
    class: u32,
    index: u32,
    incarnation: u32,
    generation: u32,
    epoch: u32,
    flags: u32,
}

impl Pending {
    // All zero, so that the kernel side needs no memory to copy it from.
    const BLANK: Self = Self {
        what: 0,
        opener: 0,
        service: 0,
        protocol: 0,
        port: 0,
        class: 0,
        index: 0,
        incarnation: 0,
        generation: 0,
        epoch: 0,
        flags: 0,
    };
}
