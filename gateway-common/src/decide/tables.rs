//! What the decision reads and writes.

use super::Decision;
use crate::{
    abi::{
        Direction, FlowKey, FlowState, FragmentKey, FragmentState, Level, NO_RULE, PeerState,
        RuleOutcome, ServiceKey, Settings,
    },
    packet::Packet,
    verdict::Reason,
};

/// A flow that the rules are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<A> {
    /// The settings' epoch; its parity says which set of policy tables.
    pub epoch: u32,
    /// The peer's effective policy in that set.
    pub class: u32,
    /// Direction of the packet that opens the flow.
    pub direction: Direction,
    /// The other end's address.
    pub remote: A,
    /// IP protocol number.
    pub protocol: u8,
    /// The destination's port; 0 where the protocol has none.
    pub port: u16,
}

/// The maps, for one address family. Absent entries are `None`, and end in a drop.
pub trait Tables<A> {
    /// What holds for the whole interface.
    fn settings(&self) -> Option<Settings>;

    /// The peer that this tunnel address proves.
    fn peer_of(&self, settings: &Settings, address: A) -> Option<u32>;

    /// State of the peer, its incarnation and generation read before the rest.
    fn peer(&self, index: u32) -> Option<PeerState>;

    /// The flow's entry, expired or not, its check read after the rest.
    fn flow(&self, key: &FlowKey<A>) -> Option<FlowState>;

    /// The datagram's entry, expired or not, its check read after the rest.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentState>;

    /// Whether this is reachable before login.
    fn is_service(&self, key: &ServiceKey) -> bool;

    /// What the rules say. Only asked where there is a policy ([`Settings::POLICY`]).
    fn rule(&self, query: &Query<A>) -> RuleOutcome;

    /// Returns `value`, about which nothing is concluded any more. For the kernel side, whose verifier
    /// would follow each of the many ways that lead to a value on through all that comes after.
    #[inline(always)]
    fn opaque(&self, value: u8) -> u8 {
        value
    }

    /// As [`Self::opaque`].
    #[inline(always)]
    fn opaque_reason(&self, reason: Reason) -> Reason {
        reason
    }

    /// Remembers a flow, whole, in place of what was there.
    fn store_flow(&mut self, key: &FlowKey<A>, state: &FlowState);

    /// Remembers a datagram.
    fn store_fragment(&mut self, key: &FragmentKey, state: &FragmentState);

    /// Hears of a packet that was permitted to open a flow, for those who watch. `flags` are those of
    /// [`Settings`].
    #[inline(always)]
    fn opened(
        &mut self,
        _flags: u32,
        _direction: Direction,
        _packet: &Packet<A>,
        _decision: Decision,
        _now: u64,
    ) {
    }

    /// Notes the peer's activity at `now`.
    fn touch(&mut self, index: u32, now: u64);
}

/// The policy without rules: a peer that holds a session of two factors reaches everything, and
/// nothing reaches a peer unasked.
#[inline(always)]
pub const fn gate(direction: Direction) -> RuleOutcome {
    match direction {
        Direction::FromPeer => RuleOutcome::Allow {
            rule: NO_RULE,
            level: Level::Mfa,
            max_age: None,
        },
        Direction::ToPeer => RuleOutcome::NoRule,
    }
}
