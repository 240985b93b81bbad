//! The gate in memory: the decision over hash tables, with a clock that tests turn by hand.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
};

use gateway_common::{
    abi::{
        Address, AddressV4, AddressV6, Check, Direction, FlowKey, FlowState, FragmentKey,
        FragmentState, PeerState, RuleOutcome, ServiceKey, Settings,
    },
    clock::SECOND,
    decide::{Decision, Query, Tables, decide},
    packet::Packet,
    parse::{self, Slice},
    policy,
    verdict::Reason,
};
use ipnet::IpNet;
use portcullis_agent::datapath::{Service, SessionGrant};

use crate::scene::{self, Gate, State};

/// A policy of rules as a function, for the properties.
pub type Rules = fn(Direction, IpAddr, u8, u16) -> RuleOutcome;

/// Hash tables in place of maps.
#[derive(Clone)]
pub struct Memory {
    /// Now.
    pub now: u64,
    /// The one entry of the settings.
    pub settings: Settings,
    /// Peers by index.
    pub peers: Vec<PeerState>,
    /// Prefixes that prove peers.
    pub addresses: Vec<(IpNet, u32)>,
    /// What needs no session.
    pub services: HashSet<ServiceKey>,
    /// Rules in place of the compiled ones.
    pub rules: Option<Rules>,
    /// Compiled rules, by parity of the settings' epoch.
    pub policies: [Arc<policy::Tables>; 2],
    flows_v4: HashMap<FlowKey<AddressV4>, FlowState>,
    flows_v6: HashMap<FlowKey<AddressV6>, FlowState>,
    fragments: HashMap<FragmentKey, FragmentState>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            now: 1_000_000 * SECOND,
            settings: Settings::default(),
            peers: Vec::new(),
            addresses: Vec::new(),
            services: HashSet::new(),
            rules: None,
            policies: Default::default(),
            flows_v4: HashMap::new(),
            flows_v6: HashMap::new(),
            fragments: HashMap::new(),
        }
    }
}

impl Memory {
    /// With the cast of [`scene`]: two peers, both locked, and the services.
    pub fn with_cast() -> Self {
        let mut memory = Self {
            peers: vec![PeerState::default(); 2],
            ..Self::default()
        };
        memory.set_services(&scene::services());
        memory.add_peer_under_test();
        for address in [scene::V4.other, scene::V6.other] {
            memory.addresses.push((address.into(), 1));
        }
        memory.peers[1] = state(&memory.peers[1], State::Live.session(memory.now).as_ref());
        memory
    }

    /// Makes these reachable before login.
    pub fn set_services(&mut self, services: &[Service]) {
        self.services.clear();
        self.settings.service_filter = 0;
        self.settings.epoch += 2;
        for service in services {
            self.settings.service_filter |= ServiceKey::filter_bit(service.port, service.protocol);
            self.services.insert(ServiceKey {
                address: service.addr.into(),
                port: service.port,
                protocol: service.protocol,
                pad: 0,
            });
        }
    }

    /// Makes this policy hold, as the datapath does; `class` says which effective policy is a peer's.
    pub fn switch_policy(
        &mut self,
        policy: Option<Arc<policy::Tables>>,
        class: impl Fn(usize) -> u32,
    ) {
        let new = self.settings.parity() as usize ^ 1;
        for (index, peer) in self.peers.iter_mut().enumerate() {
            peer.policy[new] = class(index);
        }
        self.settings.epoch += 1;
        self.settings.flags = if policy.is_some() {
            Settings::POLICY
        } else {
            0
        };
        self.policies[new] = policy.unwrap_or_default();
    }

    /// Writes a session, as the datapath does.
    pub fn set_session(&mut self, index: usize, session: Option<&SessionGrant>) {
        self.peers[index] = state(&self.peers[index], session);
    }

    /// Parses and decides.
    pub fn decide(&mut self, direction: Direction, packet: &[u8]) -> Decision {
        let bytes = Slice(packet);
        let parsed = parse::version(&bytes).and_then(|version| match version {
            4 => parse::ipv4(&bytes).map(|packet| self.parsed(direction, &packet)),
            6 => parse::ipv6(&bytes).map(|packet| self.parsed(direction, &packet)),
            _ => Err(Reason::NotIp),
        });
        parsed.unwrap_or_else(Decision::without_peer)
    }

