//! A policy that is switched during a flood.

use std::sync::Arc;

use datapath_tests::{
    memory::Memory,
    packets::{ip, number, udp},
    scene::{State, V4, V6},
    switch::{Arena, Side, Size, compile, target},
};
use gateway_common::{
    abi::Direction::{self, FromPeer, ToPeer},
    policy::Tables,
    verdict::Verdict,
};

const SWITCHES: usize = 25;

#[test]
fn inv8_no_packet_of_a_flood_is_judged_by_a_mixture_of_two_policies() {
    let mut arena = Arena::new(Size::SMALL).unwrap();
    for always in [FromPeer, ToPeer] {
        let flooded = arena.flood(SWITCHES, always).unwrap();
        let Some(longest) = flooded.switches.iter().max() else {
            panic!("nothing was switched");
        };
        println!(
            "{} packets, {SWITCHES} switches, {longest:?} at most, {} misjudged",
            flooded.packets, flooded.misjudged
        );
        assert_eq!(flooded.switches.len(), SWITCHES);
        assert_eq!(flooded.misjudged, 0);
        assert!(flooded.packets > 10_000, "{flooded:?}");
    }
}

/// How many of the flood's packets end otherwise than they should, under these tables.
fn misjudged(tables: &Tables, class: u32) -> usize {
    let mut memory = Memory::with_cast();
    memory.set_session(0, State::Live.session(memory.now).as_ref());
    memory.switch_policy(Some(Arc::new(tables.clone())), |_| class);
    let mut wrong = 0;
    for cast in [V4, V6] {
        for direction in Direction::ALL {
            for n in 0..128_u32 {
                let target = target(cast, n);
                let (source, destination) = match direction {
                    FromPeer => (cast.peer, target),
                    ToPeer => (target, cast.peer),
                };
                let packet = ip(source, destination, number::UDP, &udp(7, 53, 8));
                let verdict = memory.decide(direction, &packet).reason.verdict();
                let wanted = if n % 2 == 0 {
                    Verdict::Pass
                } else {
                    Verdict::Drop
                };
                wrong += usize::from(verdict != wanted);
            }
        }
    }
    wrong
}

/// The flood would show it: each table of the one among the others of the other.
#[test]
fn every_mixture_of_the_two_policies_would_be_seen() {
    let [(last, [last_class, _]), (first, [first_class, _])] =
        [Side::Last, Side::First].map(|side| compile(side, Size::SMALL).unwrap());
    assert_eq!(misjudged(&last, last_class), 0);
    assert_eq!(misjudged(&first, first_class), 0);
    // A flood meets switches both ways: what shows in one of them is seen.
    let ways = [
        (&last, last_class, &first, first_class),
        (&first, first_class, &last, last_class),
    ];
    let seen = |take: fn(&mut Tables, Tables)| {
        ways.iter().any(|(one, class, other, _)| {
            let mut mixed = Tables::clone(one);
            take(&mut mixed, Tables::clone(other));
            misjudged(&mixed, *class) > 0
        })
    };
    assert!(
        ways.iter()
            .all(|(one, _, _, wrong)| misjudged(one, *wrong) > 0)
    );
    assert!(seen(|mixed, other| mixed.prefixes = other.prefixes));
    assert!(seen(|mixed, other| mixed.regions = other.regions));
    assert!(seen(|mixed, other| mixed.grants = other.grants));
    assert!(seen(|mixed, other| mixed.intervals = other.intervals));
    assert!(seen(|mixed, other| mixed.outcomes = other.outcomes));
    assert!(seen(|mixed, other| mixed.policies = other.policies));
}
