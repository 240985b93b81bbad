//! Bytes as the story of a gate, and as a policy file: for fuzzers, which know how to find bytes that
//! tell a new story. Whatever they are, nothing panics, and what is checked here holds.

use std::sync::{Arc, LazyLock};

use gateway_common::{
    abi::{Direction, Level, NO_PEER},
    clock::SECOND,
    policy::Tables,
    verdict::{Reason, Verdict},
};
use portcullis_agent::{datapath::SessionGrant, desired};
use portcullis_control::policy::{CompiledPolicy, Policy};

use crate::{
    memory::Memory,
    packets::{
        self, Ipv4, Ipv6, echo_reply, echo_request, icmp_number, ip, number, tcp, udp, unreachable,
    },
    rules::{self, subject},
    scene::{Cast, V4, V6},
};

/// Longest packet in a story.
const LONGEST: usize = 160;

/// Policies that hold by turns.
const POLICIES: [&str; 3] = [
    r#"
[[rule]]
name = "all"
who = ["*"]
to = ["0.0.0.0/0", "::/0"]

[[rule]]
name = "open"
who = ["*"]
to = ["10.9.0.0/24", "fd09::/64"]
ports = ["udp/53", "icmp", "icmp6"]
require = "none"

[[rule]]
name = "push"
who = ["*"]
from = ["10.9.0.0/16", "fd09::/16", "10.77.0.0/24", "fd77::/64"]
"#,
    r#"
[[rule]]
name = "fresh"
who = ["*"]
to = ["10.0.0.0/8", "fd00::/8"]
max_age = "1m"

[[rule]]
name = "strong"
who = ["user:ann"]
to = ["10.9.0.1", "fd09::1"]
ports = ["tcp/1-1024"]
require = "phishing-resistant"

[[rule]]
name = "never"
who = ["user:bob"]
to = ["10.9.0.1", "fd09::1"]
ports = ["udp"]
action = "deny"
"#,
    "",
];

static TABLES: LazyLock<Vec<(Arc<Tables>, Vec<u32>)>> = LazyLock::new(|| {
    let subjects = [subject("ann", &[]), subject("bob", &[])];
    POLICIES
        .iter()
        .filter_map(|text| {
            let (tables, classes) = rules::tables(text, &subjects).ok()?;
            Some((Arc::new(tables), classes))
        })
        .collect()
});

/// The bytes that are still to be read; zeros when there are none.
struct Story<'a>(&'a [u8]);

impl<'a> Story<'a> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let length = usize::from(self.byte()).min(most).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    fn direction(&mut self) -> Direction {
        self.pick(&Direction::ALL)
    }

    /// A packet that makes sense, but for a few bytes.
    fn packet(&mut self, direction: Direction) -> Vec<u8> {
        let mut packet = self.plain(direction, true);
        for _ in 0..self.byte() % 4 {
            let (at, value) = (usize::from(self.byte()), self.byte());
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        if self.byte() < 16 {
            packet.truncate(usize::from(self.byte()));
        }
        packet
    }

    fn plain(&mut self, direction: Direction, outer: bool) -> Vec<u8> {
        let cast: Cast = self.pick(&[V4, V6]);
        let own = self.pick(&[cast.peer, cast.peer, cast.other, cast.stranger]);
        let remote = self.pick(&[
            cast.server,
            cast.server,
            cast.portal,
            cast.other,
            cast.router,
        ]);
        let ports = [
            self.pick(&[1000, 1001, 53]),
            self.pick(&[22, 53, 443, 5985]),
        ];
        let (source, destination, [from, to]) = match direction {
            Direction::FromPeer => (own, remote, ports),
            Direction::ToPeer => (remote, own, [ports[1], ports[0]]),
        };
        let icmp = icmp_number(own);
        let (protocol, payload) = match self.byte() % 8 {
            0 | 1 => (number::TCP, tcp(from, to, self.byte())),
            2 => (number::UDP, udp(from, to, 8)),
            3 => (icmp, echo_request(own, ports[0])),
            4 => (icmp, echo_reply(own, ports[0])),
            5 => (number::GRE, vec![0; 8]),
            6 if outer => {
                let back = match direction {
                    Direction::FromPeer => Direction::ToPeer,
                    Direction::ToPeer => Direction::FromPeer,
                };
                let quoted = self.plain(back, false);
                return if quoted.first().is_some_and(|first| first >> 4 == 4) == own.is_ipv4() {
                    ip(source, destination, icmp, &unreachable(own, &quoted))
                } else {
                    quoted
                };
            }
            _ => (number::UDP, udp(from, to, 56)),
        };
        self.framed(source, destination, protocol, &payload)
    }

    /// With options, extension headers or as a fragment, now and then.
    fn framed(
        &mut self,
        source: std::net::IpAddr,
        destination: std::net::IpAddr,
        protocol: u8,
        payload: &[u8],
    ) -> Vec<u8> {
        use std::net::IpAddr;
        let kind = self.byte() % 8;
        let (offset, more) = match self.byte() % 4 {
            0 => (0, true),
            1 => (64, true),
            2 => (64, false),
            _ => (8 * u16::from(self.byte()), false),
        };
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = Ipv4::new(source, destination, protocol);
                if kind == 0 {
                    header.fragment = packets::flags(offset, more);
                } else if kind == 1 {
                    header.options = self.bytes(40).to_vec();
                    header
                        .options
                        .resize(header.options.len().next_multiple_of(4), 0);
                }
                header.build(payload)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut header = Ipv6::new(source, destination, protocol);
                if kind == 0 {
                    header = header.with(number::FRAGMENT, packets::fragment(offset, more, 7));
                } else if kind < 3 {
                    for _ in 0..kind {
                        let next =
                            self.pick(&[number::HOP_BY_HOP, number::DESTINATION, number::ROUTING]);
                        header = header.with(next, packets::options(1 + self.byte() % 3));
                    }
                }
                header.build(payload)
            }
            _ => Vec::new(),
        }
    }
}

