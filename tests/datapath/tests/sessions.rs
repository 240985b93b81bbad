//! Sessions over time, on this machine's kernel: the deadlines are the kernel's own.
#![allow(
    clippy::unwrap_used,
    reason = "a fixture that cannot be made is a failed test"
)]

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use datapath_tests::{
    kernel::{BpfFs, Kernel, PASS},
    packets::{flag, ip, number, tcp, udp},
    scene::{Gate as _, PEER_KEY, PORTAL_PORT, State, V4, V6},
};
use gateway_common::{
    abi::{
        Direction::{FromPeer, ToPeer},
        Event, Level,
    },
    clock::SECOND,
    verdict::Reason,
};
use portcullis_agent::datapath::{DatapathError, SessionGrant, now};

const MILLISECOND: u64 = SECOND / 1000;

fn live() -> SessionGrant {
    State::Live.session(now()).unwrap()
}

fn ask() -> Vec<u8> {
    ip(V4.peer, V4.server, number::UDP, &udp(9000, 53, 8))
}

fn answer() -> Vec<u8> {
    ip(V4.server, V4.peer, number::UDP, &udp(53, 9000, 8))
}

fn grant(gate: &mut Kernel, session: SessionGrant) {
    gate.datapath
        .set_session(&PEER_KEY, Some(&session))
        .unwrap();
}

#[test]
fn inv2_the_deadline_ends_a_flow_by_itself_both_ways() {
    let mut gate = Kernel::open().unwrap();
    grant(
        &mut gate,
        SessionGrant {
            deadline: now() + 300 * MILLISECOND,
            ..live()
        },
    );
    assert_eq!(gate.run(FromPeer, &ask()), Reason::Session);
    assert_eq!(gate.run(ToPeer, &answer()), Reason::Session);
    thread::sleep(Duration::from_millis(320));
    assert_eq!(gate.run(FromPeer, &ask()), Reason::Expired);
    assert_eq!(gate.run(ToPeer, &answer()), Reason::Expired);
}

