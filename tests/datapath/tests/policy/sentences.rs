//! Sentences of the specification that take more than one packet: flows that live on under another
//! policy, two peers, full tables.

use std::{net::IpAddr, sync::Arc};

use datapath_tests::{
    kernel::{BpfFs, Kernel, PASS},
    memory::Memory,
    packets::{echo_reply, echo_request, flag, icmp_number, ip, number, tcp, udp},
    rules::{compile, subject},
    scene::{Cast, Gate as _, OTHER_KEY, PEER_KEY, State, V4, V6, services},
};
use gateway_common::{
    abi::Direction::{self, FromPeer, ToPeer},
    verdict::{Reason, Verdict},
};
use portcullis_agent::datapath::Config;

/// The cast under a policy, in the kernel and in memory: the peer under test is `ann` of `staff`, the
/// other one `bob` of `guests`. Both hold a session.
struct Both {
    kernel: Kernel,
    memory: Memory,
    id: u64,
}

impl Both {
    fn new(text: &str) -> Self {
        let mut both = Self {
            kernel: Kernel::open().unwrap(),
            memory: Memory::with_cast(),
            id: 0,
        };
        both.kernel.put(State::Live);
        both.memory.put(State::Live);
        both.switch(text);
        both
    }

    fn switch(&mut self, text: &str) {
        self.id += 1;
        let subjects = [subject("ann", &["staff"]), subject("bob", &["guests"])];
        let (policy, classes) = compile(text, &subjects, self.id).unwrap();
        let datapath = &mut self.kernel.datapath;
        let class = |key: &[u8; 32]| match *key {
            PEER_KEY => classes[0],
            OTHER_KEY => classes[1],
            _ => 0,
        };
        datapath
            .switch_policy(Some((policy.id, &policy.tables)), class)
            .unwrap();
        assert_eq!(datapath.policy_id().unwrap(), self.id);
        self.memory
            .switch_policy(Some(Arc::new(policy.tables)), |peer| classes[peer]);
    }

    fn without_policy(&mut self) {
        self.kernel.datapath.switch_policy(None, |_| 0).unwrap();
        self.memory.switch_policy(None, |_| 0);
        assert_eq!(self.kernel.datapath.policy_id().unwrap(), 0);
        assert_eq!(self.kernel.datapath.policy_bytes().unwrap(), 0);
    }

    #[track_caller]
    fn expect(&mut self, direction: Direction, packet: &[u8], wanted: Reason) {
        assert_eq!(self.kernel.run(direction, packet), wanted, "in the kernel");
        assert_eq!(self.memory.run(direction, packet), wanted, "in memory");
    }
}

fn rule(name: &str, who: &str, what: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\nwho = [\"{who}\"]\n{what}\n")
}

/// Everything that the peer opens, in one connection each: there, and back.
fn flows(cast: &Cast) -> Vec<[Vec<u8>; 2]> {
    let (own, remote) = (cast.peer, cast.server);
    let icmp = icmp_number(own);
    vec![
        [
            ip(own, remote, number::TCP, &tcp(5000, 22, flag::ACK)),
            ip(remote, own, number::TCP, &tcp(22, 5000, flag::ACK)),
        ],
        [
            ip(own, remote, number::UDP, &udp(5000, 53, 8)),
            ip(remote, own, number::UDP, &udp(53, 5000, 8)),
        ],
        [
            ip(own, remote, icmp, &echo_request(own, 5)),
            ip(remote, own, icmp, &echo_reply(own, 5)),
        ],
        [
            ip(own, remote, number::GRE, &[0; 16]),
            ip(remote, own, number::GRE, &[0; 16]),
        ],
    ]
}

const SERVERS: &str = r#"to = ["10.9.0.0/16", "fd09::/16"]"#;

#[test]
fn inv4_live_flows_obey_a_new_policy_from_their_next_packet() {
    for cast in [V4, V6] {
        let all = rule("all", "group:staff", SERVERS);
        let mut gate = Both::new(&all);
        for [there, back] in flows(&cast) {
            gate.expect(FromPeer, &there, Reason::Session);
            gate.expect(ToPeer, &back, Reason::Session);
            // Another that permits it too: not even an answer is lost, though it comes first.
            gate.switch(
                &(rule(
                    "x",
                    "*",
                    "to = [\"10.0.0.0/8\"]\naction = \"deny\"\nports = [\"99\"]",
                ) + &all),
            );
            gate.expect(ToPeer, &back, Reason::Session);
            gate.expect(FromPeer, &there, Reason::Session);
            for (what, wanted, answer) in [
                ("action = \"deny\"", Reason::Denied, Reason::Denied),
                (
                    "require = \"phishing-resistant\"",
                    Reason::LevelTooLow,
                    Reason::LevelTooLow,
                ),
                ("max_age = \"1s\"", Reason::NotFresh, Reason::NotFresh),
                ("ports = [\"200\"]", Reason::NoRule, Reason::NoRule),
            ] {
                gate.switch(&rule("one", "user:ann", &format!("{SERVERS}\n{what}")));
                gate.expect(ToPeer, &back, answer);
                gate.expect(FromPeer, &there, wanted);
                // And back: the connection has only been interrupted.
                gate.switch(&all);
                gate.expect(ToPeer, &back, Reason::Session);
                gate.expect(FromPeer, &there, Reason::Session);
            }
            // Others' rules are none.
            gate.switch(&rule("others", "group:guests", SERVERS));
            gate.expect(FromPeer, &there, Reason::NoRule);
            // Without a session where none is required, and with one again.
            gate.switch(&rule(
                "open",
                "*",
                &format!("{SERVERS}\nrequire = \"none\""),
            ));
            gate.expect(ToPeer, &back, Reason::OpenRule);
            gate.kernel.datapath.set_session(&PEER_KEY, None).unwrap();
            gate.memory.set_session(0, None);
            gate.expect(FromPeer, &there, Reason::OpenRule);
            gate.switch(&all);
            gate.expect(FromPeer, &there, Reason::Locked);
            gate.expect(ToPeer, &back, Reason::Locked);
            gate.kernel.put(State::Live);
            gate.memory.put(State::Live);
            // And none at all: the gate without rules.
            gate.without_policy();
            gate.expect(ToPeer, &back, Reason::Session);
            gate.switch(&all);
        }
    }
}

