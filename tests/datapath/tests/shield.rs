//! The shield's programs on this machine's kernel.

use std::{collections::HashSet, net::SocketAddr};

use datapath_tests::{
    packets::{ip, number, tcp, udp},
    shield::{GATEWAY, Guarded, PEER},
    wireguard::{PORT, cookie, data, ethernet, frame, initiation, message, response},
};
use gateway_common::shield::{BUCKET_SLOTS, Budget, ShieldReason};
use portcullis_agent::datapath::{Shield, ShieldKept, ShieldMode};

const FAMILIES: [usize; 2] = [0, 1];

#[test]
fn data_passes_for_indexes_that_the_gateway_gave_out_and_for_no_other() {
    let mut guarded = Guarded::new().unwrap();
    for family in FAMILIES {
        let (ours, theirs) = (0x1234_5670 + family as u32, 0x9abc_def0);
        assert_eq!(
            guarded.receive(family, &data(ours)).unwrap(),
            Some(ShieldReason::DeadIndex)
        );
        guarded.send(family, &response(ours, theirs)).unwrap();
        assert_eq!(
            guarded.receive(family, &data(ours)).unwrap(),
            Some(ShieldReason::Live)
        );
        // A peer that roams keeps its session.
        let elsewhere = SocketAddr::new(GATEWAY[family], 9);
        assert_eq!(
            guarded.receive_from(elsewhere, &data(ours)).unwrap(),
            Some(ShieldReason::Live)
        );
        for dead in [theirs, ours + 64, ours + 1, 0, u32::MAX] {
            assert_eq!(
                guarded.receive(family, &data(dead)).unwrap(),
                Some(ShieldReason::DeadIndex),
                "{dead:#x}"
            );
        }
        // Two peers' worth of an index, and the gateway's own data, teach nothing.
        guarded.send(family, &data(ours + 8)).unwrap();
        guarded.send(family, &cookie(ours + 8)).unwrap();
        assert_eq!(
            guarded.receive(family, &data(ours + 8)).unwrap(),
            Some(ShieldReason::DeadIndex)
        );
    }
    assert_eq!(guarded.shield.live(), 2);
}

#[test]
fn responses_and_cookies_pass_when_they_answer_something() {
    let mut guarded = Guarded::new().unwrap();
    for family in FAMILIES {
        let (mine, other) = (0x100 + family as u32, 0x200 + family as u32);
        assert_eq!(
            guarded.receive(family, &response(5, mine)).unwrap(),
            Some(ShieldReason::Unexpected)
        );
        assert_eq!(
            guarded.receive(family, &cookie(mine)).unwrap(),
            Some(ShieldReason::Unexpected)
        );
        guarded.send(family, &initiation(mine)).unwrap();
        assert_eq!(
            guarded.receive(family, &cookie(mine)).unwrap(),
            Some(ShieldReason::Live)
        );
        assert_eq!(
            guarded.receive(family, &response(5, mine)).unwrap(),
            Some(ShieldReason::Live)
        );
        assert_eq!(
            guarded.receive(family, &response(6, mine)).unwrap(),
            Some(ShieldReason::Live),
            "the first may have been a forgery"
        );
        assert_eq!(
            guarded.receive(family, &data(mine)).unwrap(),
            Some(ShieldReason::Live)
        );
        // A peer under load answers our response with a cookie.
        guarded.send(family, &response(other, 5)).unwrap();
        assert_eq!(
            guarded.receive(family, &cookie(other)).unwrap(),
            Some(ShieldReason::Live)
        );
        assert_eq!(
            guarded.receive(family, &response(5, other)).unwrap(),
            Some(ShieldReason::Unexpected)
        );
    }
}

#[test]
fn malformed_messages_are_dropped() {
    let mut guarded = Guarded::new().unwrap();
    for family in FAMILIES {
        guarded.send(family, &response(7, 0)).unwrap();
        let mut reserved = data(7);
        reserved[3] = 1;
        let bad = [
            vec![],
            vec![4, 0, 0],
            message(0, &[7], 64),
            message(5, &[7], 148),
            message(1, &[7], 147),
            message(2, &[7, 7], 93),
            message(3, &[7], 65),
            message(4, &[7], 31),
            reserved,
        ];
        for bad in bad {
            assert_eq!(
                guarded.receive(family, &bad).unwrap(),
                Some(ShieldReason::Malformed),
                "{bad:02x?}"
            );
        }
        assert_eq!(
            guarded.receive(family, &message(4, &[7], 32)).unwrap(),
            Some(ShieldReason::Live),
            "keepalive"
        );
        assert_eq!(
            guarded.receive(family, &message(4, &[7], 1452)).unwrap(),
            Some(ShieldReason::Live),
            "full"
        );
    }
}

