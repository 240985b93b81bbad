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
mod tables;

pub use flow::timeout;
pub use fragment::FRAGMENT_TIMEOUT;
pub use tables::{Query, Tables, gate};

use crate::{
    abi::{
        Address, Check, Direction, FlowKey, FlowState, Level, NO_PEER, NO_RULE, Outcome, PeerState,
        RuleOutcome, ServiceKey, Settings,
    },
    clock,
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

/// Why, and by which rule.
#[derive(Clone, Copy)]
struct Ruling {
    reason: Reason,
    rule: u32,
}

impl From<Reason> for Ruling {
    /// By no rule.
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self {
            reason,
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

/// What permits a packet.
#[derive(Clone, Copy)]
struct Grant {
    no_session: bool,
    level: Level,
    fresh_until: u64,
    rule: u32,
}

impl Grant {
    #[inline(always)]
    const fn reason(self) -> Reason {
        if self.no_session {
            without_session(self.rule)
        } else {
            Reason::Session
        }
    }
}

/// Why something passes that needs no session.
#[inline(always)]
const fn without_session(rule: u32) -> Reason {
    if rule == NO_RULE {
        Reason::OpenService
    } else {
        Reason::OpenRule
    }
}

// In the kernel each step of a decision is a function of its own, for the sake of its stack: 512 bytes
// is all that a chain of calls has. Each returns a number that is used: without one, a pointer to the
// stack may be left where a result would be, which the kernel's verifier refuses.

/// A packet of a flow that was permitted before.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn known<A, T>(
    tables: &mut T,
    crossing: &Crossing<'_, A>,
    pending: &mut Pending,
    decision: &mut Decision,
) -> Look
where
    A: Address,
    T: Tables<A>,
    FlowKey<A>: Check,
{
    let &Crossing {
        direction,
        packet,
        now,
    } = crossing;
    let Some(settings) = tables.settings() else {
        *decision = Decision::without_peer(Reason::MissingState);
        return Look::Decided;
    };
    let key = packet.flow_key(direction);
    let Some(flow) = tables.flow(&key) else {
        return Look::Nothing;
    };
    if now >= flow.expires || flow.check != key.check() {
        return Look::Nothing;
    }
    let Some(peer) = tables.peer(flow.peer) else {
        return Look::Nothing;
    };
    if flow.incarnation != peer.incarnation {
        return Look::Nothing;
    }
    // From the peer, only the peer itself may report on its flows; a router may report to it.
    if packet.traits.has(Traits::ERROR)
        && matches!(direction, Direction::FromPeer)
        && packet.sender != packet.source
    {
        let reason = Reason::IcmpErrorWithoutFlow;
        *decision = Decision {
            reason,
            peer: flow.peer,
            rule: NO_RULE,
        };
        return Look::Decided;
    }
    // Decided again, as for the packet that opened the flow.
    let opener = self::direction(flow.opener);
    *pending = ask(
        tables,
        &settings,
        What::Known,
        opener,
        &Ends::of(packet, direction),
        flow.peer,
        &peer,
    );
    Look::Pending
}

/// A packet of no known flow: may it open one?
#[cfg_attr(target_arch = "bpf", inline(never))]
fn admit<A, T>(
    tables: &mut T,
    crossing: &Crossing<'_, A>,
    pending: &mut Pending,
    decision: &mut Decision,
) -> Look
where
    A: Address,
    T: Tables<A>,
{
    let &Crossing {
        direction, packet, ..
    } = crossing;
    let Some(settings) = tables.settings() else {
        *decision = Decision::without_peer(Reason::MissingState);
        return Look::Decided;
    };
    let own = match direction {
        Direction::FromPeer => packet.source,
        Direction::ToPeer => packet.destination,
    };
    let Some(index) = tables.peer_of(&settings, own) else {
        *decision = Decision::without_peer(Reason::UnknownPeer);
        return Look::Decided;
    };
    let mut decided = |reason| {
        *decision = Decision {
            reason,
            peer: index,
            rule: NO_RULE,
        };
        Look::Decided
    };
    if packet.traits.has(Traits::ERROR) {
        return decided(Reason::IcmpErrorWithoutFlow);
    }
    if packet.source.is_martian() {
        return decided(Reason::Martian);
    }
    let Some(peer) = tables.peer(index) else {
        return decided(Reason::MissingState);
    };
    // An answer opens nothing, whichever way it goes.
    if packet.traits.has(Traits::ECHO_REPLY) {
        return decided(Reason::Unsolicited);
    }
    *pending = ask(
        tables,
        &settings,
        What::Open,
        direction,
        &Ends::of(packet, direction),
        index,
        &peer,
    );
    Look::Pending
}

/// What the rules are to be asked about a flow opened in this direction.
#[inline(always)]
fn ask<A, T: Tables<A>>(
    tables: &T,
    settings: &Settings,
    what: What,
    opener: Direction,
    ends: &Ends,
    index: u32,
    peer: &PeerState,
) -> Pending {
    let (service, port) = match opener {
        Direction::FromPeer => {
            let bit = ServiceKey::filter_bit(ends.remote_port, ends.protocol);
            ((settings.service_filter & bit != 0) as u8, ends.remote_port)
        }
        Direction::ToPeer => (0, ends.peer_port),
    };
    Pending {
        what: tables.opaque(what as u8),
        opener: tables.opaque(opener as u8),
        service: tables.opaque(service),
        protocol: ends.protocol,
        port,
        class: peer.policy[settings.parity() as usize],
        index,
        incarnation: peer.incarnation,
        generation: peer.generation,
        epoch: settings.epoch,
        flags: settings.flags,
    }
}

/// What holds for the packet's flow.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn look_up<A, T>(
    tables: &mut T,
    crossing: &Crossing<'_, A>,
    pending: &Pending,
    outcome: &mut Outcome,
) -> u8
where
    A: Address,
    T: Tables<A>,
{
    let remote = match crossing.direction {
        Direction::FromPeer => crossing.packet.destination,
        Direction::ToPeer => crossing.packet.source,
    };
    if pending.service != 0 {
        let service = ServiceKey {
            address: remote.mapped(),
            port: pending.port,
            protocol: pending.protocol,
            pad: 0,
        };
        if tables.is_service(&service) {
            *outcome = RuleOutcome::Allow {
                rule: NO_RULE,
                level: Level::None,
                max_age: None,
            }
            .into();
            return tables.opaque(outcome.kind);
        }
    }
    let found = if pending.flags & Settings::POLICY == 0 {
        gate(direction(pending.opener))
    } else {
        tables.rule(&Query {
            epoch: pending.epoch,
            class: pending.class,
            direction: direction(pending.opener),
            remote,
            protocol: pending.protocol,
            port: pending.port,
        })
    };
    *outcome = found.into();
    outcome.level = tables.opaque(outcome.level);
    tables.opaque(outcome.kind)
}

/// The verdict under what the rules say, and what is to be remembered of it.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn settle<A, T>(
    tables: &mut T,
    crossing: &Crossing<'_, A>,
    pending: &Pending,
    outcome: &Outcome,
    decision: &mut Decision,
) -> Reason
where
    A: Address,
    T: Tables<A>,
    FlowKey<A>: Check,
{
    let &Crossing {
        direction,
        packet,
        now,
    } = crossing;
    let index = pending.index;
    let Some(peer) = tables.peer(index) else {
        *decision = Decision {
            reason: Reason::MissingState,
            peer: index,
            rule: NO_RULE,
        };
        return tables.opaque_reason(Reason::MissingState);
    };
    if peer.incarnation != pending.incarnation {
        // The address has just ceased to prove this peer.
        *decision = Decision::without_peer(Reason::UnknownPeer);
        return tables.opaque_reason(Reason::UnknownPeer);
    }
    let grant = match authorise(
        (*outcome).into(),
        self::direction(pending.opener),
        &peer,
        now,
    ) {
        Ok(grant) => grant,
        Err(Ruling { reason, rule }) => {
            *decision = Decision {
                reason,
                peer: index,
                rule,
            };
            return tables.opaque_reason(reason);
        }
    };
    *decision = Decision {
        reason: grant.reason(),
        peer: index,
        rule: grant.rule,
    };
    if pending.what != What::Fragment as u8 && !packet.traits.has(Traits::ERROR) {
        let key = packet.flow_key(direction);
        let mut flow = FlowState {
            check: key.check(),
            peer: index,
            incarnation: pending.incarnation,
            opener: pending.opener,
            ..FlowState::default()
        };
        if pending.what == What::Known as u8
            && let Some(known) = tables.flow(&key)
            && known.check == flow.check
        {
            flow.expires = known.expires;
            flow.flags = known.flags;
        }
        flow::cache(&mut flow, pending.generation, pending.epoch, grant);
        flow::refresh(&mut flow, direction, packet.traits, now);
        tables.store_flow(&key, &flow);
    }
    touch(tables, direction, index, &peer, now);
    if pending.what == What::Open as u8 {
        tables.opened(pending.flags, direction, packet, *decision, now);
    }
    tables.opaque_reason(grant.reason())
}

