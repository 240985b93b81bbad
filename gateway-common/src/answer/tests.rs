//! Answers, summed up byte by byte as a receiver does.

extern crate std;

use std::{vec, vec::Vec};

use super::*;
use crate::{
    abi::AddressV4,
    parse::{self, Slice},
};

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    core::array::from_fn(|i| u32::from_ne_bytes(bytes[4 * i..4 * i + 4].try_into().unwrap()))
}

/// RFC 1071, the plain way.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// Whether addresses, protocol, length and payload sum up, as TCP and ICMPv6 want it.
fn sums_up(packet: &[u8], header: usize, protocol: u8) -> bool {
    let addresses = if header == 20 {
        &packet[12..20]
    } else {
        &packet[8..40]
    };
    let payload = &packet[header..];
    let mut all = addresses.to_vec();
    all.extend([0, protocol]);
    all.extend((payload.len() as u16).to_be_bytes());
    all.extend(payload);
    checksum(&all) == 0
}

/// What hardware does with an outstanding checksum of the dropped packet.
fn filled_in(packet: &[u8], header: usize, offset: usize) -> Vec<u8> {
    let mut filled = packet.to_vec();
    let sum = match checksum(&filled[header..]) {
        0 => 0xffff,
        sum => sum,
    };
    filled[header + offset..header + offset + 2].copy_from_slice(&sum.to_be_bytes());
    filled
}

fn packet_v4(protocol: u8, transport: [u8; 8], seed: u8) -> Vec<u8> {
    let mut packet = vec![
        0x45, 0, 0, 60, 1, 2, 0x40, 0, 64, protocol, 9, 9, 10, 77, seed, 2, 10, 9, 3, seed,
    ];
    packet.extend(transport);
    packet
}

fn packet_v6(protocol: u8, transport: [u8; 8], seed: u8) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 40, protocol, 64];
    packet.extend([0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, seed, 0, 0, 2]);
    packet.extend([0xfd, 0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, seed, 0, 1]);
    packet.extend(transport);
    packet
}

#[test]
fn a_reset_answers_the_opener_and_its_checksum_survives_being_filled_in() {
    for seed in 0..=255 {
        let transport = [0x13, 0x88, 0, 22, seed, 0xff, 0xff, 0xff];
        let acknowledged = u32::from_be_bytes([seed, 0xff, 0xff, 0xff])
            .wrapping_add(1)
            .to_be_bytes();
        let four = bytes(&reset_v4(&words(&packet_v4(6, transport, seed))));
        let six = bytes(&reset_v6(&words(&packet_v6(6, transport, seed))));
        assert_eq!(checksum(&four[..20]), 0);
        for (packet, header) in [(four, 20), (six, 40)] {
            let tcp = &packet[header..];
            assert_eq!(tcp[..4], [0, 22, 0x13, 0x88], "ports the other way");
            assert_eq!(tcp[8..12], acknowledged);
            assert_eq!(tcp[12..14], [5 << 4, 0x14], "RST and ACK");
            assert!(sums_up(&packet, header, 6));
            assert!(sums_up(&filled_in(&packet, header, 16), header, 6));
        }
    }
}

#[test]
fn an_error_quotes_the_packet_and_its_checksum_survives_being_filled_in() {
    for seed in 0..=255 {
        let transport = [0x13, 0x88, 0, 53, 0, 40, seed, 7];
        let dropped = packet_v4(17, transport, seed);
        let four = bytes(&prohibited_v4(&words(&dropped)));
        assert_eq!((checksum(&four[..20]), checksum(&four[20..])), (0, 0));
        assert_eq!(four[20..22], [3, 13]);
        assert_eq!(four[28..], dropped);
        assert_eq!(checksum(&filled_in(&four, 20, 6)[20..]), 0);

        let dropped = packet_v6(17, transport, seed);
        let plain = bytes(&prohibited_v6(&words(&dropped), Direction::FromPeer));
        assert_eq!(plain[44..48], [0; 4], "the unused word");
        let six = bytes(&prohibited_v6(&words(&dropped), Direction::ToPeer));
        assert_eq!(six[40..42], [1, 1]);
        assert_eq!(six[48..], dropped);
        assert!(sums_up(&plain, 40, 58) && sums_up(&six, 40, 58));
        assert!(sums_up(&filled_in(&six, 40, 6), 40, 58));
    }
}

#[test]
fn an_answer_parses_as_what_it_is() {
    let transport = [0x13, 0x88, 0, 22, 1, 2, 3, 4];
    let reset = bytes(&reset_v4(&words(&packet_v4(6, transport, 1))));
    let parsed = parse::ipv4(&Slice(&reset)).unwrap();
    assert_eq!((parsed.source_port, parsed.destination_port), (22, 5000));
    let error = bytes(&prohibited_v6(
        &words(&packet_v6(17, transport, 1)),
        Direction::ToPeer,
    ));
    assert!(
        parse::ipv6(&Slice(&error))
            .unwrap()
            .traits
            .has(Traits::ERROR)
    );
}

#[test]
fn only_openers_that_the_policy_drops_are_answered() {
    let tcp = |flags: u8| {
        let mut packet = packet_v4(6, [0x13, 0x88, 0, 22, 1, 2, 3, 4], 1);
        packet[3] = 40;
        packet.extend([0, 0, 0, 0, 5 << 4, flags, 0, 0, 0, 0, 0, 0]);
        parse::ipv4(&Slice(&packet)).unwrap()
    };
    let (from, to) = (Direction::FromPeer, Direction::ToPeer);
    assert_eq!(answer(from, &tcp(2), Reason::Locked), Some(Answer::Reset));
    for flags in [0x10, 0x12, 0x04, 0x01, 0x06, 0x03] {
        assert_eq!(
            answer(from, &tcp(flags), Reason::Locked),
            None,
            "flags {flags:#x}"
        );
    }
    for reason in [
        Reason::UnknownPeer,
        Reason::Martian,
        Reason::MissingState,
        Reason::IcmpErrorWithoutFlow,
    ] {
        assert_eq!(answer(from, &tcp(2), reason), None);
    }
    let mut packet = tcp(2);
    packet.destination = AddressV4(u32::from_ne_bytes([224, 0, 0, 1]));
    assert_eq!(answer(from, &packet, Reason::NoRule), None, "multicast");
    packet = tcp(2);
    packet.traits = packet.traits.with(Traits::FIRST_FRAGMENT);
    assert_eq!(answer(from, &packet, Reason::NoRule), None, "a fragment");
    packet = tcp(2);
    packet.traits = packet.traits.with(Traits::ERROR);
    assert_eq!(answer(to, &packet, Reason::Locked), None, "an error");
    packet = tcp(0);
    packet.traits = Traits::new(47, 0);
    assert_eq!(
        answer(from, &packet, Reason::NoRule),
        Some(Answer::Prohibited)
    );
    assert_eq!(answer(to, &packet, Reason::Unsolicited), None);
    packet.traits = Traits::new(protocol::ICMP, 0).with(Traits::ECHO_REPLY);
    assert_eq!(answer(from, &packet, Reason::Unsolicited), None);
}
