//! Why a packet would pass or not, and what ends that: [`decide`] over the state of the moment,
//! without flows and without traces, with an ear on what it asks.

use core::cell::Cell;

use crate::{
    abi::{
        Address, Check, Direction, FlowKey, FlowState, FragmentKey, FragmentState, Level,
        PeerState, RuleOutcome, ServiceKey, Settings,
    },
    decide::{Decision, Query, Tables, decide, gate},
    packet::{Packet, Traits, protocol},
    verdict::Verdict,
};

/// The first packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<A> {
    /// Which way it goes.
    pub direction: Direction,
    /// The peer's tunnel address.
    pub peer: A,
    /// The other end's address.
    pub remote: A,
    /// IP protocol number; ICMP stands for an echo request.
    pub protocol: u8,
    /// The destination's port; 0 where the protocol has none.
    pub port: u16,
}

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The decision.
    pub decision: Decision,
    /// What the destination requires, where something speaks of it: level and greatest age of the
    /// login in nanoseconds.
    pub required: Option<(Level, Option<u64>)>,
    /// State of the peer, where there is one.
    pub peer: Option<PeerState>,
    /// When a packet that passes now no longer would, by itself.
    pub ends: Option<(u64, Ends)>,
}

/// What ends a verdict, whatever the peer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The session's deadline.
    Deadline,
    /// The login is then too old for the destination.
    MaxAge,
}

impl Ends {
    /// For the wire and the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::MaxAge => "max_age",
        }
    }
}

/// Explains what would become of a packet at `now`. Changes nothing.
pub fn explain<A, T>(tables: &T, question: &Question<A>, now: u64) -> Explained
where
    A: Address,
    T: Tables<A>,
    FlowKey<A>: Check,
{
    let mut listening = Listening {
        inner: tables,
        outcome: Cell::new(None),
        peer: Cell::new(None),
        flow: None,
    };
    let decision = decide(&mut listening, question.direction, &packet(question), now);
    let peer = listening.peer.get();
    let passes = matches!(decision.reason.verdict(), Verdict::Pass);
    let flow = listening
        .flow
        .filter(|flow| passes && flow.flags & FlowState::NO_SESSION == 0);
    let ends = flow.zip(peer).map(|(flow, peer)| {
        if flow.fresh_until < peer.deadline {
            (flow.fresh_until, Ends::MaxAge)
        } else {
            (peer.deadline, Ends::Deadline)
        }
    });
    let required = match listening.outcome.get() {
        Some(RuleOutcome::Allow { level, max_age, .. }) => Some((level, max_age)),
        _ => None,
    };
    Explained {
        decision,
        required,
        peer,
        ends,
    }
}

fn packet<A: Address>(question: &Question<A>) -> Packet<A> {
    /// The other end's; no rule looks at it.
    const SOURCE_PORT: u16 = 49_152;
    let (source, destination) = match question.direction {
        Direction::FromPeer => (question.peer, question.remote),
        Direction::ToPeer => (question.remote, question.peer),
    };
    let has_ports = matches!(question.protocol, protocol::TCP | protocol::UDP);
    let is_echo = matches!(question.protocol, protocol::ICMP | protocol::ICMPV6);
    const SYN: u8 = 2;
    let is_tcp = question.protocol == protocol::TCP;
    let traits = Traits::new(question.protocol, if is_tcp { SYN } else { 0 });
    Packet {
        source,
        destination,
        source_port: if has_ports { SOURCE_PORT } else { 0 },
        destination_port: if has_ports { question.port } else { 0 },
        traits: if is_echo {
            traits.with(Traits::ECHO_REQUEST)
        } else {
            traits
        },
        fragment_id: 0,
        sender: source,
    }
}

/// Passes questions on and remembers the answers.
struct Listening<'a, T> {
    inner: &'a T,
    outcome: Cell<Option<RuleOutcome>>,
    peer: Cell<Option<PeerState>>,
    flow: Option<FlowState>,
}

impl<A: Address, T: Tables<A>> Tables<A> for Listening<'_, T> {
    fn settings(&self) -> Option<Settings> {
        self.inner.settings()
    }

    fn peer_of(&self, settings: &Settings, address: A) -> Option<u32> {
        self.inner.peer_of(settings, address)
    }

    fn peer(&self, index: u32) -> Option<PeerState> {
        let peer = self.inner.peer(index);
        self.peer.set(peer);
        peer
    }

    fn flow(&self, _: &FlowKey<A>) -> Option<FlowState> {
        None
    }

    fn fragment(&self, _: &FragmentKey) -> Option<FragmentState> {
        None
    }

    fn is_service(&self, key: &ServiceKey) -> bool {
        self.inner.is_service(key)
    }

    fn rule(&self, query: &Query<A>) -> RuleOutcome {
        let outcome = self.inner.rule(query);
        self.outcome.set(Some(outcome));
        outcome
    }

    fn store_flow(&mut self, _: &FlowKey<A>, state: &FlowState) {
        self.flow = Some(*state);
    }

    fn store_fragment(&mut self, _: &FragmentKey, _: &FragmentState) {}

    fn touch(&mut self, _: u32, _: u64) {}
}

