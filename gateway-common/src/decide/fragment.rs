//! Later fragments: they pass where the first of the same datagram has.

use super::{Decision, Tables, session, touch};
use crate::{
    abi::{
        Address, Check as _, Direction, FlowState, FragmentKey, FragmentState, NO_PEER, Settings,
    },
    clock::SECOND,
    packet::Packet,
    verdict::Reason,
};

/// How long a datagram is remembered: as long as Linux tries to reassemble one.
pub const FRAGMENT_TIMEOUT: u64 = 30 * SECOND;

#[inline(always)]
fn key<A: Address>(direction: Direction, packet: &Packet<A>) -> FragmentKey {
    // The IPv6 fragments of one datagram may differ in the next header (RFC 8200 section 4.5).
    const IPV6_FRAGMENT: u8 = 44;
    FragmentKey {
        source: packet.source.mapped(),
        destination: packet.destination.mapped(),
        id: packet.fragment_id,
        protocol: if size_of::<A>() == 4 {
            packet.traits.protocol()
        } else {
            IPV6_FRAGMENT
        },
        direction: direction as u8,
        pad: 0,
    }
}

/// The first fragment passed in this flow.
#[inline(always)]
pub(super) fn remember<A: Address, T: Tables<A>>(
    tables: &mut T,
    direction: Direction,
    packet: &Packet<A>,
    flow: &FlowState,
    now: u64,
) {
    let key = key(direction, packet);
    let state = FragmentState {
        check: key.check(),
        expires: now.saturating_add(FRAGMENT_TIMEOUT),
        fresh_until: flow.fresh_until,
        peer: flow.peer,
        incarnation: flow.incarnation,
        epoch: flow.epoch,
        level: flow.level,
        flags: flow.flags & FlowState::NO_SESSION,
        pad: [0; 2],
    };
    tables.store_fragment(&key, &state);
}

/// Decides about a later fragment.
#[inline(always)]
pub(super) fn later<A: Address, T: Tables<A>>(
    tables: &mut T,
    settings: &Settings,
    direction: Direction,
    packet: &Packet<A>,
    now: u64,
) -> Decision {
    let key = key(direction, packet);
    let Some(first) = tables.fragment(&key) else {
        return Decision {
            reason: Reason::FragmentWithoutFirst,
            peer: NO_PEER,
        };
    };
    let decision = |reason| Decision {
        reason,
        peer: first.peer,
    };
    let Some(peer) = tables.peer(first.peer) else {
        return decision(Reason::MissingState);
    };
    if first.check != key.check()
        || now >= first.expires
        || first.incarnation != peer.incarnation
        || first.epoch != settings.epoch
    {
        return Decision {
            reason: Reason::FragmentWithoutFirst,
            peer: NO_PEER,
        };
    }
    let reason = if first.flags & FlowState::NO_SESSION != 0 {
        Reason::OpenService
    } else if let Some(reason) = session::blocks(&peer, now) {
        return decision(reason);
    } else if peer.level < first.level {
        return decision(Reason::LevelTooLow);
    } else if now >= first.fresh_until {
        return decision(Reason::NotFresh);
    } else {
        Reason::Session
    };
    touch(tables, direction, first.peer, &peer, now);
    decision(reason)
}