#[test]
fn nothing_else_on_the_card_is_touched() {
    let mut guarded = Guarded::new().unwrap();
    for family in FAMILIES {
        let (peer, gateway) = (PEER[family], GATEWAY[family]);
        let at = |ip, port| SocketAddr::new(ip, port);
        let dead = data(0xdead);
        let mut later = frame(&[], at(peer, 4000), at(gateway, PORT), &dead);
        let mut frames = vec![
            frame(&[], at(peer, 4000), at(gateway, PORT + 1), &dead),
            frame(&[], at(peer, PORT), at(gateway, 53), &dead),
            // Forwarded to a gateway behind this one.
            frame(&[], at(peer, 4000), at(peer, PORT), &dead),
            ethernet(
                &[],
                gateway,
                &ip(peer, gateway, number::TCP, &tcp(PORT, PORT, 2)),
            ),
            frame(
                &[0x8100, 0x8100, 0x8100],
                at(peer, 4000),
                at(gateway, PORT),
                &dead,
            ),
            later[..40].to_vec(),
            later[..14].to_vec(),
        ];
        if family == 0 {
            later[20..22].copy_from_slice(&1_u16.to_be_bytes());
            frames.push(later);
        } else {
            let mut inner = vec![number::UDP, 0, 0, 0, 0, 0, 0, 0];
            inner.extend(udp(4000, PORT, 64));
            frames.push(ethernet(
                &[],
                gateway,
                &ip(peer, gateway, number::DESTINATION, &inner),
            ));
        }
        for frame in frames {
            assert_eq!(guarded.judge(&frame).unwrap(), None, "{frame:02x?}");
        }
        for tags in [&[0x8100_u16] as &[_], &[0x88a8, 0x8100]] {
            let tagged = frame(tags, at(peer, 4000), at(gateway, PORT), &dead);
            assert_eq!(
                guarded.judge(&tagged).unwrap(),
                Some(ShieldReason::DeadIndex),
                "{tags:x?}"
            );
        }
    }
}

#[test]
fn fragments_and_split_frames_pass_where_they_cannot_be_judged() {
    let mut guarded = Guarded::new().unwrap();
    let at = |ip, port| SocketAddr::new(ip, port);
    for family in FAMILIES {
        let (from, to) = (at(PEER[family], 4000), at(GATEWAY[family], PORT));
        let whole = frame(&[], from, to, &data(0xdead));
        let start = if family == 0 {
            14 + 20 + 8
        } else {
            14 + 40 + 8
        };
        // Up to the last byte that is needed, it cannot be told from a live peer's.
        for shown in start..start + 12 {
            assert_eq!(
                guarded.judge(&whole[..shown]).unwrap(),
                Some(ShieldReason::OutOfSight),
                "{shown} bytes"
            );
        }
        assert_eq!(
            guarded.judge(&whole[..start + 12]).unwrap(),
            Some(ShieldReason::DeadIndex)
        );
    }
    // A first fragment shows the index, and UDP's length is that of the whole.
    guarded.send(0, &response(0x600d, 1)).unwrap();
    let (from, to) = (at(PEER[0], 4000), at(GATEWAY[0], PORT));
    for (index, reason) in [
        (0x600d, ShieldReason::Live),
        (0xbad0, ShieldReason::DeadIndex),
    ] {
        let mut first = frame(&[], from, to, &message(4, &[index], 1452));
        first[20..22].copy_from_slice(&0x2000_u16.to_be_bytes());
        first.truncate(14 + 20 + 48);
        assert_eq!(guarded.judge(&first).unwrap(), Some(reason));
    }
}

#[test]
fn options_of_ipv4_are_looked_through() {
    let mut guarded = Guarded::new().unwrap();
    let (from, to) = (
        SocketAddr::new(PEER[0], 4000),
        SocketAddr::new(GATEWAY[0], PORT),
    );
    guarded.send(0, &response(0x600d, 1)).unwrap();
    for words in [1_usize, 5, 10] {
        for (index, reason) in [
            (0x600d, ShieldReason::Live),
            (0xbad0, ShieldReason::DeadIndex),
        ] {
            let mut frame = frame(&[], from, to, &data(index));
            frame[14] += words as u8;
            frame.splice(34..34, std::iter::repeat_n(1, words * 4));
            assert_eq!(guarded.judge(&frame).unwrap(), Some(reason), "{words}");
        }
    }
}

