//! Random policies with much overlap, and packets at the edges of what their rules name.

use std::net::IpAddr;

use datapath_tests::{
    packets::number,
    rules::{Action, Opener, Ports, Rule, subject},
};
use gateway_common::abi::{Direction, Level};
use ipnet::IpNet;
use portcullis_control::policy::Subject;
use proptest::{
    prelude::*,
    sample::{select, subsequence},
};

/// Seconds that a login may be old at most; sessions are younger than the one or older than the other
/// by a good deal.
pub(crate) const AGES: [u64; 2] = [5, 3600];

const WHO: [&str; 8] = [
    "*",
    "user:ann",
    "user:bob",
    "group:red",
    "group:green",
    "group:blue",
    "group:cyan",
    "group:none",
];
const REMOTES: [&str; 14] = [
    "10.1.2.3",
    "10.1.2.2",
    "10.1.2.4",
    "10.1.200.1",
    "10.1.0.0",
    "10.255.255.255",
    "11.0.0.0",
    "200.1.1.1",
    "fd00:1::2",
    "fd00:1::3",
    "fd00:1:0:1::1",
    "fd00:2::1",
    "fe80::1",
    "2001:db8::1",
];
const LENGTHS_V4: [u8; 12] = [0, 1, 7, 8, 9, 15, 16, 17, 24, 30, 31, 32];
const LENGTHS_V6: [u8; 11] = [0, 1, 8, 32, 47, 48, 63, 64, 126, 127, 128];
const EDGES: [u16; 9] = [1, 21, 22, 23, 53, 80, 443, 1024, 65535];
const PROTOCOLS: [u8; 9] = [1, 6, 17, 47, 50, 58, 132, 255, 0];
/// Protocols of packets; ICMP is the family's own.
const SENT: [u8; 6] = [6, 6, 17, 1, number::GRE, 132];

pub(crate) fn rules(most: usize) -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(rule(), 0..=most)
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![
        1 => Just(Action::Deny),
        1 => Just(Action::Allow { level: Level::None, max_age: None }),
        5 => (select(vec![Level::Mfa, Level::Mfa, Level::PhishingResistant]),
            select(vec![None, None, Some(AGES[0]), Some(AGES[1])]))
            .prop_map(|(level, max_age)| Action::Allow { level, max_age }),
    ];
    let ports = prop_oneof![
        1 => Just(Vec::new()),
        3 => prop::collection::vec(ports(), 1..4),
    ];
    (
        subsequence(WHO.to_vec(), 1..4),
        select(vec![
            Direction::FromPeer,
            Direction::FromPeer,
            Direction::ToPeer,
        ]),
        prop::collection::btree_set(prefix(), 1..5),
        ports,
        action,
    )
        .prop_map(|(who, direction, prefixes, ports, action)| Rule {
            who: who.into_iter().map(str::to_owned).collect(),
            direction,
            prefixes: prefixes.into_iter().collect(),
            ports,
            action,
        })
}

fn ports() -> impl Strategy<Value = Ports> {
    prop_oneof![
        select(PROTOCOLS.to_vec()).prop_map(Ports::Protocol),
        (
            select(vec![number::TCP, number::UDP]),
            select(EDGES.to_vec()),
            select(EDGES.to_vec())
        )
            .prop_map(|(protocol, one, two)| Ports::Range(
                protocol,
                one.min(two),
                one.max(two)
            )),
    ]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (
        select(REMOTES.to_vec()),
        select(LENGTHS_V4.to_vec()),
        select(LENGTHS_V6.to_vec()),
    )
        .prop_map(|(remote, v4, v6)| {
            let address: IpAddr = remote.parse().unwrap();
            let length = if address.is_ipv4() { v4 } else { v6 };
            IpNet::new(address, length).unwrap().trunc()
        })
}

/// A user with some of the groups.
pub(crate) fn someone() -> impl Strategy<Value = Subject> {
    let groups = subsequence(vec!["red", "green", "blue", "cyan", "unheard-of"], 0..=5);
    (select(vec!["ann", "bob", "dan"]), groups).prop_map(|(user, groups)| subject(user, &groups))
}

pub(crate) fn opener() -> impl Strategy<Value = Opener> {
    let port = prop_oneof![
        3 => (select(EDGES.to_vec()), 0..3_u16)
            .prop_map(|(edge, beside)| (edge - 1).saturating_add(beside)),
        1 => any::<u16>(),
    ];
    (
        select(Direction::ALL.to_vec()),
        select(REMOTES.to_vec()),
        0..10_u8,
        select(SENT.to_vec()),
        port,
    )
        .prop_map(|(direction, remote, beside, protocol, port)| {
            let remote: IpAddr = remote.parse().unwrap();
            let protocol = match (protocol, remote) {
                (number::ICMP, IpAddr::V6(_)) => number::ICMPV6,
                _ => protocol,
            };
            Opener {
                direction,
                remote: if beside == 0 {
                    neighbour(remote)
                } else {
                    remote
                },
                protocol,
                port: if matches!(protocol, number::TCP | number::UDP) {
                    port
                } else {
                    0
                },
            }
        })
}

/// The address that differs in the last bit.
fn neighbour(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::from((u32::from(v4) ^ 1).to_be_bytes()),
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) ^ 1).to_be_bytes()),
    }
}
