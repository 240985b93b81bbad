//! A policy is switched while packets flood in: none of them may be judged by a mixture of the two.
//!
//! The two policies say the same about the packets of the flood, each by another rule, which stands at
//! another place in every table: what one permits always passes, what neither permits never does. Who
//! would look up a number of the one in a table of the other finds what says the opposite.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use aya::{TestRun as _, TestRunOptions};
use gateway_common::{
    abi::Direction::{self, FromPeer, ToPeer},
    policy::Tables,
    verdict::Verdict,
};
use portcullis_agent::datapath::{Counter, Datapath};

use crate::{
    kernel::{self, Kernel, PASS},
    packets::{self, Ipv4, Ipv6, flag, ip, number, tcp, udp},
    rules,
    scene::{Cast, Gate as _, OTHER_KEY, PEER_KEY, State, V4, V6},
};

/// Addresses of each family that the flood goes to, and comes from.
const TARGETS: u32 = 64;
/// Rules about those.
const RULES: usize = 6;
/// Packets of one kind that a program run takes in one go.
const BURST: u32 = 100;

/// How large the policies are.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Rules of a policy.
    pub rules: usize,
    /// Its distinct prefixes, those of `to` and of `from` apart; a multiple of 20.
    pub prefixes: usize,
}

impl Size {
    /// As large as a policy may be.
    pub const LARGEST: Self = Self {
        rules: 10_000,
        prefixes: 100_000,
    };
    /// For tests.
    pub const SMALL: Self = Self {
        rules: 46,
        prefixes: 1000,
    };

    /// Prefixes of one direction besides the targets: of IPv4, and of IPv6.
    fn fillers(self) -> (usize, usize) {
        let all = self.prefixes / 2 - 4 * TARGETS as usize;
        let v6 = all / 10 * 2;
        (all - v6, v6)
    }
}

/// One of the two policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The targets come last in its tables.
    Last,
    /// They come first.
    First,
}

/// Groups of the peer that the flood is of, and of another that may do what the first may not. Principals
/// are numbered by name.
fn groups(side: Side) -> [&'static str; 2] {
    match side {
        Side::Last => ["a", "b"],
        Side::First => ["b", "a"],
    }
}

/// The policy file of this side.
///
/// In either, prefix and rule `n` of the same kind and family say the opposite of `n + 1`.
pub fn text(side: Side, size: Size) -> String {
    let (always, others) = match side {
        Side::Last => (r#"ports = ["udp", "tcp/443"]"#, r#"ports = ["udp/1-999"]"#),
        Side::First => (r#"ports = ["17", "tcp/400-500", "icmp"]"#, ""),
    };
    let [flood, decoy] = groups(side);
    let (granted, refused) = (targets(0), targets(1));
    let (half, rest) = refused.split_at(refused.len() / 2);
    let (denied, ignored) = match side {
        Side::Last => (half, rest),
        Side::First => (rest, half),
    };
    let mut rules = Vec::new();
    for key in ["to", "from"] {
        rules.push(format!(
            "who = [\"group:{flood}\"]\n{key} = {granted:?}\n{always}\n"
        ));
        rules.push(format!(
            "who = [\"group:{decoy}\"]\n{key} = {refused:?}\n{others}\n"
        ));
        rules.push(format!(
            "who = [\"group:{flood}\"]\n{key} = {denied:?}\naction = \"deny\"\n"
        ));
        debug_assert_eq!(denied.len(), ignored.len());
    }
    rules.extend(fillers(side, size));
    if side == Side::First {
        // Rules, outcomes and intervals are numbered as they come.
        rules.reverse();
    }
    let mut text = String::new();
    for (number, rule) in rules.iter().enumerate() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "[[rule]]\nname = \"{side:?}-{number}\"\n{rule}");
    }
    text
}

/// Targets with even numbers always pass, those with odd ones never.
fn targets(parity: u32) -> Vec<String> {
    (0..TARGETS)
        .map(|i| 2 * i + parity)
        .flat_map(|n| [target(V4, n).to_string(), target(V6, n).to_string()])
        .collect()
}

/// The address that packets of the flood go to or come from; those with even numbers always pass.
pub fn target(cast: Cast, n: u32) -> IpAddr {
    match cast.peer {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(0x0a80_0000 + n)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(0xfd00_0001 << 96 | u128::from(n))),
    }
}

