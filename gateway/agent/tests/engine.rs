//! The engine on this machine's kernel maps: what is acknowledged has been read back, and nothing
//! that fails keeps a revocation waiting.

mod support;

use std::sync::Arc;

use gateway_common::abi::{Level, Settings, names};
use portcullis_agent::datapath::{self, Datapath};
use portcullis_agent::engine::{Engine, EngineError};
use portcullis_proto::v1;
use support::kernel::Sandbox;
use support::wireguard::Memory;
use support::{delta, digest, peer, session, snapshot};

struct Scene {
    config: datapath::Config,
    wireguard: Memory,
    engine: Engine,
    _sandbox: Sandbox,
}

impl Scene {
    /// Two peers with sessions, at revision 10.
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let config = datapath::Config {
            interface: sandbox.interface.clone(),
            pin_root: sandbox.pin_root(),
            max_peers: 64,
            max_flows: 64,
        };
        let wireguard = Memory::default();
        let datapath = Datapath::open(&config).expect("opened");
        let mut engine = Engine::new(datapath, Arc::new(wireguard.clone()));
        let peers = both();
        let outcome = engine
            .snapshot(snapshot(10, peers.clone()))
            .expect("applied");
        assert_eq!(outcome.applied.digest, digest(&peers));
        Self {
            config,
            wireguard,
            engine,
            _sandbox: sandbox,
        }
    }

    /// Whether the peer holds a session, read past the engine.
    fn is_live(&self, key: u8) -> bool {
        let datapath = Datapath::open(&self.config).expect("adopted");
        let view = datapath.read_peer(&[key; 32]).expect("read");
        view.is_some_and(|view| view.session.is_some())
    }
}

fn both() -> Vec<v1::Peer> {
    vec![
        peer(2, Some(session(1, 3600))),
        peer(3, Some(session(2, 3600))),
    ]
}

#[test]
fn inv4_an_acknowledgement_comes_from_the_kernel_also_where_nothing_had_to_be_done() {
    let mut scene = Scene::new();
    let mut behind = Datapath::open(&scene.config).expect("adopted");
    behind.set_session(&[2; 32], None).expect("locked");
    // The same again: from memory there would be nothing to do.
    let outcome = scene
        .engine
        .delta(delta(10, vec![peer(2, Some(session(1, 3600)))], &[]));
    assert_eq!(outcome.expect("applied").applied.digest, digest(&both()));
    assert!(scene.is_live(2));
}

#[test]
fn inv4_after_a_failed_read_back_everything_is_read_before_it_is_acknowledged() {
    let mut scene = Scene::new();
    scene.wireguard.fail_reads(true);
    let added = vec![peer(4, None)];
    let failed = scene.engine.delta(delta(10, added.clone(), &[]));
    assert!(
        matches!(failed, Err(EngineError::WireGuard(_))),
        "{failed:?}"
    );
    let failed = scene.engine.delta(delta(11, added, &[]));
    assert!(
        matches!(failed, Err(EngineError::WireGuard(_))),
        "{failed:?}"
    );
    scene.wireguard.fail_reads(false);
    let outcome = scene
        .engine
        .delta(delta(12, Vec::new(), &[]))
        .expect("applied");
    let mut peers = both();
    peers.push(peer(4, None));
    assert_eq!(outcome.applied.digest, digest(&peers));
}

#[test]
fn inv4_a_revocation_needs_neither_wireguard_nor_services() {
    let mut scene = Scene::new();
    scene.wireguard.fail_reads(true);
    let revoked = vec![peer(2, None), peer(3, Some(session(2, 3600)))];
    let failed = scene.engine.snapshot(snapshot(11, revoked));
    assert!(
        failed.is_err(),
        "what was not read back is not acknowledged"
    );
    assert!(!scene.is_live(2) && scene.is_live(3));

    let mut scene = Scene::new();
    let too_many = (1..=2000).map(|port| v1::OpenService {
        address: "10.77.0.1".into(),
        protocol: 17,
        port,
    });
    let location = v1::LocationConfig {
        open_services: too_many.collect(),
        ..support::location()
    };
    let crowded = v1::Delta {
        location: Some(location),
        ..delta(10, vec![peer(2, None)], &[3])
    };
    let failed = scene.engine.delta(crowded);
    assert!(
        matches!(failed, Err(EngineError::Datapath(_))),
        "{failed:?}"
    );
    assert!(!scene.is_live(2) && !scene.is_live(3));
    let still = scene.engine.delta(delta(11, vec![peer(2, None)], &[]));
    assert!(
        still.is_err(),
        "the services are still not as they should be"
    );
}

