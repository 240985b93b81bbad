//! How long a flow is remembered, and under what.

use super::Grant;
use crate::{
    abi::{Direction, FlowState, PeerState, Settings},
    clock::SECOND,
    packet::{Traits, protocol},
};

/// How long a flow with these flags is remembered after a packet, in nanoseconds (RFC 5382 REQ-5 and
/// RFC 4787 REQ-5 ask for as much or less).
#[inline(always)]
pub const fn timeout(protocol: u8, flags: u8) -> u64 {
    const BOTH: u8 = FlowState::SEEN_FROM_PEER | FlowState::SEEN_TO_PEER;
    match protocol {
        protocol::TCP if flags & (BOTH | FlowState::CLOSING) == BOTH => 2 * 60 * 60 * SECOND,
        protocol::TCP => 60 * SECOND,
        protocol::ICMP | protocol::ICMPV6 => 30 * SECOND,
        _ => 180 * SECOND,
    }
}

/// The entry with a verdict made now.
#[inline(always)]
pub(super) fn cached(
    flow: &FlowState,
    peer: &PeerState,
    settings: &Settings,
    grant: Grant,
) -> FlowState {
    let mut next = *flow;
    next.generation = peer.generation;
    next.epoch = settings.epoch;
    next.fresh_until = grant.fresh_until;
    next.level = grant.level as u8;
    next.flags &= !FlowState::NO_SESSION;
    if grant.no_session {
        next.flags |= FlowState::NO_SESSION;
    }
    next
}

/// Takes a passed packet into account; returns whether the entry is worth writing. Expiry moves only
/// when an eighth of the timeout has gone, so that most packets write nothing.
#[inline(always)]
pub(super) fn refresh(
    flow: &mut FlowState,
    direction: Direction,
    traits: Traits,
    now: u64,
) -> bool {
    let seen = match direction {
        Direction::FromPeer => FlowState::SEEN_FROM_PEER,
        Direction::ToPeer => FlowState::SEEN_TO_PEER,
    };
    let before = flow.flags;
    let mut flags = before | seen;
    if traits.protocol() == protocol::TCP {
        if traits.closes() {
            flags |= FlowState::CLOSING;
        } else if traits.opens() && flow.opener == direction as u8 {
            flags = (before & FlowState::NO_SESSION) | seen;
        }
    }
    let timeout = timeout(traits.protocol(), flags);
    let remaining = flow.expires.saturating_sub(now);
    if flags == before && remaining >= timeout - timeout / 8 && remaining <= timeout {
        return false;
    }
    flow.flags = flags;
    flow.expires = now.saturating_add(timeout);
    true
}