    fn parsed<A>(&mut self, direction: Direction, packet: &Packet<A>) -> Decision
    where
        A: Address,
        Self: Tables<A>,
        FlowKey<A>: Check,
    {
        let now = self.now;
        decide(self, direction, packet, now)
    }

    fn add_peer_under_test(&mut self) {
        for address in [scene::V4.peer, scene::V6.peer] {
            self.addresses.push((address.into(), 0));
        }
    }
}

impl Gate for Memory {
    fn put(&mut self, state: State) {
        self.addresses.retain(|(_, index)| *index != 0);
        if state == State::Unknown {
            self.peers[0].incarnation += 1;
        } else {
            self.add_peer_under_test();
        }
        self.set_session(0, state.session(self.now).as_ref());
    }

    fn run(&mut self, direction: Direction, packet: &[u8]) -> Reason {
        self.decide(direction, packet).reason
    }
}

fn state(old: &PeerState, session: Option<&SessionGrant>) -> PeerState {
    let mut next = PeerState {
        incarnation: old.incarnation,
        generation: old.generation + 1,
        policy: old.policy,
        ..PeerState::default()
    };
    if let Some(session) = session {
        next.deadline = session.deadline;
        next.idle_timeout = session.idle_timeout;
        next.last_activity = session.last_activity;
        next.authenticated_at = session.authenticated_at;
        next.tag = session.tag;
        next.level = session.level as u8;
    }
    next
}

/// Families of addresses, for what differs between them.
trait Family: Address + Hash {
    fn ip(self) -> IpAddr;
    fn flows(memory: &Memory) -> &HashMap<FlowKey<Self>, FlowState>;
    fn flows_mut(memory: &mut Memory) -> &mut HashMap<FlowKey<Self>, FlowState>;
}

impl Family for AddressV4 {
    fn ip(self) -> IpAddr {
        IpAddr::V4(self.into())
    }
    fn flows(memory: &Memory) -> &HashMap<FlowKey<Self>, FlowState> {
        &memory.flows_v4
    }
    fn flows_mut(memory: &mut Memory) -> &mut HashMap<FlowKey<Self>, FlowState> {
        &mut memory.flows_v4
    }
}

impl Family for AddressV6 {
    fn ip(self) -> IpAddr {
        IpAddr::V6(self.into())
    }
    fn flows(memory: &Memory) -> &HashMap<FlowKey<Self>, FlowState> {
        &memory.flows_v6
    }
    fn flows_mut(memory: &mut Memory) -> &mut HashMap<FlowKey<Self>, FlowState> {
        &mut memory.flows_v6
    }
}

impl<A: Family> Tables<A> for Memory {
    fn settings(&self) -> Option<Settings> {
        let mut settings = self.settings;
        if self.rules.is_some() {
            settings.flags |= Settings::POLICY;
        }
        Some(settings)
    }

    fn peer_of(&self, _settings: &Settings, address: A) -> Option<u32> {
        let address = address.ip();
        let matching = self
            .addresses
            .iter()
            .filter(|(prefix, _)| prefix.contains(&address));
        matching
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .map(|(_, index)| *index)
    }

    fn peer(&self, index: u32) -> Option<PeerState> {
        self.peers.get(index as usize).copied()
    }

    fn flow(&self, key: &FlowKey<A>) -> Option<FlowState> {
        A::flows(self).get(key).copied()
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentState> {
        self.fragments.get(key).copied()
    }

    fn is_service(&self, key: &ServiceKey) -> bool {
        self.services.contains(key)
    }

    fn rule(&self, query: &Query<A>) -> RuleOutcome {
        if let Some(rules) = self.rules {
            return rules(
                query.direction,
                query.remote.ip(),
                query.protocol,
                query.port,
            );
        }
        let tables = &self.policies[(query.epoch & 1) as usize];
        tables.lookup(
            query.class,
            query.direction,
            query.remote.ip(),
            query.protocol,
            query.port,
        )
    }

    fn store_flow(&mut self, key: &FlowKey<A>, state: &FlowState) {
        A::flows_mut(self).insert(*key, *state);
    }

    fn store_fragment(&mut self, key: &FragmentKey, state: &FragmentState) {
        self.fragments.insert(*key, *state);
    }

    fn touch(&mut self, index: u32, now: u64) {
        self.peers[index as usize].last_activity = now;
    }
}
