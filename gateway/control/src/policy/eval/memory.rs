//! One peer and a policy in place of the maps. No flow is known: every packet is a first one.

use std::net::IpAddr;

use gateway_common::abi::{
    Address, AddressV4, AddressV6, Check, Direction, FlowKey, FlowState, FragmentKey,
    FragmentState, PeerState, RuleOutcome, ServiceKey, Settings,
};
use gateway_common::clock::SECOND;
use gateway_common::decide::{Decision, Query, Tables, decide};
use gateway_common::packet::Packet;
use gateway_common::parse::{self, Slice};
use gateway_common::verdict::Reason;

use super::vector::{Session, Vector};
use crate::policy::compile::CompiledPolicy;

/// Far enough from the clock's beginning for sessions of a century.
const NOW: u64 = 1 << 62;

pub(super) struct Memory<'a> {
    compiled: &'a CompiledPolicy,
    address: IpAddr,
    direction: Direction,
    peer: PeerState,
}

impl<'a> Memory<'a> {
    pub(super) fn new(compiled: &'a CompiledPolicy, class: u32, vector: &Vector) -> Self {
        let locked = PeerState {
            policy: [class; 2],
            ..PeerState::default()
        };
        Self {
            compiled,
            address: vector.peer.address,
            direction: vector.packet.direction.into(),
            peer: match &vector.session {
                None => locked,
                Some(session) => with_session(locked, session),
            },
        }
    }

    pub(super) fn decide(mut self, packet: &[u8]) -> Decision {
        let bytes = Slice(packet);
        let parsed = parse::version(&bytes).and_then(|version| match version {
            4 => parse::ipv4(&bytes).map(|packet| self.parsed(&packet)),
            6 => parse::ipv6(&bytes).map(|packet| self.parsed(&packet)),
            _ => Err(Reason::NotIp),
        });
        parsed.unwrap_or_else(Decision::without_peer)
    }

    fn parsed<A>(&mut self, packet: &Packet<A>) -> Decision
    where
        A: Address,
        Self: Tables<A>,
        FlowKey<A>: Check,
    {
        let direction = self.direction;
        decide(self, direction, packet, NOW)
    }
}

fn with_session(peer: PeerState, session: &Session) -> PeerState {
    let authenticated_at = NOW - session.age_s * SECOND;
    PeerState {
        authenticated_at,
        deadline: authenticated_at + session.lifetime_s * SECOND,
        last_activity: NOW - session.idle_s * SECOND,
        idle_timeout: session.idle_timeout_s.unwrap_or(0) * SECOND,
        level: session.level as u8,
        tag: 1,
        ..peer
    }
}

trait Ip: Address {
    fn ip(self) -> IpAddr;
}

impl Ip for AddressV4 {
    fn ip(self) -> IpAddr {
        IpAddr::V4(self.into())
    }
}

impl Ip for AddressV6 {
    fn ip(self) -> IpAddr {
        IpAddr::V6(self.into())
    }
}

impl<A: Ip> Tables<A> for Memory<'_> {
    fn settings(&self) -> Option<Settings> {
        Some(Settings {
            flags: Settings::POLICY,
            ..Settings::default()
        })
    }

    fn peer_of(&self, _: &Settings, address: A) -> Option<u32> {
        (address.ip() == self.address).then_some(0)
    }

    fn peer(&self, _: u32) -> Option<PeerState> {
        Some(self.peer)
    }

    fn flow(&self, _: &FlowKey<A>) -> Option<FlowState> {
        None
    }

    fn fragment(&self, _: &FragmentKey) -> Option<FragmentState> {
        None
    }

    fn is_service(&self, _: &ServiceKey) -> bool {
        false
    }

    fn rule(&self, query: &Query<A>) -> RuleOutcome {
        self.compiled.lookup(
            query.class,
            query.direction,
            query.remote.ip(),
            query.protocol,
            query.port,
        )
    }

    fn store_flow(&mut self, _: &FlowKey<A>, _: &FlowState) {}

    fn store_fragment(&mut self, _: &FragmentKey, _: &FragmentState) {}

    fn touch(&mut self, _: u32, _: u64) {}
}
