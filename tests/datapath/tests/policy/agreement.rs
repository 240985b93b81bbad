//! Random policies: kernel, decision in memory, and the specification.

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use datapath_tests::{
    kernel::{BpfFs, Kernel},
    memory::Memory,
    observer::{Observed, Observer},
    packets::{echo_request, flag, ip, number, tcp, udp},
    rules::{self, Opener, Rule},
};
use gateway_common::{
    abi::{Direction, Level, NO_RULE, PeerState},
    clock::SECOND,
    decide::Decision,
};
use portcullis_agent::datapath::{Config, SessionGrant, now};
use portcullis_control::policy::Subject;
use proptest::{
    prelude::*,
    test_runner::{TestCaseError, TestRunner},
};

use crate::generate::{self, AGES};

const SUBJECTS: usize = 4;
const SESSIONS: usize = 8;
const PEERS: usize = SUBJECTS * SESSIONS;
/// How old an old login is here, and how long the packets of a case may take: both ages that a rule
/// may ask for are then on the same side of it for all of them.
const OLD: u64 = 9 * SECOND;
const SOON: u64 = 3 * SECOND;

const _: () = assert!(AGES[0] * SECOND > SOON && AGES[0] * SECOND < OLD);

fn session(kind: usize, now: u64) -> Option<SessionGrant> {
    let live = SessionGrant {
        tag: 1,
        level: Level::Mfa,
        authenticated_at: now,
        deadline: now + 7200 * SECOND,
        idle_timeout: 0,
        last_activity: now,
    };
    let old = now.saturating_sub(OLD).max(1);
    match kind {
        0 => None,
        1 => Some(live),
        2 => Some(SessionGrant {
            authenticated_at: old,
            ..live
        }),
        3 => Some(SessionGrant {
            level: Level::PhishingResistant,
            ..live
        }),
        4 => Some(SessionGrant {
            level: Level::PhishingResistant,
            authenticated_at: old,
            ..live
        }),
        5 => Some(SessionGrant {
            deadline: now,
            ..live
        }),
        6 => Some(SessionGrant {
            idle_timeout: 1,
            last_activity: 1,
            ..live
        }),
        _ => Some(SessionGrant {
            level: Level::None,
            idle_timeout: 3600 * SECOND,
            ..live
        }),
    }
}

fn key(peer: usize) -> [u8; 32] {
    [peer as u8 + 1; 32]
}

/// What is in the kernel, the same in memory, and how many packets there have been: each is from or to
/// an address, or with a port, of its own, so that each opens a flow.
struct Bench {
    kernel: Kernel,
    observer: Observer,
    memory: Memory,
    packets: u32,
    id: u64,
}

impl Bench {
    fn new() -> Self {
        let bpf_fs = BpfFs::mount().unwrap();
        let config = Config {
            max_peers: PEERS as u32,
            ..bpf_fs.config()
        };
        let mut kernel = Kernel::with(bpf_fs, config).unwrap();
        let mut memory = Memory::default();
        for peer in 0..PEERS {
            let n = peer as u16;
            let addresses = [
                format!("100.{}.0.0/16", 64 + n).parse().unwrap(),
                format!("fd77:{n:x}::/64").parse().unwrap(),
                exact_v4(n).into(),
                exact_v6(n).into(),
            ];
            kernel.datapath.upsert_peer(&key(peer), &addresses).unwrap();
            memory.peers.push(PeerState::default());
            memory
                .addresses
                .extend(addresses.map(|net| (net, peer as u32)));
        }
        let observer = Observer::new(&mut kernel.datapath).unwrap();
        Self {
            kernel,
            observer,
            memory,
            packets: 0,
            id: 0,
        }
    }

    /// Makes the policy hold, in both; peer `s * SESSIONS + k` is subject `s` with the session `k`.
    fn load(&mut self, rules: &[Rule], subjects: &[Subject]) {
        self.id += 1;
        let (policy, classes) = rules::compile(&rules::text(rules), subjects, self.id).unwrap();
        let number = |peer: usize| classes[peer / SESSIONS];
        self.kernel
            .datapath
            .switch_policy(Some((policy.id, &policy.tables)), |found| {
                number(usize::from(found[0] - 1))
            })
            .unwrap();
        self.memory
            .switch_policy(Some(Arc::new(policy.tables)), number);
    }