#[test]
fn inv2_only_passed_packets_from_the_peer_keep_it_from_idling() {
    let mut gate = Kernel::open().unwrap();
    let idle = SessionGrant {
        idle_timeout: 600 * MILLISECOND,
        ..live()
    };
    grant(&mut gate, idle);
    // Given a peer that talks, it stays live for longer than its idle timeout.
    for _ in 0..10 {
        assert_eq!(gate.run(FromPeer, &ask()), Reason::Session);
        thread::sleep(Duration::from_millis(100));
    }
    // When only the server talks, or the peer's packets are dropped, it idles out.
    let dropped = ip(V4.peer, V4.server, number::ICMP, &[13; 16]);
    for _ in 0..8 {
        gate.run(ToPeer, &answer());
        assert_eq!(gate.run(FromPeer, &dropped), Reason::IcmpType);
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(gate.run(ToPeer, &answer()), Reason::Idle);
    assert_eq!(gate.run(FromPeer, &ask()), Reason::Idle);
    // And nothing that passes without a session wakes it.
    let portal = ip(
        V4.peer,
        V4.portal,
        number::TCP,
        &tcp(1, PORTAL_PORT, flag::SYN),
    );
    assert_eq!(gate.run(FromPeer, &portal), Reason::OpenService);
    assert_eq!(gate.run(FromPeer, &ask()), Reason::Idle);
}

#[test]
fn inv2_activity_is_noted_by_the_kernel_and_can_be_read() {
    let mut gate = Kernel::open().unwrap();
    let before = now();
    grant(
        &mut gate,
        SessionGrant {
            last_activity: before - SECOND,
            ..live()
        },
    );
    assert_eq!(gate.datapath.activity(&PEER_KEY), Some(before - SECOND));
    assert_eq!(gate.run(FromPeer, &ask()), Reason::Session);
    let noted = gate.datapath.activity(&PEER_KEY).unwrap();
    // To within a tick of the clock, of which there are a hundred a second at least.
    assert!(noted + 10 * MILLISECOND >= before && noted <= now());
    // A grant with an older idea of it does not turn it back.
    grant(
        &mut gate,
        SessionGrant {
            last_activity: before - SECOND,
            tag: 9,
            ..live()
        },
    );
    assert_eq!(gate.datapath.activity(&PEER_KEY), Some(noted));
}

#[test]
fn inv4_a_revocation_cuts_the_next_packet_of_every_flow() {
    let mut gate = Kernel::open().unwrap();
    for cast in [V4, V6] {
        grant(&mut gate, live());
        let flows: Vec<_> = (0..50)
            .map(|port| {
                (
                    ip(
                        cast.peer,
                        cast.server,
                        number::TCP,
                        &tcp(port, 22, flag::ACK),
                    ),
                    ip(
                        cast.server,
                        cast.peer,
                        number::TCP,
                        &tcp(22, port, flag::ACK),
                    ),
                )
            })
            .collect();
        for (there, back) in &flows {
            assert_eq!(gate.run(FromPeer, there), Reason::Session);
            assert_eq!(gate.run(ToPeer, back), Reason::Session);
        }
        gate.datapath.set_session(&PEER_KEY, None).unwrap();
        assert_eq!(
            gate.datapath.read_peer(&PEER_KEY).unwrap().unwrap().session,
            None
        );
        for (there, back) in &flows {
            assert_eq!(gate.run(FromPeer, there), Reason::Locked);
            assert_eq!(gate.run(ToPeer, back), Reason::Locked);
        }
    }
}

#[test]
fn inv4_a_renewed_session_loses_no_packet_of_a_flow() {
    let mut gate = Kernel::open().unwrap();
    grant(&mut gate, live());
    assert_eq!(gate.run(FromPeer, &ask()), Reason::Session);
    for tag in 10..20 {
        // Longer, higher, newer; then shorter and lower again.
        let level = if tag % 2 == 0 {
            Level::PhishingResistant
        } else {
            Level::Mfa
        };
        let deadline = now() + (tag % 3 + 1) * 1000 * SECOND;
        grant(
            &mut gate,
            SessionGrant {
                tag,
                level,
                deadline,
                authenticated_at: now(),
                ..live()
            },
        );
        // The reply comes first, which has only the flow to go by.
        assert_eq!(gate.run(ToPeer, &answer()), Reason::Session);
        assert_eq!(gate.run(FromPeer, &ask()), Reason::Session);
    }
}

#[test]
fn inv4_what_was_written_is_what_is_read_back() {
    let mut gate = Kernel::open().unwrap();
    let session = SessionGrant {
        tag: 0xdead_beef,
        level: Level::PhishingResistant,
        authenticated_at: 5,
        deadline: now() + SECOND,
        idle_timeout: 7 * SECOND,
        last_activity: now(),
    };
    grant(&mut gate, session);
    let peer = gate.datapath.read_peer(&PEER_KEY).unwrap().unwrap();
    assert_eq!(peer.session, Some(session));
    assert_eq!(peer.addresses, [V4.peer.into(), V6.peer.into()]);
    assert!(gate.datapath.peers().unwrap().contains(&peer));
    // Every kind of change, narrowing and widening at once among them.
    for other in [
        SessionGrant {
            tag: 2,
            idle_timeout: SECOND,
            deadline: session.deadline + SECOND,
            ..session
        },
        SessionGrant {
            tag: 3,
            idle_timeout: 0,
            deadline: session.deadline - 1,
            ..session
        },
        SessionGrant {
            tag: 4,
            level: Level::Mfa,
            authenticated_at: 6,
            ..session
        },
    ] {
        grant(&mut gate, other);
        assert_eq!(
            gate.datapath.read_peer(&PEER_KEY).unwrap().unwrap().session,
            Some(other)
        );
    }
}

#[test]
fn inv1_sessions_that_are_none_and_peers_that_are_none_are_refused() {
    let mut gate = Kernel::open().unwrap();
    for session in [
        SessionGrant { tag: 0, ..live() },
        SessionGrant {
            deadline: 0,
            ..live()
        },
    ] {
        let refused = gate.datapath.set_session(&PEER_KEY, Some(&session));
        assert!(matches!(refused, Err(DatapathError::InvalidSession)));
    }
    assert!(matches!(
        gate.datapath.set_session(&[9; 32], None),
        Err(DatapathError::UnknownPeer)
    ));
    assert_eq!(gate.run(FromPeer, &ask()), Reason::Locked);
}

#[test]
fn inv1_no_packet_sees_more_than_the_old_or_the_new_session_permits() {
    // Given two sessions neither of which permits anything at any time: one is over by its deadline,
    // the other by its idle timeout. A mixture of them would be live.
    let mut gate = Kernel::open().unwrap();
    let over = SessionGrant {
        tag: 1,
        deadline: now() - SECOND,
        idle_timeout: 0,
        ..live()
    };
    let idle = SessionGrant {
        tag: 2,
        deadline: now() + 3600 * SECOND,
        idle_timeout: 1,
        ..live()
    };
    let stop = AtomicBool::new(false);
    let mut peeker = other_view(&gate);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_ne!(
                    peeker(&ask()),
                    PASS,
                    "a packet passed between two sessions that are over"
                );
            }
        });
        for i in 0..60 {
            grant(&mut gate, if i % 2 == 0 { over } else { idle });
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// The same maps under a second set of programs, for packets while the first is being written to.
fn other_view(gate: &Kernel) -> impl FnMut(&[u8]) -> u32 + Send + use<> {
    use aya::{TestRun as _, TestRunOptions};
    let mut datapath = portcullis_agent::datapath::Datapath::open(&gate.config).unwrap();
    move |packet: &[u8]| {
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.repeat = 200;
        let program = datapath_tests::kernel::program(datapath.object(), FromPeer).unwrap();
        program.test_run(options).unwrap().return_value
    }
}

#[test]
fn inv3_a_forgotten_flow_is_reopened_by_the_peer_and_by_nobody_else() {
    // Given room for very few flows.
    let bpf_fs = BpfFs::mount().unwrap();
    let config = portcullis_agent::datapath::Config {
        max_flows: 128,
        ..bpf_fs.config()
    };
    let mut gate = Kernel::with(bpf_fs, config).unwrap();
    gate.put(State::Live);
    assert_eq!(gate.run(FromPeer, &ask()), Reason::Session);
    // When many others push it out…
    for port in 10_000..12_000 {
        let other = ip(V4.peer, V4.server, number::UDP, &udp(port, 53, 8));
        assert_eq!(gate.action(FromPeer, &other).unwrap(), PASS);
    }
    // …and this CPU's own copy is no longer good…
    thread::sleep(Duration::from_millis(1100));
    // …then the answer is unsolicited until the peer has spoken.
    assert_eq!(gate.run(ToPeer, &answer()), Reason::Unsolicited);
    assert_eq!(gate.run(FromPeer, &ask()), Reason::Session);
    assert_eq!(gate.run(ToPeer, &answer()), Reason::Session);
}

#[test]
fn inv9_dropped_packets_are_told_a_few_at_a_time() {
    let mut gate = Kernel::open().unwrap();
    let mut events = gate.datapath.take_events().unwrap();
    assert!(gate.datapath.take_events().is_none());
    let dropped = ip(V4.peer, V4.server, number::TCP, &tcp(1234, 22, flag::SYN));
    for _ in 0..1000 {
        assert_eq!(gate.run(FromPeer, &dropped), Reason::Locked);
    }
    let mut told = 0;
    while let Some(item) = events.next() {
        assert_eq!(item.len(), size_of::<Event>());
        let reason = item[std::mem::offset_of!(Event, reason)];
        assert_eq!(Reason::from_number(reason), Some(Reason::Locked));
        let port = std::mem::offset_of!(Event, source_port);
        assert_eq!(u16::from_ne_bytes([item[port], item[port + 1]]), 1234);
        told += 1;
    }
    assert!((1..500).contains(&told), "{told} events for 1000 packets");
    assert_eq!(gate.counted(FromPeer, Reason::Locked).unwrap(), 1000);
}

#[test]
fn inv3_flows_that_need_no_session_push_out_none_that_does() {
    // Given a flow of a live peer, which has been quiet for a while.
    let mut gate = Kernel::open().unwrap();
    let ask = ip(V4.other, V4.server, number::UDP, &udp(1, 53, 8));
    let answer = ip(V4.server, V4.other, number::UDP, &udp(53, 1, 8));
    assert_eq!(gate.run(FromPeer, &ask), Reason::Session);
    thread::sleep(Duration::from_millis(1100));
    // When a locked one opens more flows to a service than any table has room for…
    for port in 1_000..9_000 {
        let knock = tcp(port, PORTAL_PORT, flag::SYN);
        let opened = tcp(PORTAL_PORT, port, flag::SYN | flag::ACK);
        let knock = ip(V4.peer, V4.portal, number::TCP, &knock);
        let opened = ip(V4.portal, V4.peer, number::TCP, &opened);
        assert_eq!(gate.action(FromPeer, &knock).unwrap(), PASS);
        assert_eq!(gate.action(ToPeer, &opened).unwrap(), PASS);
    }
    // …then the quiet one's answer passes.
    assert_eq!(gate.run(ToPeer, &answer), Reason::Session);
}