/// Whether a flow opened in this direction is permitted under the peer's present session.
#[inline(always)]
fn authorise(
    outcome: RuleOutcome,
    opener: Direction,
    peer: &PeerState,
    now: u64,
) -> Result<Grant, Ruling> {
    let (rule, level, max_age) = match outcome {
        RuleOutcome::Allow {
            rule,
            level,
            max_age,
        } => (rule, level, max_age),
        RuleOutcome::Deny { rule } => {
            return Err(Ruling {
                reason: Reason::Denied,
                rule,
            });
        }
        RuleOutcome::NoRule => {
            return Err(match opener {
                Direction::FromPeer => Reason::NoRule.into(),
                Direction::ToPeer => Reason::Unsolicited.into(),
            });
        }
    };
    if matches!(level, Level::None) {
        return Ok(Grant {
            no_session: true,
            level,
            fresh_until: u64::MAX,
            rule,
        });
    }
    let refused = |reason| Err(Ruling { reason, rule });
    if let Some(reason) = session::blocks(peer, now) {
        return refused(reason);
    }
    if peer.level < level as u8 {
        return refused(Reason::LevelTooLow);
    }
    let fresh_until = match max_age {
        // From before the clock began: nobody knows how long ago.
        Some(_) if peer.authenticated_at == 0 => 0,
        // Just as old as it may be is not too old.
        Some(age) => peer.authenticated_at.saturating_add(age).saturating_add(1),
        None => u64::MAX,
    };
    if now >= fresh_until {
        return refused(Reason::NotFresh);
    }
    Ok(Grant {
        no_session: false,
        level,
        fresh_until,
        rule,
    })
}

/// Notes a passed packet from the peer as activity (invariant 2). A session that is over stays
/// over: what passes without one must not wake it.
#[inline(always)]
fn touch<A, T: Tables<A>>(
    tables: &mut T,
    direction: Direction,
    index: u32,
    peer: &PeerState,
    now: u64,
) {
    if matches!(direction, Direction::FromPeer)
        && clock::activity_due(peer.last_activity, now)
        && session::blocks(peer, now).is_none()
    {
        tables.touch(index, now);
    }
}
