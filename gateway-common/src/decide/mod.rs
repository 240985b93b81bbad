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
pub use tables::{Requirement, Tables, gate};

use crate::{
    abi::{
        Address, Check, Direction, FlowKey, FlowState, Level, NO_PEER, PeerState, ServiceKey,
        Settings,
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
}

/// Decides about one packet.
#[inline(always)]
pub fn decide<A, T>(tables: &mut T, direction: Direction, packet: &Packet<A>, now: u64) -> Decision
where
    A: Address,
    T: Tables<A>,
    FlowKey<A>: Check,
{
    let Some(settings) = tables.settings() else {
        return Decision {
            reason: Reason::MissingState,
            peer: NO_PEER,
        };
    };
    if packet.traits.has(Traits::LATER_FRAGMENT) {
        return fragment::later(tables, &settings, direction, packet, now);
    }
    let key = packet.flow_key(direction);
    let found = tables.flow(&key);
    if let Some(flow) = found
        && now < flow.expires
        && flow.check == key.check()
        && let Some(peer) = tables.peer(flow.peer)
        && flow.incarnation == peer.incarnation
    {
        let attempt = Attempt {
            settings: &settings,
            direction,
            packet,
            now,
            index: flow.peer,
            peer: &peer,
        };
        let reason = known(tables, &attempt, &key, &flow);
        // A flow that the other side opened and may no longer have opened: the peer may open its own.
        let retry = matches!(reason.verdict(), Verdict::Drop)
            && matches!(direction, Direction::FromPeer)
            && flow.opener != direction as u8
            && !packet.traits.has(Traits::ERROR);
        if !retry {
            return Decision {
                reason,
                peer: flow.peer,
            };
        }
    }
    open(tables, &settings, direction, packet, &key, now)
}

/// One packet, the peer it is about, and what holds for it.
struct Attempt<'a, A> {
    settings: &'a Settings,
    direction: Direction,
    packet: &'a Packet<A>,
    now: u64,
    index: u32,
    peer: &'a PeerState,
}

/// What permits a packet.
#[derive(Clone, Copy)]
struct Grant {
    no_session: bool,
    level: Level,
    fresh_until: u64,
}

impl Grant {
    #[inline(always)]
    const fn reason(self) -> Reason {
        if self.no_session {
            Reason::OpenService
        } else {
            Reason::Session
        }
    }
}

/// A packet of a flow that was permitted before.
#[inline(always)]
fn known<A, T>(
    tables: &mut T,
    attempt: &Attempt<'_, A>,
    key: &FlowKey<A>,
    flow: &FlowState,
) -> Reason
where
    A: Address,
    T: Tables<A>,
    FlowKey<A>: Check,
{
    let &Attempt {
        settings,
        direction,
        packet,
        now,
        index,
        peer,
    } = attempt;
    let error = packet.traits.has(Traits::ERROR);
    // From the peer, only the peer itself may report on its flows; a router may report to it.
    if error && matches!(direction, Direction::FromPeer) && packet.sender != packet.source {
        return Reason::IcmpErrorWithoutFlow;
    }
    let mut next = *flow;
    let reason = if flow.generation == peer.generation && flow.epoch == settings.epoch {
        if flow.flags & FlowState::NO_SESSION != 0 {
            Reason::OpenService
        } else if let Some(reason) = session::blocks(peer, now) {
            return reason;
        } else if now >= flow.fresh_until {
            return Reason::NotFresh;
        } else {
            Reason::Session
        }
    } else {
        // The session or the policy changed: decide again, as for the packet that opened the flow.
        let opener = if flow.opener == Direction::FromPeer as u8 {
            Direction::FromPeer
        } else {
            Direction::ToPeer
        };
        match authorise(tables, settings, opener, key, peer, now) {
            Ok(grant) => {
                next = flow::cached(flow, peer, settings, grant);
                grant.reason()
            }
            Err(reason) => return reason,
        }
    };
    if !error {
        let changed = flow::refresh(&mut next, direction, packet.traits, now);
        if changed || next.generation != flow.generation || next.epoch != flow.epoch {
            tables.store_flow(key, &next);
        }
        if packet.traits.has(Traits::FIRST_FRAGMENT) {
            fragment::remember(tables, direction, packet, &next, now);
        }
    }
    touch(tables, direction, index, peer, now);
    reason
}

