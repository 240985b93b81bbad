//! As large as a policy may be, in the kernel.

use std::{fmt::Write as _, net::IpAddr, time::Instant};

use datapath_tests::{
    kernel::{BpfFs, Kernel},
    observer::{Observed, Observer},
    packets::{flag, ip, number, tcp, udp},
    rules::{self, Action, Opener, Ports, Rule, subject},
    scene::State,
};
use gateway_common::abi::{Direction, Level};
use ipnet::IpNet;
use portcullis_agent::datapath::{Config, PeerView, now};
use portcullis_control::policy::{CompiledPolicy, Policy, Subject, limits, load};

const GROUPS: usize = 100;

/// The largest policy there may be: wide rules for each group, and narrow ones of ten prefixes each
/// for pairs of them, half in the one direction and half in the other.
fn largest() -> Vec<Rule> {
    let wide = |i: usize| Rule {
        who: vec![format!("group:g{i}")],
        direction: Direction::ALL[i % 2],
        prefixes: vec![net("10.0.0.0/8"), net("fd00::/16")],
        ports: vec![Ports::Range(6, 443, 443 + i as u16), Ports::Protocol(17)],
        action: Action::Allow {
            level: Level::Mfa,
            max_age: None,
        },
    };
    let mut all: Vec<Rule> = (0..GROUPS).map(wide).collect();
    let narrow = limits::RULES - GROUPS;
    // Two wide ones in each direction.
    let prefixes = limits::PREFIXES - 4;
    for i in 0..narrow {
        let part = prefixes * i / narrow..prefixes * (i + 1) / narrow;
        all.push(Rule {
            who: vec![
                format!("group:g{}", i % GROUPS),
                format!("group:g{}", (i * 7 + 1) % GROUPS),
            ],
            direction: Direction::ALL[i / 2 % 2],
            prefixes: part.map(narrow_prefix).collect(),
            ports: vec![
                Ports::Range(6, 1 + (i % 1000) as u16, 1 + (i % 1000) as u16),
                Ports::Protocol(1),
            ],
            action: if i % 5 == 0 {
                Action::Deny
            } else {
                Action::Allow {
                    level: Level::Mfa,
                    max_age: (i % 3 == 0).then_some(7200),
                }
            },
        });
    }
    all
}