    fn log_in(&mut self, now: u64) {
        self.memory.now = now;
        for peer in 0..PEERS {
            let session = session(peer % SESSIONS, now);
            let key = key(peer);
            // Activity is kept unless a lock comes first.
            self.kernel.datapath.set_session(&key, None).unwrap();
            self.kernel
                .datapath
                .set_session(&key, session.as_ref())
                .unwrap();
            self.memory.set_session(peer, session.as_ref());
        }
    }

    fn packet(&mut self, peer: usize, opener: &Opener) -> Vec<u8> {
        self.packets += 1;
        let count = self.packets;
        let n = peer as u16;
        let ports = matches!(opener.protocol, number::TCP | number::UDP);
        // By an address that is the peer's alone, or by a prefix.
        let own = match (ports && count.is_multiple_of(2), opener.remote) {
            (true, IpAddr::V4(_)) => exact_v4(n),
            (true, IpAddr::V6(_)) => exact_v6(n),
            (false, IpAddr::V4(_)) => IpAddr::V4(Ipv4Addr::from(
                0x6440_0000 + u32::from(n) * 0x1_0000 + (count & 0xffff),
            )),
            (false, IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::new(
                0xfd77,
                n,
                0,
                0,
                0,
                0,
                (count >> 16) as u16,
                count as u16,
            )),
        };
        let (source, destination) = match opener.direction {
            Direction::FromPeer => (own, opener.remote),
            Direction::ToPeer => (opener.remote, own),
        };
        let other = count as u16;
        let payload = match opener.protocol {
            number::TCP => tcp(other, opener.port, flag::SYN),
            number::UDP => udp(other, opener.port, 8),
            number::ICMP | number::ICMPV6 => echo_request(own, other),
            _ => vec![0; 16],
        };
        ip(source, destination, opener.protocol, &payload)
    }
}

fn exact_v4(n: u16) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, 1, n as u8))
}

fn exact_v6(n: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd77, 0xffff, 0, 0, 0, 0, 0, n))
}

fn seen(decision: Decision) -> Observed {
    Observed {
        reason: decision.reason,
        rule: (decision.rule != NO_RULE).then_some(decision.rule),
    }
}

#[test]
fn inv8_kernel_memory_and_specification_agree_about_any_policy() {
    let bench = RefCell::new(Bench::new());
    let mut runner = TestRunner::new(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    });
    let strategy = (
        generate::rules(24),
        prop::collection::vec(generate::someone(), SUBJECTS),
        prop::collection::vec((0..PEERS, generate::opener()), 400),
    );
    runner
        .run(&strategy, |(rules, subjects, openers)| {
            let bench = &mut *bench.borrow_mut();
            bench.load(&rules, &subjects);
            let begun = now();
            bench.log_in(begun);
            let mut found = Vec::with_capacity(openers.len());
            for (peer, opener) in &openers {
                let bytes = bench.packet(*peer, opener);
                let seen = bench
                    .observer
                    .run(&mut bench.kernel, opener.direction, &bytes);
                found.push((bytes, seen.unwrap()));
            }
            if now() - begun > SOON {
                return Err(TestCaseError::reject("the machine is too slow just now"));
            }
            for ((peer, opener), (bytes, kernel)) in openers.iter().zip(found) {
                let session = session(peer % SESSIONS, begun);
                let subject = &subjects[peer / SESSIONS];
                let (reason, rule) = rules::judge(&rules, subject, session.as_ref(), begun, opener);
                let wanted = Observed { reason, rule };
                let memory = seen(bench.memory.decide(opener.direction, &bytes));
                let about = || {
                    format!(
                        "{opener:?} of {subject:?} with {session:?} under\n{}",
                        rules::text(&rules)
                    )
                };
                prop_assert_eq!(memory, wanted, "in memory: {}", about());
                prop_assert_eq!(kernel, Some(wanted), "in the kernel: {}", about());
            }
            Ok(())
        })
        .unwrap();
}

/// More of them by the variable that proptest knows.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(100)
}