#[test]
fn handshakes_are_learned_behind_a_tag_too() {
    let mut guarded = Guarded::new().unwrap();
    for family in FAMILIES {
        let index = 0x77 + family as u32;
        let (from, to) = (
            SocketAddr::new(GATEWAY[family], PORT),
            SocketAddr::new(PEER[family], 4000),
        );
        guarded
            .transmit(&frame(
                &[],
                SocketAddr::new(GATEWAY[family], 99),
                to,
                &response(index, 1),
            ))
            .unwrap();
        assert_eq!(
            guarded.receive(family, &data(index)).unwrap(),
            Some(ShieldReason::DeadIndex),
            "another port"
        );
        guarded
            .transmit(&frame(&[0x8100], from, to, &response(index, 1)))
            .unwrap();
        assert_eq!(
            guarded.receive(family, &data(index)).unwrap(),
            Some(ShieldReason::Live)
        );
    }
}

#[test]
fn initiations_are_budgeted_for_each_source_and_for_all() {
    let mut guarded = Guarded::new().unwrap();
    guarded.wanted.budgets.source = Budget::new(1, 3);
    guarded.wanted.budgets.overall = Budget::new(1, 8);
    guarded.keep().unwrap();
    guarded.shield.stop_learning().unwrap();
    let mut ask = |from: &str| {
        guarded
            .receive_from(from.parse().unwrap(), &initiation(1))
            .unwrap()
            .unwrap()
    };
    for _ in 0..3 {
        assert_eq!(ask("198.51.100.7:1"), ShieldReason::Initiation);
        assert_eq!(ask("[2001:db8:7::1]:1"), ShieldReason::Initiation);
    }
    assert_eq!(ask("198.51.100.7:2"), ShieldReason::SourceBudget);
    assert_eq!(
        ask("[2001:db8:7:0:1::1]:1"),
        ShieldReason::SourceBudget,
        "the same /64"
    );
    assert_eq!(ask("198.51.100.8:1"), ShieldReason::Initiation);
    assert_eq!(
        ask("[2001:db8:7:1::1]:1"),
        ShieldReason::Initiation,
        "another /64"
    );
    assert_eq!(ask("198.51.100.9:1"), ShieldReason::OverallBudget);
    // The same once the gateway has answered it.
    guarded.send(0, &response(9, 9)).unwrap();
    guarded.send(1, &response(9, 9)).unwrap();
    let mut ask = |from: &str| {
        guarded
            .receive_from(from.parse().unwrap(), &initiation(1))
            .unwrap()
            .unwrap()
    };
    assert_eq!(ask("198.51.100.10:1"), ShieldReason::OverallBudget);
    assert_eq!(ask("198.51.100.7:1"), ShieldReason::SourceBudget);
    assert_eq!(ask("198.51.100.11:1"), ShieldReason::OverallBudget);
    let known = SocketAddr::new("198.51.100.12".parse().unwrap(), 7);
    guarded
        .transmit(&frame(
            &[],
            SocketAddr::new(GATEWAY[0], PORT),
            known,
            &response(10, 9),
        ))
        .unwrap();
    assert_eq!(
        guarded.receive_from(known, &initiation(1)).unwrap(),
        Some(ShieldReason::KnownSource)
    );
    // Data is not concerned.
    assert_eq!(
        guarded.receive(0, &data(9)).unwrap(),
        Some(ShieldReason::Live)
    );
}

#[test]
fn a_full_bucket_cuts_nobody_and_opens_only_itself() {
    let mut guarded = Guarded::new().unwrap();
    let in_bucket = |bucket: u32, i: u32| bucket + 64 * (i + 1);
    let last = BUCKET_SLOTS as u32;
    for i in 0..last {
        guarded.send(0, &response(in_bucket(5, i), 0)).unwrap();
    }
    assert_eq!(
        guarded.receive(0, &data(in_bucket(5, last))).unwrap(),
        Some(ShieldReason::DeadIndex)
    );
    guarded.send(0, &response(in_bucket(5, last), 0)).unwrap();
    for i in 0..last {
        assert_eq!(
            guarded.receive(0, &data(in_bucket(5, i))).unwrap(),
            Some(ShieldReason::Live)
        );
    }
    assert_eq!(
        guarded.receive(0, &data(in_bucket(5, last))).unwrap(),
        Some(ShieldReason::Crowded)
    );
    assert_eq!(
        guarded.receive(0, &data(in_bucket(6, last))).unwrap(),
        Some(ShieldReason::DeadIndex)
    );
}