/// One peer, and what holds for it: all that the first packet of a flow is judged by.
pub struct Scene<'a, S, R> {
    /// Of the interface.
    pub settings: Settings,
    /// State of the peer.
    pub peer: PeerState,
    /// Whether something is reachable before login.
    pub is_service: S,
    /// What the rules say about class, direction, remote address, protocol and port.
    pub rules: Option<&'a R>,
}

/// Rules as [`Scene`] asks them.
pub trait Rules {
    /// What they say about a flow opened in this direction.
    fn rule(
        &self,
        class: u32,
        direction: Direction,
        remote: core::net::IpAddr,
        protocol: u8,
        port: u16,
    ) -> RuleOutcome;
}

#[cfg(feature = "std")]
impl Rules for crate::policy::Tables {
    fn rule(
        &self,
        class: u32,
        direction: Direction,
        remote: core::net::IpAddr,
        protocol: u8,
        port: u16,
    ) -> RuleOutcome {
        self.lookup(class, direction, remote, protocol, port)
    }
}

impl<A, S, R> Tables<A> for Scene<'_, S, R>
where
    A: Address,
    S: Fn(&ServiceKey) -> bool,
    R: Rules,
{
    fn settings(&self) -> Option<Settings> {
        // With the flag, `rule` is asked in every case, and so heard.
        Some(Settings {
            flags: self.settings.flags | Settings::POLICY,
            ..self.settings
        })
    }

    fn peer_of(&self, _: &Settings, _: A) -> Option<u32> {
        Some(0)
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

    fn is_service(&self, key: &ServiceKey) -> bool {
        (self.is_service)(key)
    }

    fn rule(&self, query: &Query<A>) -> RuleOutcome {
        if self.settings.flags & Settings::POLICY == 0 {
            return gate(query.direction);
        }
        let remote = core::net::Ipv6Addr::from(query.remote.mapped()).to_canonical();
        match self.rules {
            Some(rules) => rules.rule(
                query.class,
                query.direction,
                remote,
                query.protocol,
                query.port,
            ),
            None => RuleOutcome::NoRule,
        }
    }

    fn store_flow(&mut self, _: &FlowKey<A>, _: &FlowState) {}

    fn store_fragment(&mut self, _: &FragmentKey, _: &FragmentState) {}

    fn touch(&mut self, _: u32, _: u64) {}
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::{abi::AddressV4, clock::SECOND, verdict::Reason};

    const NOW: u64 = 1_000_000 * SECOND;

    struct Fresh;

    impl Rules for Fresh {
        fn rule(&self, class: u32, _: Direction, remote: IpAddr, _: u8, port: u16) -> RuleOutcome {
            assert_eq!(class, 7);
            assert!(remote.is_ipv4());
            match port {
                22 => RuleOutcome::Allow {
                    rule: 3,
                    level: Level::Mfa,
                    max_age: Some(900 * SECOND),
                },
                23 => RuleOutcome::Deny { rule: 4 },
                _ => RuleOutcome::NoRule,
            }
        }
    }

    fn ask(peer: PeerState, flags: u32, port: u16) -> Explained {
        let settings = Settings {
            flags,
            ..Settings::default()
        };
        let scene = Scene {
            settings,
            peer,
            is_service: |_: &ServiceKey| false,
            rules: Some(&Fresh),
        };
        let question = Question {
            direction: Direction::FromPeer,
            peer: AddressV4::from(Ipv4Addr::new(10, 77, 0, 2)),
            remote: AddressV4::from(Ipv4Addr::new(10, 9, 0, 1)),
            protocol: protocol::TCP,
            port,
        };
        explain(&scene, &question, NOW)
    }

    fn session(age: u64) -> PeerState {
        PeerState {
            deadline: NOW + 3600 * SECOND,
            authenticated_at: NOW - age * SECOND,
            level: Level::Mfa as u8,
            policy: [7; 2],
            ..PeerState::default()
        }
    }

    #[test]
    fn what_passes_tells_what_will_end_it() {
        let passes = ask(session(600), Settings::POLICY, 22);
        assert_eq!(
            (passes.decision.reason, passes.decision.rule),
            (Reason::Session, 3)
        );
        assert_eq!(passes.ends, Some((NOW + 300 * SECOND + 1, Ends::MaxAge)));
        let gate = ask(session(600), 0, 22);
        assert_eq!(
            gate.ends,
            Some((NOW + 3600 * SECOND, Ends::Deadline)),
            "without a policy"
        );
    }

    #[test]
    fn what_is_dropped_tells_what_it_would_take() {
        let stale = ask(session(1000), Settings::POLICY, 22);
        assert_eq!(
            (stale.decision.reason, stale.decision.rule),
            (Reason::NotFresh, 3)
        );
        assert_eq!(stale.required, Some((Level::Mfa, Some(900 * SECOND))));
        assert_eq!(stale.ends, None);
        let locked = PeerState {
            policy: [7; 2],
            ..PeerState::default()
        };
        assert_eq!(
            ask(locked, Settings::POLICY, 22).decision.reason,
            Reason::Locked
        );
        assert_eq!(ask(locked, 0, 22).required, Some((Level::Mfa, None)));
        assert_eq!(
            ask(session(1), Settings::POLICY, 23).decision.reason,
            Reason::Denied
        );
        assert_eq!(ask(session(1), Settings::POLICY, 24).required, None);
    }
}
