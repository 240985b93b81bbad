//! The decision against a naive oracle that caches nothing, and against the kernel for any bytes.
#![allow(
    clippy::unwrap_used,
    reason = "a fixture that cannot be made is a failed test"
)]

use std::{collections::HashMap, net::IpAddr};

use datapath_tests::{
    kernel::Kernel,
    memory::{Memory, Rules},
    packets::{echo_reply, echo_request, flag, icmp_number, ip, number, tcp, udp, unreachable},
    scene::{Cast, Gate as _, State, V4, V6, services},
};
use gateway_common::{
    abi::{
        Direction::{self, FromPeer, ToPeer},
        Level, NO_RULE, PeerState, RuleOutcome,
    },
    clock::SECOND,
    decide::{gate, timeout},
    verdict::{Reason, Verdict},
};
use portcullis_agent::datapath::SessionGrant;
use proptest::{prelude::*, sample::select};

const POLICIES: [Rules; 4] = [
    |direction, _, _, _| gate(direction),
    |_, _, _, _| RuleOutcome::NoRule,
    |direction, _, protocol, port| match (direction, protocol, port) {
        (FromPeer, number::TCP, 22) => RuleOutcome::Allow {
            rule: NO_RULE,
            level: Level::PhishingResistant,
            max_age: Some(50 * SECOND),
        },
        (FromPeer, _, _) => RuleOutcome::Allow {
            rule: NO_RULE,
            level: Level::Mfa,
            max_age: Some(150 * SECOND),
        },
        (ToPeer, _, 1000) => RuleOutcome::Allow {
            rule: NO_RULE,
            level: Level::Mfa,
            max_age: None,
        },
        _ => RuleOutcome::NoRule,
    },
    |direction, remote, _, port| match direction {
        FromPeer if port == 443 || remote == V6.server => RuleOutcome::Allow {
            rule: NO_RULE,
            level: Level::None,
            max_age: None,
        },
        FromPeer => gate(direction),
        ToPeer => RuleOutcome::Allow {
            rule: NO_RULE,
            level: Level::PhishingResistant,
            max_age: None,
        },
    },
];

/// Family, peer, portal or server, both ports, protocol, and whether the remote asks in an echo.
type FlowId = (bool, u8, bool, u16, u16, u8, bool);

/// What a packet is made of.
#[derive(Clone, Copy, Debug)]
struct Shape {
    direction: Direction,
    v6: bool,
    /// 0 and 1 are peers, 2 is nobody.
    peer: u8,
    portal: bool,
    peer_port: u16,
    remote_port: u16,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Tcp(u8),
    Udp,
    EchoRequest,
    EchoReply,
    Gre,
}

#[derive(Clone, Debug)]
enum Step {
    Packet(Shape),
    Session {
        peer: usize,
        level: Level,
        minutes: u64,
        idle: u64,
    },
    Lock {
        peer: usize,
    },
    Policy(usize),
    Wait(u64),
}

impl Shape {
    fn cast(&self) -> Cast {
        if self.v6 { V6 } else { V4 }
    }

    fn peer_address(&self) -> IpAddr {
        let cast = self.cast();
        [cast.peer, cast.other, cast.stranger][usize::from(self.peer)]
    }