#[test]
fn a_removed_peer_is_forgotten_by_where_it_was() {
    let mut guarded = Guarded::new().unwrap();
    for family in FAMILIES {
        guarded
            .send(family, &response(0x40 + family as u32, 1))
            .unwrap();
        guarded
            .send(family, &initiation(0x50 + family as u32))
            .unwrap();
    }
    let (gateway, other) = (
        SocketAddr::new(GATEWAY[0], PORT),
        SocketAddr::new(PEER[0], 4001),
    );
    guarded
        .transmit(&frame(&[], gateway, other, &response(0x60, 1)))
        .unwrap();
    let gone = HashSet::from(PEER.map(|ip| SocketAddr::new(ip, 4000)));
    assert_eq!(guarded.shield.forget(&gone), 4);
    assert_eq!(guarded.shield.forget(&gone), 0);
    for family in FAMILIES {
        assert_eq!(
            guarded
                .receive(family, &data(0x40 + family as u32))
                .unwrap(),
            Some(ShieldReason::DeadIndex)
        );
        let late = response(1, 0x50 + family as u32);
        assert_eq!(
            guarded.receive(family, &late).unwrap(),
            Some(ShieldReason::Unexpected)
        );
    }
    assert_eq!(
        guarded.receive(0, &data(0x60)).unwrap(),
        Some(ShieldReason::Live),
        "another port, another peer"
    );
}

#[test]
fn a_fresh_shield_learns_and_a_restarted_one_knows() {
    let mut guarded = Guarded::learning(64).unwrap();
    assert_eq!(
        guarded.receive(0, &data(1)).unwrap(),
        Some(ShieldReason::Learning)
    );
    assert_eq!(
        guarded.receive(0, &response(1, 1)).unwrap(),
        Some(ShieldReason::Learning)
    );
    assert_eq!(
        guarded.receive(0, &message(4, &[1], 31)).unwrap(),
        Some(ShieldReason::Malformed)
    );
    let until = guarded.shield.learning_until();
    guarded.send(0, &response(2, 1)).unwrap();
    let mut guarded = guarded.restart().unwrap();
    assert_eq!(guarded.shield.learning_until(), until, "it was never away");
    guarded.shield.stop_learning().unwrap();
    let mut guarded = guarded.restart().unwrap();
    assert_eq!(guarded.shield.learning_until(), 0);
    assert_eq!(
        guarded.receive(0, &data(2)).unwrap(),
        Some(ShieldReason::Live)
    );
    assert_eq!(
        guarded.receive(0, &data(3)).unwrap(),
        Some(ShieldReason::DeadIndex)
    );
    assert_eq!(guarded.keep().unwrap(), ShieldKept::Sound);

    // Another port: handshakes on it may have been missed.
    guarded.wanted.port += 1;
    guarded.keep().unwrap();
    assert!(guarded.shield.learning_until() > 0);
    guarded.shield.stop_learning().unwrap();
    guarded.wanted.port -= 1;
    guarded.keep().unwrap();
    guarded.shield.stop_learning().unwrap();

    // Maps of another shape are made anew.
    guarded.config.max_peers = 1000;
    let mut guarded = guarded.restart().unwrap();
    assert_eq!(
        guarded.receive(0, &data(2)).unwrap(),
        Some(ShieldReason::Learning)
    );
}

#[test]
fn modes_are_obeyed_and_teardown_leaves_nothing() {
    let mut guarded = Guarded::learning(64).unwrap();
    let attached = |guarded: &Guarded| {
        let shown = std::process::Command::new("ip")
            .args(["link", "show", "dev", guarded.card().name()])
            .output();
        String::from_utf8(shown.unwrap().stdout).unwrap()
    };
    guarded.wanted.mode = ShieldMode::Native;
    let mut guarded = guarded.restart().unwrap();
    let shown = attached(&guarded);
    assert!(
        shown.contains(" xdp ") || shown.contains("prog/xdp"),
        "{shown}"
    );
    assert!(!shown.contains("xdpgeneric"), "{shown}");
    guarded.wanted.mode = ShieldMode::Generic;
    let guarded = guarded.restart().unwrap();
    assert!(attached(&guarded).contains("xdpgeneric"));
    Shield::teardown(&guarded.config).unwrap();
    // The links that this process holds go with it; the pins were the rest.
    assert!(
        !attached(&guarded).contains("prog/xdp"),
        "{}",
        attached(&guarded)
    );
    Shield::teardown(&guarded.config).unwrap();
}