/// A packet of no known flow: may it open one?
#[inline(always)]
fn open<A, T>(
    tables: &mut T,
    settings: &Settings,
    direction: Direction,
    packet: &Packet<A>,
    key: &FlowKey<A>,
    now: u64,
) -> Decision
where
    A: Address,
    T: Tables<A>,
    FlowKey<A>: Check,
{
    let Some(index) = tables.peer_of(settings, key.peer) else {
        return Decision {
            reason: Reason::UnknownPeer,
            peer: NO_PEER,
        };
    };
    let decision = |reason| Decision {
        reason,
        peer: index,
    };
    if packet.traits.has(Traits::ERROR) {
        return decision(Reason::IcmpErrorWithoutFlow);
    }
    if packet.source.is_martian() {
        return decision(Reason::Martian);
    }
    let Some(peer) = tables.peer(index) else {
        return decision(Reason::MissingState);
    };
    // An answer opens nothing, whichever way it goes.
    if packet.traits.has(Traits::ECHO_REPLY) {
        return decision(Reason::Unsolicited);
    }
    let grant = match authorise(tables, settings, direction, key, &peer, now) {
        Ok(grant) => grant,
        Err(reason) => return decision(reason),
    };
    let blank = FlowState {
        check: key.check(),
        peer: index,
        incarnation: peer.incarnation,
        opener: direction as u8,
        ..FlowState::default()
    };
    let mut flow = flow::cached(&blank, &peer, settings, grant);
    flow::refresh(&mut flow, direction, packet.traits, now);
    tables.store_flow(key, &flow);
    if packet.traits.has(Traits::FIRST_FRAGMENT) {
        fragment::remember(tables, direction, packet, &flow, now);
    }
    touch(tables, direction, index, &peer, now);
    decision(grant.reason())
}

/// Whether a flow opened in this direction is permitted under the peer's present state.
#[inline(always)]
fn authorise<A, T>(
    tables: &mut T,
    settings: &Settings,
    opener: Direction,
    key: &FlowKey<A>,
    peer: &PeerState,
    now: u64,
) -> Result<Grant, Reason>
where
    A: Address,
    T: Tables<A>,
{
    let no_session = Grant {
        no_session: true,
        level: Level::None,
        fresh_until: u64::MAX,
    };
    let port = match opener {
        Direction::FromPeer => {
            if settings.service_filter & ServiceKey::filter_bit(key.remote_port, key.protocol) != 0
            {
                let service = ServiceKey {
                    address: key.remote.mapped(),
                    port: key.remote_port,
                    protocol: key.protocol,
                    pad: 0,
                };
                if tables.is_service(&service) {
                    return Ok(no_session);
                }
            }
            key.remote_port
        }
        Direction::ToPeer => key.peer_port,
    };
    let Some(required) = tables.requirement(peer.policy, opener, key.remote, key.protocol, port)
    else {
        return Err(match opener {
            Direction::FromPeer => Reason::NoRule,
            Direction::ToPeer => Reason::Unsolicited,
        });
    };
    if matches!(required.level, Level::None) {
        return Ok(no_session);
    }
    if let Some(reason) = session::blocks(peer, now) {
        return Err(reason);
    }
    if peer.level < required.level as u8 {
        return Err(Reason::LevelTooLow);
    }
    let fresh_until = match required.max_age {
        Some(age) => peer.authenticated_at.saturating_add(age),
        None => u64::MAX,
    };
    if now >= fresh_until {
        return Err(Reason::NotFresh);
    }
    Ok(Grant {
        no_session: false,
        level: required.level,
        fresh_until,
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