    fn remote(&self) -> IpAddr {
        if self.portal {
            self.cast().portal
        } else {
            self.cast().server
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let (own, remote) = (self.peer_address(), self.remote());
        let (source, destination, source_port, destination_port) = match self.direction {
            FromPeer => (own, remote, self.peer_port, self.remote_port),
            ToPeer => (remote, own, self.remote_port, self.peer_port),
        };
        let (protocol, payload) = match self.what {
            What::Tcp(flags) => (number::TCP, tcp(source_port, destination_port, flags)),
            What::Udp => (number::UDP, udp(source_port, destination_port, 4)),
            What::EchoRequest => (icmp_number(own), echo_request(own, self.peer_port)),
            What::EchoReply => (icmp_number(own), echo_reply(own, self.peer_port)),
            What::Gre => (number::GRE, vec![0; 8]),
        };
        ip(source, destination, protocol, &payload)
    }

    /// Protocol number, and the destination's port when opened this way.
    fn target(&self, opener: Direction) -> (u8, u16) {
        let port = if opener == FromPeer {
            self.remote_port
        } else {
            self.peer_port
        };
        match self.what {
            What::Tcp(_) => (number::TCP, port),
            What::Udp => (number::UDP, port),
            What::EchoRequest | What::EchoReply => (icmp_number(self.peer_address()), 0),
            What::Gre => (number::GRE, 0),
        }
    }

    /// What tells flows apart.
    fn flow(&self) -> FlowId {
        let (protocol, _) = self.target(FromPeer);
        let (own, other) = match self.what {
            What::Tcp(_) | What::Udp => (self.peer_port, self.remote_port),
            What::EchoRequest | What::EchoReply => (self.peer_port, 0),
            What::Gre => (0, 0),
        };
        let remote_asks = matches!(
            (self.what, self.direction),
            (What::EchoRequest, ToPeer) | (What::EchoReply, FromPeer)
        );
        (
            self.v6,
            self.peer,
            self.portal,
            own,
            other,
            protocol,
            remote_asks,
        )
    }
}

/// The rules as the design tells them, with no cache of any verdict.
struct Oracle {
    now: u64,
    peers: [PeerState; 2],
    policy: Rules,
    flows: HashMap<FlowId, Flow>,
}

#[derive(Clone, Copy)]
struct Flow {
    opener: Direction,
    last: u64,
    both: [bool; 2],
    closing: bool,
}

impl Oracle {
    fn packet(&mut self, shape: &Shape) -> Reason {
        if shape.peer == 2 {
            return Reason::UnknownPeer;
        }
        let key = shape.flow();
        let (protocol, _) = shape.target(FromPeer);
        let mut opener = shape.direction;
        let mut found = self.flows.get(&key).copied();
        if found.is_some_and(|flow| self.now >= flow.last + flow.timeout(protocol)) {
            found = None;
        }
        let mut reason = match found {
            Some(flow) => {
                opener = flow.opener;
                self.permits(shape, opener)
            }
            None if shape.what == What::EchoReply => return Reason::Unsolicited,
            None => self.permits(shape, opener),
        };
        if found.is_some()
            && reason.verdict() == Verdict::Drop
            && shape.direction == FromPeer
            && opener == ToPeer
        {
            if shape.what == What::EchoReply {
                return Reason::Unsolicited;
            }
            opener = FromPeer;
            reason = self.permits(shape, opener);
            found = None;
        }
        if reason.verdict() == Verdict::Pass {
            let fresh = Flow {
                opener,
                last: self.now,
                both: [false; 2],
                closing: false,
            };
            let mut flow = found.unwrap_or(fresh);
            if let What::Tcp(flags) = shape.what {
                if flags & (flag::FIN | flag::RST) != 0 {
                    flow.closing = true;
                } else if flags == flag::SYN && flow.opener == shape.direction {
                    flow = fresh;
                }
            }
            flow.last = self.now;
            flow.both[shape.direction as usize] = true;
            self.flows.insert(key, flow);
            let peer = &mut self.peers[usize::from(shape.peer)];
            if shape.direction == FromPeer && live(peer, self.now).is_none() {
                peer.last_activity = self.now;
            }
        }
        reason
    }