#[test]
fn inv4_a_flow_towards_the_peer_ends_with_the_rule_that_let_it_in() {
    for cast in [V4, V6] {
        let desk = r#"from = ["10.9.0.0/24", "fd09::/64"]
ports = ["tcp/5985"]"#;
        let push = ip(
            cast.server,
            cast.peer,
            number::TCP,
            &tcp(40_000, 5985, flag::SYN),
        );
        let reply = ip(
            cast.peer,
            cast.server,
            number::TCP,
            &tcp(5985, 40_000, flag::ACK),
        );
        let mut gate = Both::new(&rule("desk", "group:staff", desk));
        gate.expect(FromPeer, &reply, Reason::NoRule);
        gate.expect(ToPeer, &push, Reason::Session);
        gate.expect(FromPeer, &reply, Reason::Session);
        // The remote's port is no permission.
        let forged = ip(
            cast.server,
            cast.peer,
            number::TCP,
            &tcp(5985, 445, flag::SYN),
        );
        gate.expect(ToPeer, &forged, Reason::Unsolicited);
        gate.switch(&rule("desk", "group:guests", desk));
        gate.expect(ToPeer, &push, Reason::Unsolicited);
        gate.expect(FromPeer, &reply, Reason::NoRule);
        // What the peer may now open itself it does.
        gate.switch(&rule("own", "group:staff", SERVERS));
        gate.expect(ToPeer, &push, Reason::Unsolicited);
        gate.expect(FromPeer, &reply, Reason::Session);
        gate.expect(ToPeer, &push, Reason::Session);
    }
}

#[test]
fn inv3_one_peer_reaches_another_where_the_rules_of_both_say_so() {
    for cast in [V4, V6] {
        let to = rule(
            "to",
            "group:staff",
            r#"to = ["10.77.0.3", "fd77::3"]
ports = ["tcp/22"]"#,
        );
        let from = rule(
            "from",
            "group:guests",
            r#"from = ["10.77.0.2", "fd77::2"]
ports = ["tcp/22"]"#,
        );
        let ask = ip(
            cast.peer,
            cast.other,
            number::TCP,
            &tcp(5000, 22, flag::SYN),
        );
        let answer = ip(
            cast.other,
            cast.peer,
            number::TCP,
            &tcp(22, 5000, flag::ACK),
        );
        for (text, out, into) in [
            (to.clone() + &from, Reason::Session, Reason::Session),
            (to.clone(), Reason::Session, Reason::Unsolicited),
            (from.clone(), Reason::NoRule, Reason::Session),
        ] {
            // On its way from the one, and on its way to the other.
            let mut gate = Both::new(&text);
            gate.expect(FromPeer, &ask, out);
            gate.expect(ToPeer, &ask, into);
            if (out, into) == (Reason::Session, Reason::Session) {
                gate.expect(FromPeer, &answer, Reason::Session);
                gate.expect(ToPeer, &answer, Reason::Session);
                // Both need their sessions for it, in both directions.
                gate.kernel.datapath.set_session(&OTHER_KEY, None).unwrap();
                gate.memory.set_session(1, None);
                gate.expect(FromPeer, &ask, Reason::Session);
                gate.expect(ToPeer, &ask, Reason::Locked);
                // Its answer is one no longer, and to ask itself it has no rule.
                gate.expect(FromPeer, &answer, Reason::NoRule);
                gate.expect(ToPeer, &answer, Reason::Session);
            }
        }
    }
}

