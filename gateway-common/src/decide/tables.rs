//! What the decision reads and writes.

use crate::abi::{
    Direction, FlowKey, FlowState, FragmentKey, FragmentState, Level, PeerState, ServiceKey,
    Settings,
};

/// What a matching rule asks of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Least level; [`Level::None`] needs no session.
    pub level: Level,
    /// How long ago the login may be at most, in nanoseconds.
    pub max_age: Option<u64>,
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

    /// What the policy asks of a flow opened in `direction`; `None` where it permits none. `port`
    /// is the destination's.
    fn requirement(
        &self,
        policy: u32,
        direction: Direction,
        remote: A,
        protocol: u8,
        port: u16,
    ) -> Option<Requirement>;

    /// Remembers a flow, whole, in place of what was there.
    fn store_flow(&mut self, key: &FlowKey<A>, state: &FlowState);

    /// Remembers a datagram.
    fn store_fragment(&mut self, key: &FragmentKey, state: &FragmentState);

    /// Notes the peer's activity at `now`.
    fn touch(&mut self, index: u32, now: u64);
}

/// The policy without rules: a peer that holds a session of two factors reaches everything, and
/// nothing reaches a peer unasked.
#[inline(always)]
pub const fn gate(direction: Direction) -> Option<Requirement> {
    match direction {
        Direction::FromPeer => Some(Requirement {
            level: Level::Mfa,
            max_age: None,
        }),
        Direction::ToPeer => None,
    }
}