fn narrow_prefix(n: usize) -> IpNet {
    if n.is_multiple_of(4) {
        net(&format!("fd00:{:x}:{:x}::/48", 1 + (n >> 16), n & 0xffff))
    } else {
        net(&format!(
            "10.{}.{}.{}/32",
            1 + (n >> 16),
            n >> 8 & 255,
            n & 255
        ))
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn key(peer: usize) -> [u8; 32] {
    let mut key = [0xaa; 32];
    key[..4].copy_from_slice(&(peer as u32).to_be_bytes());
    key
}

fn addresses(peer: usize) -> [IpAddr; 2] {
    let n = peer as u32;
    [
        IpAddr::from((0x6440_0000 + n).to_be_bytes()),
        IpAddr::from(((0xfd77_u128 << 112) + u128::from(n)).to_be_bytes()),
    ]
}

/// Each of them has rules that nobody else has all of.
fn subjects() -> Vec<Subject> {
    let pairs = (0..GROUPS).flat_map(|one| (one + 1..GROUPS).map(move |two| (one, two)));
    pairs
        .take(limits::EFFECTIVE_POLICIES)
        .enumerate()
        .map(|(i, (one, two))| subject(&format!("u{i}"), &[&format!("g{one}"), &format!("g{two}")]))
        .collect()
}

#[test]
fn inv8_the_largest_policy_loads_and_answers_right() {
    let rules = largest();
    let text = rules::text(&rules);
    let subjects = subjects();
    let (policy, classes) = rules::compile(&text, &subjects, 1).unwrap();
    let count: usize = policy.tables.prefixes.iter().flatten().map(Vec::len).sum();
    assert_eq!((rules.len(), count), (limits::RULES, limits::PREFIXES));
    assert_eq!(
        policy.tables.policies.len(),
        limits::EFFECTIVE_POLICIES + 1,
        "and nobody's"
    );

    let bpf_fs = BpfFs::mount().unwrap();
    let config = Config {
        max_peers: 8192,
        ..bpf_fs.config()
    };
    let mut gate = Kernel::with(bpf_fs, config).unwrap();
    let begun = now();
    let session = State::Live.session(begun);
    let peers: Vec<PeerView> = (0..subjects.len())
        .map(|peer| PeerView {
            key: key(peer),
            addresses: addresses(peer).map(IpNet::from).into(),
            session,
            policy: 0,
        })
        .collect();
    gate.datapath.load_sessions(&peers).unwrap();
    let start = Instant::now();
    gate.datapath
        .switch_policy(Some((1, &policy.tables)), |key| {
            let peer = u32::from_be_bytes([key[0], key[1], key[2], key[3]]);
            classes[peer as usize]
        })
        .unwrap();
    println!(
        "loaded in {:?}, {} KiB of tables in the kernel, text of {} KiB",
        start.elapsed(),
        gate.datapath.policy_bytes().unwrap() >> 10,
        text.len() >> 10
    );
    assert!(gate.datapath.policy_bytes().unwrap() < 64 << 20);

    let mut observer = Observer::new(&mut gate.datapath).unwrap();
    let mut reasons = std::collections::BTreeMap::new();
    // By an odd step, so that all kinds of rules and of users meet.
    for i in 0..400 {
        let rule = (i * 2579) % rules.len();
        let net = rules[rule].prefixes[i % rules[rule].prefixes.len()];
        // Somebody whom the rule is about, or not.
        let group = rules[rule].who[i % rules[rule].who.len()].trim_start_matches("group:");
        let of_group = |subject: &Subject| subject.groups.iter().any(|own| own == group);
        let peer = match i % 4 {
            0 => i * 31 % subjects.len(),
            _ => subjects.iter().position(of_group).unwrap_or(i),
        };
        let (protocol, port) = match i % 3 {
            0 => (number::UDP, 53),
            1 => (number::TCP, 443 + i as u16 % 50),
            _ => (number::TCP, 1 + ((rule + 1000 - GROUPS) % 1000) as u16),
        };
        let opener = Opener {
            direction: rules[rule].direction,
            remote: net.addr(),
            protocol,
            port,
        };
        let own = addresses(peer)[usize::from(opener.remote.is_ipv6())];
        let (source, destination) = match opener.direction {
            Direction::FromPeer => (own, opener.remote),
            Direction::ToPeer => (opener.remote, own),
        };
        let other = 2000 + i as u16;
        let payload = match protocol {
            number::TCP => tcp(other, port, flag::SYN),
            _ => udp(other, port, 8),
        };
        let packet = ip(source, destination, protocol, &payload);
        let found = observer.run(&mut gate, opener.direction, &packet).unwrap();
        let (reason, rule) =
            rules::judge(&rules, &subjects[peer], session.as_ref(), begun, &opener);
        assert_eq!(
            found,
            Some(Observed { reason, rule }),
            "{opener:?} of {peer}"
        );
        *reasons.entry(reason.name()).or_insert(0) += 1;
    }
    println!("{reasons:?}");
    for name in ["session", "no_rule", "unsolicited", "denied"] {
        assert!(
            reasons.get(name).is_some_and(|count| *count > 5),
            "{reasons:?}"
        );
    }
}

fn one(who: &str, to: &str) -> String {
    format!("who = [{who}]\nto = [{to}]\n")
}

fn numbered(rules: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    for (i, rule) in rules.enumerate() {
        writeln!(text, "[[rule]]\nname = \"r{i}\"\n{rule}").unwrap();
    }
    text
}

#[test]
fn what_is_larger_is_refused_in_so_many_words() {
    let refused = |text: &str, wanted: &str| {
        let told = load(text).unwrap_err().to_string();
        assert!(told.contains(wanted), "{told}");
    };
    let rule = one("\"*\"", "\"10.0.0.0/8\"");
    let rules = |count| numbered(std::iter::repeat_n(rule.clone(), count));
    assert!(load(&rules(limits::RULES)).is_ok());
    refused(&rules(limits::RULES + 1), "more than 10000 rules");

    let with = |prefixes: usize| {
        let all: Vec<String> = (0..prefixes)
            .map(|n| format!("\"{}\"", narrow_prefix(n).trunc()))
            .collect();
        numbered(all.chunks(1000).map(|part| one("\"*\"", &part.join(","))))
    };
    assert!(load(&with(limits::PREFIXES)).is_ok());
    refused(
        &with(limits::PREFIXES + 1),
        "more than 100000 distinct prefixes",
    );

    let users = limits::EFFECTIVE_POLICIES + 1;
    let text = numbered((0..users).map(|i| one(&format!("\"user:u{i}\""), "\"10.0.0.0/8\"")));
    let compiled = CompiledPolicy::compile(&Policy::parse(&text).unwrap()).unwrap();
    let mut all: Vec<Subject> = (0..users).map(|i| subject(&format!("u{i}"), &[])).collect();
    let told = compiled.classes(&all).unwrap_err().to_string();
    assert!(
        told.contains("more than 4096 distinct effective policies"),
        "{told}"
    );
    all.pop();
    assert!(compiled.classes(&all).is_ok());
}