/// Rules about prefixes before or behind those of the targets: those with odd numbers are permitted,
/// as are targets with even ones.
fn fillers(side: Side, size: Size) -> Vec<String> {
    let (v4, v6) = size.fillers();
    let prefix = |n: usize| {
        let n = n as u32;
        let behind = u32::from(side == Side::First);
        if (n as usize) < v4 {
            Ipv4Addr::from(0x0a00_0000 + behind * 0x0100_0000 + n).to_string()
        } else {
            let first = 0xfd00_0000 + behind * 2;
            let net = (u128::from(first) << 96) + (u128::from(n - v4 as u32) << 64);
            format!("{}/64", Ipv6Addr::from(net))
        }
    };
    let [flood, decoy] = groups(side);
    let mut rules = Vec::new();
    let each = (size.rules - RULES) / 2;
    for key in ["to", "from"] {
        for (parity, who, count) in [(1, flood, each / 2), (0, decoy, each - each / 2)] {
            let all: Vec<usize> = (parity..v4 + v6).step_by(2).collect();
            for rule in 0..count {
                let part = &all[all.len() * rule / count..all.len() * (rule + 1) / count];
                let prefixes: Vec<String> = part.iter().map(|n| prefix(*n)).collect();
                let port = 1000 + rule % 3000;
                // One more principal, so that the others' numbers are not those of the other policy.
                let more = match (side, rule) {
                    (Side::First, 0) => "\"group:0\", ",
                    _ => "",
                };
                rules.push(format!(
                    "who = [{more}\"group:{who}\"]\n{key} = {prefixes:?}\nports = [\"udp\", \"tcp/{port}\"]\nmax_age = \"2h\"\n"
                ));
            }
        }
    }
    rules
}