    fn permits(&self, shape: &Shape, opener: Direction) -> Reason {
        let (protocol, port) = shape.target(opener);
        let service = |s: &portcullis_agent::datapath::Service| {
            s.addr == shape.remote() && s.protocol == protocol && s.port == port
        };
        if opener == FromPeer && services().iter().any(service) {
            return Reason::OpenService;
        }
        let RuleOutcome::Allow { level, max_age, .. } =
            (self.policy)(opener, shape.remote(), protocol, port)
        else {
            return if opener == FromPeer {
                Reason::NoRule
            } else {
                Reason::Unsolicited
            };
        };
        if level == Level::None {
            return Reason::OpenService;
        }
        let peer = &self.peers[usize::from(shape.peer)];
        if let Some(reason) = live(peer, self.now) {
            return reason;
        }
        if peer.level < level as u8 {
            return Reason::LevelTooLow;
        }
        match max_age {
            Some(age) if self.now > peer.authenticated_at + age => Reason::NotFresh,
            _ => Reason::Session,
        }
    }
}

impl Flow {
    fn timeout(&self, protocol: u8) -> u64 {
        use gateway_common::abi::FlowState;
        let mut flags = 0;
        if self.both == [true, true] {
            flags |= FlowState::SEEN_FROM_PEER | FlowState::SEEN_TO_PEER;
        }
        if self.closing {
            flags |= FlowState::CLOSING;
        }
        timeout(protocol, flags)
    }
}

fn live(peer: &PeerState, now: u64) -> Option<Reason> {
    match peer {
        PeerState { deadline: 0, .. } => Some(Reason::Locked),
        PeerState { deadline, .. } if now >= *deadline => Some(Reason::Expired),
        PeerState {
            idle_timeout,
            last_activity,
            ..
        } if *idle_timeout != 0 && now - last_activity >= *idle_timeout => Some(Reason::Idle),
        _ => None,
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let what = prop_oneof![
        3 => select(vec![flag::SYN, flag::SYN | flag::ACK, flag::ACK, flag::FIN | flag::ACK, flag::RST]).prop_map(What::Tcp),
        2 => Just(What::Udp),
        1 => Just(What::EchoRequest),
        1 => Just(What::EchoReply),
        1 => Just(What::Gre),
    ];
    (
        select(vec![FromPeer, ToPeer]),
        any::<bool>(),
        prop_oneof![6 => Just(0_u8), 2 => Just(1), 1 => Just(2)],
        prop::bool::weighted(0.2),
        select(vec![1000_u16, 1001]),
        select(vec![22_u16, 53, 443]),
        what,
    )
        .prop_map(
            |(direction, v6, peer, portal, peer_port, remote_port, what)| Shape {
                direction,
                v6,
                peer,
                portal,
                peer_port,
                remote_port,
                what,
            },
        )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => shapes().prop_map(Step::Packet),
        3 => (0..2_usize, select(vec![Level::None, Level::Mfa, Level::PhishingResistant]), 1..9_u64, select(vec![0, 250]))
            .prop_map(|(peer, level, minutes, idle)| Step::Session { peer, level, minutes, idle }),
        1 => (0..2_usize).prop_map(|peer| Step::Lock { peer }),
        1 => (0..POLICIES.len()).prop_map(Step::Policy),
        // Expiry is moved lazily, by an eighth: waits keep clear of the last eighth of every timeout.
        2 => select(vec![SECOND / 10, 100 * SECOND, 4 * 3600 * SECOND]).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..40)
}

fn write(memory: &mut Memory, oracle: &mut Oracle, peer: usize, session: Option<&SessionGrant>) {
    memory.set_session(peer, session);
    oracle.peers[peer] = memory.peers[peer];
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn inv8_the_decision_is_what_a_naive_oracle_says(steps in steps()) {
        let mut memory = Memory::with_cast();
        let mut oracle =
            Oracle { now: memory.now, peers: [PeerState::default(); 2], policy: POLICIES[0], flows: HashMap::new() };
        oracle.peers.copy_from_slice(&memory.peers);
        for (i, step) in steps.iter().enumerate() {
            match step {
                Step::Packet(shape) => {
                    let found = memory.run(shape.direction, &shape.bytes());
                    prop_assert_eq!(found, oracle.packet(shape), "at step {}: {:?}", i, shape);
                }
                Step::Session { peer, level, minutes, idle } => {
                    let session = SessionGrant {
                        tag: 1,
                        level: *level,
                        authenticated_at: memory.now,
                        deadline: memory.now + minutes * 60 * SECOND,
                        idle_timeout: idle * SECOND,
                        last_activity: memory.now,
                    };
                    write(&mut memory, &mut oracle, *peer, Some(&session));
                }
                Step::Lock { peer } => write(&mut memory, &mut oracle, *peer, None),
                Step::Policy(index) => {
                    memory.rules = Some(POLICIES[*index]);
                    memory.settings.epoch += 1;
                    oracle.policy = POLICIES[*index];
                }
                Step::Wait(time) => {
                    memory.now += time;
                    oracle.now += time;
                }
            }
        }
    }

    #[test]
    fn inv1_no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), to_peer: bool) {
        let mut memory = Memory::with_cast();
        memory.put(State::Live);
        memory.run(if to_peer { ToPeer } else { FromPeer }, &bytes);
    }
}

/// A packet with some of its bytes changed, and perhaps its end cut off.
fn mangled() -> impl Strategy<Value = (Direction, Vec<u8>)> {
    let changes = prop::collection::vec((0..120_usize, any::<u8>()), 0..4);
    (
        shapes(),
        any::<bool>(),
        changes,
        prop::option::weighted(0.2, 14..100_usize),
    )
        .prop_map(|(shape, error, changes, cut)| {
            let mut bytes = shape.bytes();
            if error {
                let (own, remote) = (shape.peer_address(), shape.remote());
                let quoted = Shape {
                    direction: if shape.direction == FromPeer {
                        ToPeer
                    } else {
                        FromPeer
                    },
                    ..shape
                };
                let error = unreachable(own, &quoted.bytes());
                let (from, to) = if shape.direction == FromPeer {
                    (own, remote)
                } else {
                    (remote, own)
                };
                bytes = ip(from, to, icmp_number(own), &error);
            }
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(cut.unwrap_or(usize::MAX));
            (shape.direction, bytes)
        })
}

#[test]
fn inv8_kernel_and_memory_agree_about_any_bytes() {
    let mut kernel = Kernel::open().unwrap();
    let mut memory = Memory::with_cast();
    kernel.put(State::Live);
    memory.put(State::Live);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 5000,
        failure_persistence: None,
        // Each packet leaves a trace in the tables: smaller ones found later mean nothing.
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    });
    let kernel = std::cell::RefCell::new(kernel);
    let memory = std::cell::RefCell::new(memory);
    runner
        .run(&mangled(), |(direction, bytes)| {
            let found = kernel.borrow_mut().run(direction, &bytes);
            prop_assert_eq!(
                found,
                memory.borrow_mut().run(direction, &bytes),
                "{:?}",
                bytes
            );
            Ok(())
        })
        .unwrap();
}
