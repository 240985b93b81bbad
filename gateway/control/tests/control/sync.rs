//! The stream: revocation proven, deltas equal to snapshots, nobody served who should not be.

use std::time::Duration;

use portcullis_proto::v1::revoke_sessions_request::Target;
use portcullis_proto::v1::session_ended::Cause;
use portcullis_proto::v1::{self, admin_server::Admin as _};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tonic::{Code, Request};

use crate::fixture::{Engine, World, key};
use crate::gateway::{Enrolled, Gateway, Served, enroll};

crate::on_both!(
    invariant_4_a_revocation_is_pending_until_acknowledged,
    invariant_5_deltas_resumption_and_snapshots_agree,
    a_gateway_that_missed_a_revocation_gets_it_on_reconnect,
    a_login_returns_when_its_gateway_has_acknowledged,
    a_deviating_kernel_gets_everything_again,
    a_kernel_that_drifts_after_its_acknowledgement_gets_everything_again,
    who_may_stream,
    invariant_4_a_removed_gateway_is_pending_until_it_holds_no_peer,
    a_lost_gateway_is_forgotten_after_the_last_deadline,
    a_new_enrolment_ends_the_stream_of_the_old_one,
    a_delta_never_leaves_out_a_forgotten_removal,
    streams_end_with_the_service,
    a_revocation_takes_milliseconds,
    reports_are_recorded,
);

async fn one_gateway(engine: Engine) -> (World, Served, Enrolled) {
    let (world, ..) = World::with_alice(engine).await;
    let served = Served::start(&world.control).await;
    let token = world.control.gateway_token("gw", "office").await.unwrap();
    let enrolled = enroll(&world.control, served.port, token.expose())
        .await
        .unwrap();
    (world, served, enrolled)
}

fn newest(world: &World) -> u64 {
    *world.control.revisions().borrow()
}

const REMOVED: &str = "this gateway has been removed, or has enrolled again";

async fn remove(world: &World, force: bool) -> v1::RevocationStatus {
    let request = v1::RemoveGatewayRequest {
        name: "gw".into(),
        force,
    };
    let admin = world.control.admin();
    let removed = admin.remove_gateway(Request::new(request)).await;
    removed.unwrap().into_inner()
}

async fn gateway_info(world: &World) -> v1::Gateway {
    let request = v1::NameRequest { name: "gw".into() };
    world
        .control
        .admin()
        .get_gateway(Request::new(request))
        .await
        .unwrap()
        .into_inner()
}

/// Until control has taken in what a gateway said.
async fn eventually(mut done: impl AsyncFnMut() -> bool) {
    let trying = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), trying)
        .await
        .expect("in time");
}

async fn invariant_4_a_revocation_is_pending_until_acknowledged(engine: Engine) {
    let (world, served, enrolled) = one_gateway(engine).await;
    world.grant("laptop").await;
    let mut gateway = Gateway::new(enrolled);
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    assert!(
        gateway.state.peers[key("laptop").as_slice()]
            .session
            .is_some()
    );
    let location = gateway.state.location.clone().unwrap();
    assert_eq!(location.addresses, ["10.77.0.1/24", "fd77::1/64"]);
    assert_eq!(location.open_services.len(), 2);

    // Told, but not acknowledged: pending, by gateway.
    let status = world.revoke(Target::User("alice".into()), 50).await;
    assert_eq!((status.sessions, status.gateways.len()), (1, 1));
    assert!(status.gateways[0].connected && !status.gateways[0].acknowledged);
    assert_eq!(world.sessions().await[0].state, "revoked");
    gateway.hear().await.unwrap();
    assert!(
        gateway.state.peers[key("laptop").as_slice()]
            .session
            .is_none()
    );
    gateway.acknowledge().await;
    eventually(async || gateway_info(&world).await.in_sync).await;

    // Acknowledged while the call waits.
    world.grant("laptop").await;
    gateway.follow_to(newest(&world)).await;
    let revoking = world.revoke(Target::Device("laptop".into()), 5_000);
    let (status, ()) = tokio::join!(revoking, async {
        gateway.hear().await.unwrap();
        gateway.acknowledge().await;
    });
    assert!(status.gateways[0].acknowledged, "{status:?}");
    assert_eq!(status.gateways[0].applied_revision, status.revision);
}