#[test]
fn inv4_a_peer_of_another_group_obeys_its_rules_from_the_next_packet() {
    let mut gate = Both::new(
        &(rule("staff", "group:staff", SERVERS)
            + &rule("guests", "group:guests", "to = [\"10.8.0.0/16\"]")),
    );
    let [there, back] = &flows(&V4)[0];
    gate.expect(FromPeer, there, Reason::Session);
    let guests = gate.kernel.datapath.read_peer(&OTHER_KEY).unwrap().unwrap();
    gate.kernel
        .datapath
        .set_class(&PEER_KEY, guests.policy)
        .unwrap();
    assert_eq!(gate.kernel.run(ToPeer, back), Reason::NoRule);
    assert_eq!(gate.kernel.run(FromPeer, there), Reason::NoRule);
    // Nobody's rules are none, and neither are those of a number that there is not.
    for class in [0, 3, u32::MAX] {
        gate.kernel.datapath.set_class(&PEER_KEY, class).unwrap();
        assert_eq!(gate.kernel.run(FromPeer, there), Reason::NoRule);
    }
}

#[test]
fn inv1_a_policy_is_kept_by_a_restart_and_by_a_switch_that_fails() {
    let mut gate = Both::new(&rule("staff", "group:staff", SERVERS));
    let [there, back] = &flows(&V6)[0];
    gate.expect(FromPeer, there, Reason::Session);
    let mut kernel = gate.kernel.restart().unwrap();
    assert_eq!(kernel.datapath.policy_id().unwrap(), 1);
    assert_eq!(kernel.run(ToPeer, back), Reason::Session);
    // Tables that the kernel does not take: a prefix longer than an address.
    let subjects = [subject("ann", &["staff"])];
    let (mut policy, _) = compile(&rule("none", "group:guests", SERVERS), &subjects, 2).unwrap();
    let doubled = policy.tables.prefixes[0][0][0];
    policy.tables.prefixes[0][0].push(doubled);
    policy.tables.prefixes[0][0][1].length = 99;
    assert!(
        kernel
            .datapath
            .switch_policy(Some((2, &policy.tables)), |_| 0)
            .is_err()
    );
    assert_eq!(kernel.datapath.policy_id().unwrap(), 1);
    assert_eq!(kernel.run(ToPeer, back), Reason::Session);
    assert_eq!(kernel.run(FromPeer, there), Reason::Session);
    // And the next one that is whole holds.
    policy.tables.prefixes[0][0].pop();
    kernel
        .datapath
        .switch_policy(Some((3, &policy.tables)), |_| 0)
        .unwrap();
    assert_eq!(kernel.run(FromPeer, there), Reason::NoRule);
}

/// Thousands of flows where there is room for a few: each packet ends as if there were room.
#[test]
fn inv1_a_full_table_of_flows_neither_opens_nor_blocks() {
    const ROOM: u32 = 128;
    let bpf_fs = BpfFs::mount().unwrap();
    let config = Config {
        max_flows: ROOM,
        ..bpf_fs.config()
    };
    let mut gate = Kernel::with(bpf_fs, config).unwrap();
    gate.datapath.set_services(&services()).unwrap();
    gate.put(State::Live);
    let text = rule("dns", "*", &format!("{SERVERS}\nports = [\"udp/53\"]"))
        + &rule(
            "desk",
            "*",
            "from = [\"10.9.0.0/16\", \"fd09::/16\"]\nports = [\"udp/161\"]",
        );
    let (policy, classes) = compile(&text, &[subject("ann", &[])], 1).unwrap();
    gate.datapath
        .switch_policy(Some((1, &policy.tables)), |_| classes[0])
        .unwrap();
    let mut run = |direction, source: IpAddr, destination, from, to| {
        let packet = ip(source, destination, number::UDP, &udp(from, to, 8));
        let action = gate.action(direction, &packet).unwrap();
        if action == PASS {
            Verdict::Pass
        } else {
            Verdict::Drop
        }
    };
    // The second time round, all of them have been forgotten in between.
    for round in 0..2 {
        for port in 1000..4000 {
            for cast in [V4, V6] {
                let about = || format!("port {port}, round {round}, {cast:?}");
                // What the peer opens, and its answer at once.
                assert_eq!(
                    run(FromPeer, cast.peer, cast.server, port, 53),
                    Verdict::Pass,
                    "{}",
                    about()
                );
                assert_eq!(
                    run(ToPeer, cast.server, cast.peer, 53, port),
                    Verdict::Pass,
                    "{}",
                    about()
                );
                // What is opened towards it, and its answer.
                assert_eq!(
                    run(ToPeer, cast.server, cast.peer, port, 161),
                    Verdict::Pass,
                    "{}",
                    about()
                );
                assert_eq!(
                    run(FromPeer, cast.peer, cast.server, 161, port),
                    Verdict::Pass,
                    "{}",
                    about()
                );
                // What neither may.
                assert_eq!(
                    run(FromPeer, cast.peer, cast.server, port, 54),
                    Verdict::Drop,
                    "{}",
                    about()
                );
                assert_eq!(
                    run(ToPeer, cast.server, cast.peer, 54, port),
                    Verdict::Drop,
                    "{}",
                    about()
                );
            }
        }
    }
    // A session's end ends them all, remembered or not.
    gate.put(State::Revoked);
    for port in (1000..4000).step_by(7) {
        let packet = ip(V4.peer, V4.server, number::UDP, &udp(port, 53, 8));
        assert_ne!(gate.action(FromPeer, &packet).unwrap(), PASS);
    }
}
