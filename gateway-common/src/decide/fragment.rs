//! Later fragments: they pass where the first of the same datagram has.

use super::{Crossing, Decision, Ends, Look, Pending, Tables, What, steps::ask};
use crate::{
    abi::{Address, Check, Direction, FlowKey, FragmentKey, FragmentState, NO_RULE},
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

/// The first fragment passed, in a flow that has its entry by now.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn remember<A, T>(tables: &mut T, crossing: &Crossing<'_, A>)
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
    let of = packet.flow_key(direction);
    let Some(flow) = tables.flow(&of) else {
        return;
    };
    if flow.check != of.check() {
        return;
    }
    let key = key(direction, packet);
    let state = FragmentState {
        check: key.check(),
        expires: now.saturating_add(FRAGMENT_TIMEOUT),
        peer: flow.peer,
        incarnation: flow.incarnation,
        peer_port: of.peer_port,
        remote_port: of.remote_port,
        protocol: of.protocol,
        opener: flow.opener,
        pad: [0; 2],
    };
    tables.store_fragment(&key, &state);
}

/// A later fragment.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn later<A: Address, T: Tables<A>>(
    tables: &mut T,
    crossing: &Crossing<'_, A>,
    pending: &mut Pending,
    decision: &mut Decision,
) -> Look {
    let &Crossing {
        direction,
        packet,
        now,
    } = crossing;
    let Some(settings) = tables.settings() else {
        *decision = Decision::without_peer(Reason::MissingState);
        return Look::Decided;
    };
    let key = key(direction, packet);
    let check = key.check();
    let Some(first) = tables.fragment(&key) else {
        *decision = Decision::without_peer(Reason::FragmentWithoutFirst);
        return Look::Decided;
    };
    let Some(peer) = tables.peer(first.peer) else {
        *decision = Decision {
            reason: Reason::MissingState,
            peer: first.peer,
            rule: NO_RULE,
        };
        return Look::Decided;
    };
    if first.check != check || now >= first.expires || first.incarnation != peer.incarnation {
        *decision = Decision::without_peer(Reason::FragmentWithoutFirst);
        return Look::Decided;
    }
    // Decided again, as for the packet that opened the flow.
    let opener = super::direction(first.opener);
    let ends = Ends {
        peer_port: first.peer_port,
        remote_port: first.remote_port,
        protocol: first.protocol,
    };
    *pending = ask(
        tables,
        &settings,
        What::Fragment,
        opener,
        &ends,
        first.peer,
        &peer,
    );
    Look::Pending
}