async fn a_gateway_that_missed_a_revocation_gets_it_on_reconnect(engine: Engine) {
    let (mut world, served, enrolled) = one_gateway(engine).await;
    world.grant("laptop").await;
    let mut gateway = Gateway::new(enrolled);
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    eventually(async || gateway_info(&world).await.in_sync).await;
    gateway.disconnect();
    eventually(async || !gateway_info(&world).await.connected).await;
    let status = world.revoke(Target::Everyone(true), 0).await;
    assert!(!status.gateways[0].acknowledged && !status.gateways[0].connected);
    // Control restarts in between, too.
    drop(served);
    world.reopen().await;
    let served = Served::start(&world.control).await;
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(status.revision).await;
    assert_eq!(gateway.heard, "d", "it resumed");
    assert!(
        gateway.state.peers[key("laptop").as_slice()]
            .session
            .is_none()
    );
    eventually(async || gateway_info(&world).await.in_sync).await;
}

async fn a_login_returns_when_its_gateway_has_acknowledged(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    let served = Served::start(&world.control).await;
    let token = world.control.gateway_token("gw", "office").await.unwrap();
    let mut gateway = Gateway::new(
        enroll(&world.control, served.port, token.expose())
            .await
            .unwrap(),
    );
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    let following = tokio::spawn(async move {
        while gateway
            .state
            .peers
            .values()
            .all(|peer| peer.session.is_none())
        {
            gateway.hear().await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            gateway.acknowledge().await;
        }
        gateway
    });
    world.log_in(from, &alice).await.unwrap();
    let info = gateway_info(&world).await;
    assert!(info.in_sync, "{info:?}");
    following.await.unwrap();
}

async fn a_deviating_kernel_gets_everything_again(engine: Engine) {
    let (world, served, enrolled) = one_gateway(engine).await;
    let mut gateway = Gateway::new(enrolled);
    gateway.connect(served.port).await.unwrap();
    gateway.lie = true;
    gateway.hear().await.unwrap();
    gateway.acknowledge().await;
    gateway.hear().await.unwrap();
    assert_eq!(gateway.heard, "ss");
    assert!(!gateway_info(&world).await.in_sync);
    // A revocation is not proven by an acknowledgement of something else.
    let revoking = world.revoke(Target::Everyone(true), 200);
    let (status, ()) = tokio::join!(revoking, async {
        gateway.hear().await.unwrap();
        gateway.acknowledge().await;
    });
    assert!(!status.gateways[0].acknowledged);
    gateway.lie = false;
    gateway.hear().await.unwrap();
    gateway.acknowledge().await;
    eventually(async || gateway_info(&world).await.in_sync).await;
}

async fn a_kernel_that_drifts_after_its_acknowledgement_gets_everything_again(engine: Engine) {
    let (world, served, enrolled) = one_gateway(engine).await;
    let mut gateway = Gateway::new(enrolled);
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    eventually(async || gateway_info(&world).await.in_sync).await;
    // Unasked, as after each of its reconcile periods.
    gateway.acknowledge().await;
    gateway.lie = true;
    gateway.acknowledge().await;
    gateway.hear().await.unwrap();
    assert!(gateway.heard.ends_with('s'), "{}", gateway.heard);
    assert!(!gateway_info(&world).await.in_sync);
    gateway.lie = false;
    gateway.acknowledge().await;
    eventually(async || gateway_info(&world).await.in_sync).await;
}

