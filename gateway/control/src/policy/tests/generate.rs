//! Random policies with much overlap, as text, and the packets that tell their rules apart.

use std::net::IpAddr;

use gateway_common::abi::Direction;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use crate::policy::Subject;

const WHO: [&str; 9] = [
    "*",
    "user:ann",
    "user:bob",
    "user:cid",
    "group:red",
    "group:green",
    "group:blue",
    "group:cyan",
    "group:none",
];
const PREFIXES: [&str; 18] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.0.0/17",
    "10.1.128.0/17",
    "10.1.2.0/24",
    "10.1.2.3",
    "10.1.2.2/31",
    "10.2.0.0/16",
    "128.0.0.0/1",
    "::/0",
    "fd00::/8",
    "fd00:1::/32",
    "fd00:1::/64",
    "fd00:1::2",
    "fd00:1::2/127",
    "fd00:2::/32",
    "2001:db8::/32",
];
const PORTS: [&str; 16] = [
    "tcp",
    "udp",
    "icmp",
    "icmp6",
    "47",
    "0",
    "255",
    "6",
    "tcp/22",
    "tcp/1-22",
    "tcp/22-80",
    "tcp/80-65535",
    "tcp/1-65535",
    "udp/53",
    "udp/50-60",
    "tcp/23",
];
const REMOTES: [&str; 16] = [
    "10.1.2.3",
    "10.1.2.2",
    "10.1.2.4",
    "10.1.200.1",
    "10.1.0.0",
    "10.2.0.1",
    "10.255.255.255",
    "11.0.0.0",
    "200.1.1.1",
    "0.0.0.0",
    "fd00:1::2",
    "fd00:1::3",
    "fd00:1:0:1::1",
    "fd00:2::1",
    "fe80::1",
    "2001:db8::1",
];
const DESTINATIONS: [(u8, u16); 20] = [
    (6, 0),
    (6, 1),
    (6, 21),
    (6, 22),
    (6, 23),
    (6, 79),
    (6, 80),
    (6, 81),
    (6, 65535),
    (17, 0),
    (17, 49),
    (17, 50),
    (17, 53),
    (17, 60),
    (17, 61),
    (1, 0),
    (58, 0),
    (47, 0),
    (0, 0),
    (255, 65535),
];

/// A packet that opens a flow: direction, remote address, protocol, destination port.
pub(super) type Opener = (Direction, IpAddr, u8, u16);

/// A policy file of up to `most` rules.
pub(super) fn policy(most: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(rule(), 0..=most).prop_map(|rules| {
        rules
            .iter()
            .enumerate()
            .map(|(i, rule)| format!("[[rule]]\nname = \"r{i}\"\n{rule}\n"))
            .collect()
    })
}

fn rule() -> impl Strategy<Value = String> {
    let ports = prop_oneof![
        Just(String::new()),
        subsequence(PORTS.to_vec(), 1..5).prop_map(|ports| format!("ports = {}\n", list(&ports))),
    ];
    let action = prop_oneof![
        1 => Just("action = \"deny\"\n".to_owned()),
        1 => Just("require = \"none\"\n".to_owned()),
        4 => (select(vec!["", "require = \"mfa\"\n", "require = \"phishing-resistant\"\n"]),
            select(vec!["", "max_age = \"5m\"\n", "max_age = \"15m\"\n"]))
            .prop_map(|(require, age)| format!("action = \"allow\"\n{require}{age}")),
    ];
    let remote = (
        select(vec!["to", "to", "from"]),
        subsequence(PREFIXES.to_vec(), 1..5),
    );
    (subsequence(WHO.to_vec(), 1..4), remote, ports, action).prop_map(
        |(who, (key, prefixes), ports, action)| {
            format!(
                "who = {}\n{key} = {}\n{ports}{action}",
                list(&who),
                list(&prefixes)
            )
        },
    )
}

fn list(items: &[&str]) -> String {
    format!("{items:?}")
}

/// A user with some of the groups.
pub(super) fn subject() -> impl Strategy<Value = Subject> {
    let groups = subsequence(vec!["red", "green", "blue", "cyan", "unheard-of"], 0..=5);
    (select(vec!["ann", "bob", "dan"]), groups)
        .prop_map(|(user, groups)| super::subject(user, &groups))
}

/// Packets at the edges of what the rules name, and next to them.
pub(super) fn openers() -> Vec<Opener> {
    let mut openers = Vec::new();
    for direction in Direction::ALL {
        for remote in REMOTES {
            let remote: IpAddr = remote.parse().unwrap();
            openers
                .extend(DESTINATIONS.map(|(protocol, port)| (direction, remote, protocol, port)));
        }
    }
    openers
}

/// Any packet.
pub(super) fn opener() -> impl Strategy<Value = Opener> {
    let remote = prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
        any::<u128>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
        any::<Index>().prop_map(|index| index.get(&REMOTES).parse().unwrap()),
    ];
    (
        select(Direction::ALL.to_vec()),
        remote,
        any::<u8>(),
        any::<u16>(),
    )
}