#[test]
fn inv4_an_unusable_location_keeps_no_revocation_waiting() {
    let mut scene = Scene::new();
    let location = v1::LocationConfig {
        mtu: 576,
        ..support::location()
    };
    let revoked = v1::Snapshot {
        location: Some(location),
        ..snapshot(11, vec![peer(2, None), peer(3, None)])
    };
    let outcome = scene.engine.snapshot(revoked).expect("applied");
    assert_eq!(
        outcome.applied.digest,
        digest(&[peer(2, None), peer(3, None)])
    );
    assert!(!outcome.location_changed, "it stays as it was");
    assert!(!scene.is_live(2) && !scene.is_live(3));
}

/// Rules that permit nothing, to nobody.
fn closed(id: u64) -> v1::Policy {
    v1::Policy {
        id,
        classes: vec![v1::PolicyClass::default()],
        ..v1::Policy::default()
    }
}

#[test]
fn inv4_an_unusable_policy_keeps_no_revocation_waiting_and_leaves_the_one_before() {
    let mut scene = Scene::new();
    let ruled = v1::Snapshot {
        policy: Some(closed(7)),
        ..snapshot(11, both())
    };
    scene.engine.snapshot(ruled).expect("applied");
    let unusable = v1::Snapshot {
        policy: Some(closed(0)),
        ..snapshot(12, vec![peer(2, None), peer(4, Some(session(4, 3600)))])
    };
    let failed = scene.engine.snapshot(unusable);
    assert!(matches!(failed, Err(EngineError::Policy(_))), "{failed:?}");
    let datapath = Datapath::open(&scene.config).expect("adopted");
    assert_eq!(datapath.policy_id().expect("read"), 7);
    assert!(!scene.is_live(2), "its session is over");
    assert!(
        datapath.read_peer(&[3; 32]).expect("read").is_none(),
        "it is to be gone"
    );
    assert!(!scene.is_live(4), "under which rules is not known");
    drop(datapath);
    // Neither does it keep what comes next waiting.
    let failed = scene.engine.delta(delta(12, Vec::new(), &[4]));
    assert!(failed.is_err(), "{failed:?}");
    let usable = v1::Snapshot {
        policy: None,
        ..snapshot(13, both())
    };
    let outcome = scene.engine.snapshot(usable).expect("applied");
    assert_eq!(outcome.applied.digest, digest(&both()));
    assert!(scene.is_live(2) && scene.is_live(3));
}

#[test]
fn inv4_sessions_are_ended_before_the_policy_of_their_snapshot_is_looked_at() {
    let mut scene = Scene::new();
    let ruled = v1::Snapshot {
        policy: Some(closed(7)),
        ..snapshot(11, vec![peer(2, None), peer(3, Some(session(2, 3600)))])
    };
    scene.engine.lock_ahead(&ruled).expect("locked");
    assert!(!scene.is_live(2) && scene.is_live(3));
    let datapath = Datapath::open(&scene.config).expect("adopted");
    assert_eq!(datapath.policy_id().expect("read"), 0, "nothing else");
    drop(datapath);
    // One that is not in it at all.
    let ruled = v1::Snapshot {
        policy: Some(closed(7)),
        ..snapshot(11, vec![peer(2, None)])
    };
    scene.engine.lock_ahead(&ruled).expect("locked");
    assert!(!scene.is_live(3));
    scene.engine.snapshot(ruled).expect("applied");
    let datapath = Datapath::open(&scene.config).expect("adopted");
    assert_eq!(datapath.policy_id().expect("read"), 7);
}

/// A time that is later than every one so far.
fn later() -> u64 {
    let before = datapath::now();
    while datapath::now() == before {
        std::thread::yield_now();
    }
    datapath::now()
}

#[test]
fn inv9_an_event_is_no_later_owners_and_its_rule_no_later_policys() {
    let mut scene = Scene::new();
    let before = datapath::now();
    let mut datapath = Datapath::open(&scene.config).expect("adopted");
    let (first, second) = ([2; 32], [8; 32]);
    assert_eq!(datapath.key_at(0, before), None, "an earlier run's");
    let seen = later();
    let index = (0..2)
        .find(|index| datapath.key_at(*index, seen) == Some(&first))
        .expect("it has an index");
    datapath.remove_peer(&first).expect("removed");
    datapath
        .upsert_peer(&second, &["10.77.0.9/32".parse().expect("address")])
        .expect("added");
    assert_eq!(datapath.key_at(index, seen), None);
    assert_eq!(datapath.peer_at(index, seen), None);
    assert_eq!(datapath.key_at(index, later()), Some(&second));
    drop(datapath);

    let ruled = |id| v1::Snapshot {
        policy: Some(closed(id)),
        ..snapshot(10 + id, both())
    };
    scene.engine.snapshot(ruled(7)).expect("applied");
    let before = datapath::now();
    let mut datapath = Datapath::open(&scene.config).expect("adopted");
    assert_eq!(datapath.policy_at(before), None, "an earlier run's");
    let seen = later();
    assert_eq!(datapath.policy_at(seen), Some(7));
    datapath.switch_policy(None, |_| 0).expect("switched");
    assert_eq!(datapath.policy_at(seen), None);
    assert_eq!(datapath.policy_at(later()), Some(0));
}