async fn who_may_stream(engine: Engine) {
    let (world, served, enrolled) = one_gateway(engine).await;
    let mut gateway = Gateway::new(enrolled.clone());
    let refused = gateway.connect_anonymously(served.port).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(
        enroll(&world.control, served.port, "nonsense")
            .await
            .is_err()
    );

    // A token is good once, and a new enrolment voids the old certificate.
    let token = world.control.gateway_token("gw", "office").await.unwrap();
    let newer = enroll(&world.control, served.port, token.expose())
        .await
        .unwrap();
    assert!(
        enroll(&world.control, served.port, token.expose())
            .await
            .is_err()
    );
    let refused = gateway.connect(served.port).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let stale = world.control.gateway_token("gw", "office").await.unwrap();
    world.advance_s(3_601);
    assert!(
        enroll(&world.control, served.port, stale.expose())
            .await
            .is_err()
    );

    // One stream at a time; a removed gateway is told so and not served again.
    let (mut first, mut second) = (Gateway::new(newer.clone()), Gateway::new(newer));
    first.connect(served.port).await.unwrap();
    first.follow_to(newest(&world)).await;
    second.connect(served.port).await.unwrap();
    second.follow_to(newest(&world)).await;
    assert_eq!(
        first.hear().await.unwrap_err(),
        "the gateway has connected again"
    );
    assert!(remove(&world, true).await.gateways.is_empty());
    assert_eq!(second.hear().await.unwrap_err(), REMOVED);
    assert_eq!(
        second.connect(served.port).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

/// Nothing is forgotten that may still let packets through.
async fn invariant_4_a_removed_gateway_is_pending_until_it_holds_no_peer(engine: Engine) {
    let (world, served, enrolled) = one_gateway(engine).await;
    world.grant("laptop").await;
    let mut gateway = Gateway::new(enrolled);
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    gateway.disconnect();
    eventually(async || !gateway_info(&world).await.connected).await;
    let status = remove(&world, false).await;
    assert!(!status.gateways[0].acknowledged, "{status:?}");
    assert!(status.open_until_ms > world.now_ms() + 3_600_000 - 1_000);
    assert!(gateway_info(&world).await.removing);
    // It counts in what is revoked meanwhile, and gets nothing new.
    let revoked = world.revoke(Target::Device("laptop".into()), 0).await;
    assert!(!revoked.gateways[0].acknowledged && revoked.gateways[0].removing);
    let refused = world.control.gateway_token("gw", "office").await;
    assert!(refused.is_err());
    gateway.connect(served.port).await.unwrap();
    let (status, ()) = tokio::join!(remove(&world, false), async {
        gateway.hear().await.unwrap();
        assert!(gateway.state.peers.is_empty());
        gateway.lie = true;
        gateway.acknowledge().await;
        gateway.hear().await.unwrap();
        gateway.lie = false;
        assert!(gateway_info(&world).await.removing, "a lie proves nothing");
        gateway.acknowledge().await;
    });
    assert!(status.gateways[0].acknowledged, "{status:?}");
    assert_eq!(status.open_until_ms, 0);
    assert_eq!(gateway.hear().await.unwrap_err(), REMOVED);
    let refused = gateway.connect(served.port).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

async fn a_lost_gateway_is_forgotten_after_the_last_deadline(engine: Engine) {
    let (world, _served, _enrolled) = one_gateway(engine).await;
    let control = world.control.clone();
    let sweeper = tokio::spawn(async move { control.run_expiry(std::future::pending()).await });
    world.grant("laptop").await;
    // Gone in the store, and perhaps not at the gateway.
    let request = v1::NameRequest {
        name: "laptop".into(),
    };
    let admin = world.control.admin();
    admin.remove_device(Request::new(request)).await.unwrap();
    assert!(!remove(&world, false).await.gateways[0].acknowledged);
    world.advance_s(3_600);
    world.user("bob").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(gateway_info(&world).await.removing);
    world.advance_s(60);
    world.user("carol").await;
    let request = || v1::NameRequest { name: "gw".into() };
    eventually(async || admin.get_gateway(Request::new(request())).await.is_err()).await;
    sweeper.abort();
    // One that never enrolled holds nothing.
    world.control.gateway_token("gw", "office").await.unwrap();
    assert!(remove(&world, false).await.gateways.is_empty());
    let gone = admin
        .get_gateway(Request::new(request()))
        .await
        .unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

/// The older stream need not wait for the newer one to connect.
async fn a_new_enrolment_ends_the_stream_of_the_old_one(engine: Engine) {
    let (world, served, enrolled) = one_gateway(engine).await;
    let mut old = Gateway::new(enrolled);
    old.connect(served.port).await.unwrap();
    old.follow_to(newest(&world)).await;
    eventually(async || gateway_info(&world).await.in_sync).await;
    let request = v1::NameRequest { name: "gw".into() };
    let admin = world.control.admin();
    let token = admin.gateway_token(Request::new(request)).await.unwrap();
    let token = token.into_inner().token;
    let enrolled = enroll(&world.control, served.port, &token).await.unwrap();
    assert_eq!(old.hear().await.unwrap_err(), REMOVED);
    // The new one may be another machine; its key is then the gateway's, and no third one.
    let mut new = Gateway::new(enrolled);
    new.key = key("other");
    new.connect(served.port).await.unwrap();
    new.follow_to(newest(&world)).await;
    assert_eq!(gateway_info(&world).await.public_key, key("other"));
    new.disconnect();
    new.key = key("third");
    new.connect(served.port).await.unwrap();
    let refused = new.hear().await.unwrap_err();
    assert!(refused.contains("portcullis gateway token gw"), "{refused}");
    assert_eq!(gateway_info(&world).await.public_key, key("other"));
}

async fn a_delta_never_leaves_out_a_forgotten_removal(engine: Engine) {
    let (world, served, enrolled) = one_gateway(engine).await;
    world.device("phone", "alice").await;
    let mut gateway = Gateway::new(enrolled);
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    gateway.disconnect();
    let request = v1::NameRequest {
        name: "phone".into(),
    };
    let removing = world.control.admin();
    removing.remove_device(Request::new(request)).await.unwrap();
    world.advance_s(8 * 86_400);
    // Cleans up as it starts; the second time there is nothing left to remove.
    for _ in 0..2 {
        let control = world.control.clone();
        let sweeper = tokio::spawn(async move { control.run_expiry(std::future::pending()).await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        sweeper.abort();
        let _ = sweeper.await;
    }
    gateway.connect(served.port).await.unwrap();
    gateway.hear().await.unwrap();
    assert_eq!(gateway.heard, "s");
    assert!(!gateway.state.peers.contains_key(key("phone").as_slice()));
}

async fn streams_end_with_the_service(engine: Engine) {
    let (mut world, served, enrolled) = one_gateway(engine).await;
    let mut gateway = Gateway::new(enrolled);
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    served.stop().await;
    gateway.hear().await.unwrap_err();
    assert!(!gateway_info(&world).await.connected);
    world.reopen().await;
    let served = Served::start(&world.control).await;
    gateway.connect(served.port).await.unwrap();
    world.grant("laptop").await;
    gateway.follow_to(newest(&world)).await;
}

/// What a user's revocation costs from the call to the acknowledgement, all of it: disk, wake-up,
/// TLS. The bound is loose, for busy machines; the figure itself is measured by the benchmarks.
async fn a_revocation_takes_milliseconds(engine: Engine) {
    let (world, served, enrolled) = one_gateway(engine).await;
    let mut gateway = Gateway::new(enrolled);
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    let following = tokio::spawn(async move {
        while gateway.hear().await.is_ok() {
            gateway.acknowledge().await;
        }
    });
    let mut took = Vec::new();
    for _ in 0..100 {
        world.grant("laptop").await;
        let started = std::time::Instant::now();
        let status = world.revoke(Target::Device("laptop".into()), 5_000).await;
        took.push(started.elapsed());
        assert!(status.gateways[0].acknowledged);
    }
    following.abort();
    took.sort();
    println!("{engine:?}: median {:?}, p99 {:?}", took[50], took[98]);
    assert!(took[50] < Duration::from_millis(100), "{took:?}");
}

async fn reports_are_recorded(engine: Engine) {
    let (world, served, enrolled) = one_gateway(engine).await;
    let session = world.grant("laptop").await;
    let mut gateway = Gateway::new(enrolled);
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    let before = newest(&world);
    world.advance_s(100);
    gateway
        .report(v1::Report {
            peers: vec![v1::PeerReport {
                public_key: key("laptop").to_vec(),
                endpoint: "192.0.2.7:4321".into(),
                last_handshake_ms: 5,
                rx_bytes: 6,
                tx_bytes: 7,
                idle_ms: 40_000,
                ..Default::default()
            }],
            reasons: vec![v1::ReasonCount {
                reason: 8,
                direction: 1,
                packets: 9,
            }],
            events: vec!["repaired".into()],
            ..Default::default()
        })
        .await;
    let device = async || {
        let request = v1::NameRequest {
            name: "laptop".into(),
        };
        world
            .control
            .admin()
            .get_device(Request::new(request))
            .await
            .unwrap()
            .into_inner()
    };
    eventually(async || device().await.rx_bytes == 6).await;
    assert_eq!(device().await.endpoint, "192.0.2.7:4321");
    assert_eq!(
        world.sessions().await[0].last_activity_ms,
        world.now_ms() - 40_000
    );
    let packets = async || {
        let reasons = gateway_info(&world).await.reasons;
        reasons.first().map_or(0, |count| count.packets)
    };
    eventually(async || packets().await == 9).await;
    assert_eq!(newest(&world), before, "no gateway has to hear of it");

    let id = uuid::Uuid::parse_str(&session.id)
        .unwrap()
        .as_bytes()
        .to_vec();
    let ended = |cause: Cause| v1::Report {
        ended: vec![v1::SessionEnded {
            id: id.clone(),
            cause: cause.into(),
        }],
        ..Default::default()
    };
    // Its deadline lies ahead: extended since, as far as control can tell.
    gateway.report(ended(Cause::Deadline)).await;
    // Silent here; but 40 s ago it was seen, if by another gateway, and 600 s are allowed.
    gateway.report(ended(Cause::Idle)).await;
    let marker = v1::Report {
        events: vec!["read so far".into()],
        ..Default::default()
    };
    gateway.report(marker).await;
    let told = |record: &v1::AuditRecord| record.detail.contains("read so far");
    eventually(async || world.audit().await.iter().any(told)).await;
    assert_eq!(world.sessions().await[0].state, "live");
    world.advance_s(600);
    gateway.report(ended(Cause::Idle)).await;
    eventually(async || world.sessions().await[0].state != "live").await;
    let ended = &world.sessions().await[0];
    assert_eq!(
        (ended.state.as_str(), ended.ended_by.as_str()),
        ("idle", "gateway:gw")
    );
    gateway.follow_to(before + 1).await;
    assert!(
        gateway.state.peers[key("laptop").as_slice()]
            .session
            .is_none()
    );
}

/// What an administrator may do between two looks of a gateway.
#[derive(Clone, Copy, Debug)]
enum Act {
    AddDevice(u8),
    RemoveDevice(u8),
    Grant(u8),
    Revoke(u8),
    Extend(u8),
    /// One of a few policies.
    Policy(u8),
    /// Into or out of a group.
    Group(u8),
    Reconnect,
    Look,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let device = 0_u8..5;
    let act = prop_oneof![
        3 => device.clone().prop_map(Act::AddDevice),
        2 => device.clone().prop_map(Act::RemoveDevice),
        3 => device.clone().prop_map(Act::Grant),
        2 => device.clone().prop_map(Act::Revoke),
        1 => device.clone().prop_map(Act::Extend),
        1 => device.clone().prop_map(Act::Policy),
        1 => device.prop_map(Act::Group),
        2 => Just(Act::Reconnect),
        3 => Just(Act::Look),
    ];
    prop::collection::vec(act, 150)
}

async fn invariant_5_deltas_resumption_and_snapshots_agree(engine: Engine) {
    let (world, served, enrolled) = one_gateway(engine).await;
    world
        .location("elsewhere", &["10.99.0.0/24"])
        .await
        .unwrap();
    let mut follower = Gateway::new(enrolled.clone());
    follower.connect(served.port).await.unwrap();
    let acts = acts()
        .new_tree(&mut TestRunner::deterministic())
        .unwrap()
        .current();
    let admin = world.control.admin();
    let mut looks = 0;
    for act in acts {
        let name = |device: u8| format!("d{device}");
        match act {
            // The same key goes and comes back, now here, now there: refusals are part of it.
            Act::AddDevice(device) => {
                let location = if device == 4 { "elsewhere" } else { "office" };
                let _ = world
                    .try_device(&name(device), "alice", location, &key(&name(device)))
                    .await;
            }
            Act::RemoveDevice(device) => {
                let request = v1::RevokeSessionsRequest {
                    target: Some(Target::Device(name(device))),
                    wait_ms: 0,
                };
                if admin.revoke_sessions(Request::new(request)).await.is_ok() {
                    let request = v1::NameRequest { name: name(device) };
                    let removing = admin.remove_device(Request::new(request));
                    let (removed, ()) = tokio::join!(removing, follower.follow_to(newest(&world)));
                    removed.unwrap();
                }
            }
            Act::Grant(device) => {
                let request = v1::AddSessionRequest {
                    device: name(device),
                    ..Default::default()
                };
                let _ = admin.add_session(Request::new(request)).await;
            }
            Act::Revoke(device) => {
                let target = Some(Target::Device(name(device)));
                let request = v1::RevokeSessionsRequest { target, wait_ms: 0 };
                let _ = admin.revoke_sessions(Request::new(request)).await;
            }
            Act::Extend(device) => {
                let sessions = world.sessions().await;
                let live = sessions
                    .iter()
                    .find(|s| s.device == name(device) && s.state == "live");
                if let Some(live) = live {
                    let request = v1::ExtendSessionRequest {
                        id: live.id.clone(),
                        by_ms: 1,
                    };
                    admin.extend_session(Request::new(request)).await.unwrap();
                }
            }
            Act::Policy(number) => {
                let who = ["*", "group:g0", "group:g1", "user:alice", "group:g0"][number as usize];
                let text = format!(
                    "[[rule]]\nname = \"r\"\nwho = [\"{who}\"]\nto = [\"10.{number}.0.0/16\"]\n"
                );
                let request = v1::ApplyPolicyRequest { text, wait_ms: 0 };
                let applied = admin.apply_policy(Request::new(request)).await.unwrap();
                assert_eq!(applied.into_inner().problems, []);
            }
            Act::Group(number) => {
                let group = vec![format!("g{}", number % 2)];
                let (add, remove) = if number < 3 {
                    (group, vec![])
                } else {
                    (vec![], group)
                };
                let request = v1::SetUserGroupsRequest {
                    name: "alice".into(),
                    add,
                    remove,
                    ..Default::default()
                };
                admin.set_user_groups(Request::new(request)).await.unwrap();
            }
            Act::Reconnect => {
                follower.disconnect();
                follower.connect(served.port).await.unwrap();
            }
            Act::Look => {
                follower.follow_to(newest(&world)).await;
                looks += 1;
            }
        }
    }
    assert!(looks > 3);
    follower.follow_to(newest(&world)).await;
    eventually(async || gateway_info(&world).await.in_sync).await;
    assert!(
        follower.state.peers.len() > 1,
        "something is left to compare"
    );
    follower.disconnect();
    let mut fresh = Gateway::new(enrolled);
    fresh.connect(served.port).await.unwrap();
    fresh.hear().await.unwrap();
    assert_eq!(fresh.heard, "s");
    assert_eq!(fresh.state, follower.state);
    assert_eq!(fresh.state.digest(), follower.state.digest());
}