/// Packets, sessions, policies and time, in the order of the story.
///
/// # Panics
///
/// When the gate does something that it must not.
pub fn gate(story: &[u8]) {
    let mut story = Story(story);
    let mut memory = Memory::with_cast();
    while !story.0.is_empty() {
        match story.byte() % 16 {
            0 => {
                let session = SessionGrant {
                    tag: 1,
                    level: story.pick(&[Level::None, Level::Mfa, Level::PhishingResistant]),
                    authenticated_at: memory.now - u64::from(story.byte() % 100) * SECOND,
                    deadline: memory.now + u64::from(story.byte()) * SECOND,
                    idle_timeout: u64::from(story.byte()) * SECOND,
                    last_activity: memory.now,
                };
                memory.set_session(usize::from(story.byte() % 2), Some(&session));
            }
            1 => memory.set_session(usize::from(story.byte() % 2), None),
            2 => match TABLES.get(usize::from(story.byte()) % (POLICIES.len() + 1)) {
                Some((tables, classes)) => {
                    memory.switch_policy(Some(tables.clone()), |peer| classes[peer]);
                }
                None => memory.switch_policy(None, |_| 0),
            },
            3 => memory.now += story.pick(&[1, SECOND, 31 * SECOND, 181 * SECOND, 7201 * SECOND]),
            4 => {
                let direction = story.direction();
                let packet = story.bytes(LONGEST).to_vec();
                check(&mut memory, direction, &packet);
            }
            _ => {
                let direction = story.direction();
                let packet = story.packet(direction);
                check(&mut memory, direction, &packet);
            }
        }
    }
}

/// Decides about a packet, and looks whether the decision may be.
fn check(memory: &mut Memory, direction: Direction, packet: &[u8]) {
    let before = memory.peers.clone();
    let mut forgetful = memory.clone();
    for peer in &mut forgetful.peers {
        // Every flow is decided anew.
        peer.generation += 1;
    }
    let decision = memory.decide(direction, packet);
    assert_eq!(
        decision,
        forgetful.decide(direction, packet),
        "a cached verdict differs from a new one about {packet:02x?}"
    );
    let Some(peer) = memory.peers.get(decision.peer as usize) else {
        assert_eq!(decision.peer, NO_PEER);
        assert_eq!(decision.reason.verdict(), Verdict::Drop, "{decision:?}");
        return;
    };
    match decision.reason {
        Reason::Session => {
            assert!(
                memory.now < peer.deadline && peer.level > Level::None as u8,
                "{decision:?} with {peer:?}"
            );
            assert!(
                peer.idle_timeout == 0 || memory.now - peer.last_activity < peer.idle_timeout,
                "{decision:?} with {peer:?}"
            );
        }
        reason if reason.verdict() == Verdict::Drop => {
            assert_eq!(memory.peers, before, "a dropped packet has done something");
        }
        _ => {}
    }
}

/// A policy file: it is refused, or everybody understands it alike.
///
/// # Panics
///
/// When they do not.
pub fn policy(file: &[u8]) {
    let Ok(text) = std::str::from_utf8(file) else {
        return;
    };
    let policy = match Policy::parse(text) {
        Ok(policy) => policy,
        Err(problems) => {
            assert!(!problems.to_string().is_empty());
            return;
        }
    };
    let Ok(compiled) = CompiledPolicy::compile(&policy) else {
        return;
    };
    let subjects = [subject("ann", &["red"]), subject("bob", &[])];
    let Ok(classes) = compiled.classes(&subjects) else {
        return;
    };
    let sent = desired::Policy::try_from(compiled.to_wire(1, classes.policies()));
    let sent = match sent {
        Ok(sent) => sent,
        Err(error) => panic!("the agent refuses what control accepts: {error}"),
    };
    let mut compiled = compiled;
    for (person, class) in subjects.iter().zip(classes.numbers()) {
        let Ok(own) = compiled.assign(person) else {
            continue;
        };
        for rule in policy.rules() {
            for net in &rule.prefixes {
                for (protocol, port) in [(6, 22), (17, 53), (1, 0), (47, 0)] {
                    let asked = (rule.direction, net.addr(), protocol, port);
                    assert_eq!(
                        sent.tables
                            .lookup(*class, asked.0, asked.1, asked.2, asked.3),
                        compiled.lookup(own, asked.0, asked.1, asked.2, asked.3),
                        "{asked:?}"
                    );
                }
            }
        }
    }
}