/// The session of a grant that the datapath is given as it is.
fn grant(tag: u64) -> datapath::SessionGrant {
    let now = datapath::now();
    datapath::SessionGrant {
        tag,
        level: Level::Mfa,
        authenticated_at: now,
        deadline: now + 3_600_000_000_000,
        idle_timeout: 0,
        last_activity: now,
    }
}

#[test]
fn inv1_a_grant_waits_for_programs_that_read_the_effective_policy_before() {
    let scene = Scene::new();
    let mut datapath = Datapath::open(&scene.config).expect("adopted");
    let peers = [[2; 32], [3; 32]];
    for key in &peers {
        datapath.set_class(key, 7).expect("classed");
        datapath.set_session(key, Some(&grant(1))).expect("granted");
    }
    let waited = |datapath: &mut Datapath, act: &dyn Fn(&mut Datapath)| {
        let before = datapath.waits();
        act(datapath);
        datapath.waits() - before
    };
    // Logins without a change wait for nothing.
    let login = |datapath: &mut Datapath| {
        for key in &peers {
            datapath.set_session(key, None).expect("locked");
            datapath.set_session(key, Some(&grant(2))).expect("granted");
        }
    };
    assert_eq!(waited(&mut datapath, &login), 0);
    // A narrower one: first the locks are waited for, and then the numbers, each once.
    let change = |datapath: &mut Datapath| {
        for key in &peers {
            datapath.set_session(key, None).expect("locked");
        }
        for key in &peers {
            datapath.set_class(key, 8).expect("classed");
        }
    };
    assert_eq!(waited(&mut datapath, &change), 1);
    let granted = |datapath: &mut Datapath| {
        for key in &peers {
            datapath.set_session(key, Some(&grant(3))).expect("granted");
        }
    };
    assert_eq!(waited(&mut datapath, &granted), 1);
    // The same for peers that are loaded with their sessions.
    let mut views = datapath.peers().expect("read");
    for view in &mut views {
        view.policy = 9;
        view.session = Some(grant(4));
    }
    let load = |datapath: &mut Datapath| datapath.load_sessions(&views).expect("loaded");
    assert_eq!(waited(&mut datapath, &load), 2);
}

#[test]
fn inv1_a_start_changes_no_policy() {
    let mut scene = Scene::new();
    for id in [7, 8] {
        let ruled = v1::Snapshot {
            policy: Some(closed(id)),
            ..snapshot(10 + id, both())
        };
        scene.engine.snapshot(ruled).expect("applied");
        let datapath = Datapath::open(&scene.config).expect("adopted");
        assert_eq!(datapath.policy_id().expect("read"), id);
    }
}

#[test]
fn inv2_a_message_counts_from_when_it_came() {
    let mut scene = Scene::new();
    let received = datapath::now() - 30_000_000_000;
    let waited = delta(10, vec![peer(2, Some(session(9, 60)))], &[]);
    scene
        .engine
        .delta_received(waited, received)
        .expect("applied");
    let datapath = Datapath::open(&scene.config).expect("adopted");
    let view = datapath.read_peer(&[2; 32]).expect("read").expect("there");
    let deadline = view.session.expect("live").deadline;
    assert_eq!(deadline, received + 60_000_000_000);
}

#[test]
fn inv1_a_start_has_flows_decided_again_in_case_a_service_was_just_taken_away() {
    let scene = Scene::new();
    let pin = Datapath::pin_directory(&scene.config)
        .expect("told")
        .join(names::SETTINGS);
    let epoch = || {
        let map = aya::maps::MapData::from_pin(&pin).expect("pinned");
        let map = aya::maps::Array::<_, Settings>::try_from(aya::maps::Map::Array(map));
        map.expect("an array").get(&0, 0).expect("read").epoch
    };
    let before = epoch();
    let mut datapath = Datapath::open(&scene.config).expect("adopted");
    assert_ne!(epoch(), before);
    assert_eq!(epoch() & 1, before & 1, "the parity is the policy's");
    // A failure after a deletion tells flows too.
    let before = epoch();
    let crowd: Vec<_> = (1..=2000)
        .map(|port| datapath::Service {
            addr: "10.77.0.9".parse().expect("address"),
            protocol: 17,
            port,
        })
        .collect();
    datapath.set_services(&crowd).expect_err("no room");
    assert_ne!(epoch(), before);
    assert_eq!(epoch() & 1, before & 1, "the parity is the policy's");
}