/// A policy's tables, and the numbers of the effective policies of the peer that the flood is of, and of
/// the other one. In the other policy they are the other way round.
///
/// # Errors
///
/// When the policy is refused.
pub fn compile(side: Side, size: Size) -> anyhow::Result<(Tables, [u32; 2])> {
    let subjects = groups(side).map(|group| rules::subject("ann", &[group]));
    let (tables, classes) = rules::tables(&text(side, size), &subjects)?;
    let wanted = match side {
        Side::Last => [1, 2],
        Side::First => [2, 1],
    };
    ensure!(classes == wanted, "effective policies {classes:?}");
    Ok((tables, wanted))
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Flooded {
    /// How long each switch took, from the call until it was done.
    pub switches: Vec<Duration>,
    /// Packets that were judged meanwhile.
    pub packets: u64,
    /// Those of them that neither policy judges so.
    pub misjudged: u64,
}

/// A gate, two policies, and two more sets of its programs for the flood to go through.
#[derive(Debug)]
pub struct Arena {
    gate: Kernel,
    floods: [Datapath; 2],
    policies: [(Tables, [u32; 2]); 2],
    switches: u64,
}

impl Arena {
    /// Compiles the policies and makes the first of them hold.
    ///
    /// # Errors
    ///
    /// Without root, or when something is refused.
    pub fn new(size: Size) -> anyhow::Result<Self> {
        let mut gate = Kernel::open()?;
        gate.put(State::Live);
        let floods = [Datapath::open(&gate.config)?, Datapath::open(&gate.config)?];
        let mut arena = Self {
            gate,
            floods,
            policies: [compile(Side::Last, size)?, compile(Side::First, size)?],
            switches: 0,
        };
        arena.switch()?;
        Ok(arena)
    }

    /// The gate.
    pub fn gate(&mut self) -> &mut Kernel {
        &mut self.gate
    }

    /// Makes the other policy hold.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn switch(&mut self) -> anyhow::Result<Duration> {
        switch(&mut self.gate, &self.policies, &mut self.switches)
    }

    /// Switches so many times while packets flood in both directions: in the one, `always`, such as
    /// always pass, in the other such as never do.
    ///
    /// # Errors
    ///
    /// When the kernel refuses something.
    pub fn flood(&mut self, times: usize, always: Direction) -> anyhow::Result<Flooded> {
        let Self {
            gate,
            floods,
            policies,
            switches,
        } = self;
        let before = gate.datapath.counters()?;
        let stop = AtomicBool::new(false);
        let mut flooded = Flooded::default();
        thread::scope(|scope| {
            let stop = &stop;
            let threads: Vec<_> = floods
                .iter_mut()
                .zip(Direction::ALL)
                .map(|(datapath, direction)| {
                    scope.spawn(move || {
                        if direction == always {
                            pass(datapath, direction, stop)
                        } else {
                            bounce(datapath, direction, stop)
                        }
                    })
                })
                .collect();
            let mut result = Ok(());
            for _ in 0..times {
                // Some packets in between.
                thread::sleep(Duration::from_millis(5));
                match switch(gate, policies, switches) {
                    Ok(took) => flooded.switches.push(took),
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
            for thread in threads {
                match thread.join() {
                    Ok(ran) => result = result.and(ran),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            result
        })?;
        for counter in gate.datapath.counters()? {
            let Counter {
                reason, direction, ..
            } = counter;
            let earlier = before
                .iter()
                .find(|old| (old.reason, old.direction) == (reason, direction));
            let packets = counter.packets - earlier.map_or(0, |old| old.packets);
            let wanted = if direction == always {
                Verdict::Pass
            } else {
                Verdict::Drop
            };
            flooded.packets += packets;
            if reason.verdict() != wanted {
                flooded.misjudged += packets;
            }
        }
        Ok(flooded)
    }
}

fn switch(
    gate: &mut Kernel,
    policies: &[(Tables, [u32; 2]); 2],
    switches: &mut u64,
) -> anyhow::Result<Duration> {
    let (tables, [flood, decoy]) = &policies[(*switches % 2) as usize];
    *switches += 1;
    let class = |key: &[u8; 32]| match *key {
        PEER_KEY => *flood,
        OTHER_KEY => *decoy,
        _ => 0,
    };
    let begun = Instant::now();
    gate.datapath
        .switch_policy(Some((*switches, tables)), class)?;
    Ok(begun.elapsed())
}

/// A packet between the peer under test and a target.
fn between(cast: Cast, direction: Direction, n: u32, port: u16) -> Vec<u8> {
    let (source, destination) = ends(cast, direction, n);
    ip(source, destination, number::UDP, &udp(port, 53, 8))
}

fn ends(cast: Cast, direction: Direction, n: u32) -> (IpAddr, IpAddr) {
    match direction {
        FromPeer => (cast.peer, target(cast, n)),
        ToPeer => (target(cast, n), cast.peer),
    }
}

fn run(
    datapath: &mut Datapath,
    direction: Direction,
    packet: &[u8],
    n: u32,
) -> anyhow::Result<u32> {
    let mut options = TestRunOptions::new();
    options.data_in = Some(packet);
    options.repeat = n;
    let program = kernel::program(datapath.object(), direction)?;
    Ok(program.test_run(options)?.return_value)
}

/// Packets that always pass: the first and the later ones of flows, and fragments, about which the
/// rules are asked each time.
fn pass(datapath: &mut Datapath, direction: Direction, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut count = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        let cast = if count.is_multiple_of(2) { V4 } else { V6 };
        let n = 2 * (count / 2 % TARGETS);
        for port in 0..20 {
            let port = (count as u16).wrapping_mul(20).wrapping_add(port).max(1);
            run(datapath, direction, &between(cast, direction, n, port), 1)?;
        }
        run(datapath, direction, &between(cast, direction, n, 7), BURST)?;
        let (source, destination) = ends(cast, direction, n);
        let https = ip(source, destination, number::TCP, &tcp(9, 443, flag::SYN));
        run(datapath, direction, &https, BURST)?;
        let [first, later] = fragments(source, destination);
        run(datapath, direction, &first, 1)?;
        run(datapath, direction, &later, BURST)?;
    }
    Ok(())
}

/// Packets that never pass.
fn bounce(datapath: &mut Datapath, direction: Direction, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut count = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        let cast = if count.is_multiple_of(2) { V4 } else { V6 };
        let n = 2 * (count / 2 % TARGETS) + 1;
        let action = run(datapath, direction, &between(cast, direction, n, 7), BURST)?;
        // The counters tell; here only so that it shows early.
        ensure!(action != PASS, "a packet to target {n} has passed");
    }
    Ok(())
}

/// The first and the second fragment of a datagram.
fn fragments(source: IpAddr, destination: IpAddr) -> [Vec<u8>; 2] {
    let (head, tail) = (udp(5, 53, 56), [0x61; 32]);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = Ipv4 {
                id: 77,
                ..Ipv4::new(source, destination, number::UDP)
            };
            let with = |offset, more| Ipv4 {
                fragment: packets::flags(offset, more),
                ..header.clone()
            };
            [with(0, true).build(&head), with(64, false).build(&tail)]
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let with = |offset, more| {
                Ipv6::new(source, destination, number::UDP)
                    .with(number::FRAGMENT, packets::fragment(offset, more, 77))
            };
            [with(0, true).build(&head), with(64, false).build(&tail)]
        }
        _ => [Vec::new(), Vec::new()],
    }
}
