//! The steps of a decision about a packet that is not known to pass.
//!
//! In the kernel each step of a decision is a function of its own, for the sake of its stack: 512 bytes
//! is all that a chain of calls has. Each returns a number that is used: without one, a pointer to the
//! stack may be left where a result would be, which the kernel's verifier refuses.

use super::{
    Crossing, Decision, Ends, Look, Pending, What, flow,
    session::{Ruling, authorise, touch},
    tables::{Query, Tables, gate},
};
use crate::{
    abi::{
        Address, Check, Direction, FlowKey, FlowState, Level, NO_RULE, Outcome, PeerState,
        RuleOutcome, ServiceKey, Settings,
    },
    packet::Traits,
    verdict::Reason,
};

/// A packet of a flow that was permitted before.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn known<A, T>(
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
    let opener = super::direction(flow.opener);
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
pub(super) fn admit<A, T>(
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
pub(super) fn ask<A, T: Tables<A>>(
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
pub(super) fn look_up<A, T>(
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
        gate(super::direction(pending.opener))
    } else {
        tables.rule(&Query {
            epoch: pending.epoch,
            class: pending.class,
            direction: super::direction(pending.opener),
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
pub(super) fn settle<A, T>(
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
        super::direction(pending.opener),
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
