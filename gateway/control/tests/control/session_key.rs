//! Session-key locations: a device is a peer while it has a session, by a key of that session alone.

use std::time::Duration;

use portcullis_control::LoginError;
use portcullis_proto::v1::admin_server::Admin as _;
use portcullis_proto::v1::revoke_sessions_request::Target;
use portcullis_proto::v1::{self, AddSessionRequest, AddSessionResponse};
use tonic::{Code, Request, Status};

use crate::fixture::{Account, Engine, PASSWORD, World, key};
use crate::gateway::{Gateway, Served, enroll};

crate::on_both!(
    a_device_is_a_peer_only_while_it_has_a_session,
    a_session_that_no_gateway_acknowledges_is_none,
    the_key_outlives_control_and_not_the_session,
    a_session_past_its_deadline_is_no_peer_before_anything_is_swept,
    nobody_logs_in_through_the_tunnel_or_brings_a_key,
    a_location_has_a_mode_that_there_is,
);

pub(crate) async fn location(world: &World, mode: &str) -> Result<v1::Location, Status> {
    let location = v1::Location {
        name: "vault".into(),
        pools: vec!["10.88.0.0/24".into()],
        endpoint: "vpn.example.org:51820".into(),
        session_lifetime_ms: 3_600_000,
        mode: mode.into(),
        ..Default::default()
    };
    let request = v1::AddLocationRequest {
        location: Some(location),
        ..Default::default()
    };
    let admin = world.control.admin();
    Ok(admin
        .add_location(Request::new(request))
        .await?
        .into_inner())
}

async fn add_device(
    world: &World,
    public_key: [u8; 32],
    preshared_key: bool,
) -> Result<v1::Device, Status> {
    let request = v1::AddDeviceRequest {
        name: "laptop".into(),
        user: "alice".into(),
        public_key: public_key.to_vec(),
        preshared_key,
        ..Default::default()
    };
    let admin = world.control.admin();
    let added = admin.add_device(Request::new(request)).await?;
    Ok(added.into_inner().device.unwrap())
}

/// A session-key location with alice's laptop, and a gateway that follows.
async fn vault(engine: Engine) -> (World, Served, Gateway) {
    let (world, _, served, gateway) = vault_with(engine, key("laptop")).await;
    (world, served, gateway)
}

/// The same with this key of the laptop's.
pub(crate) async fn vault_with(
    engine: Engine,
    public_key: [u8; 32],
) -> (World, Account, Served, Gateway) {
    let world = World::new(engine).await;
    let (alice, served, gateway) = vault_in(&world, public_key).await;
    (world, alice, served, gateway)
}

/// The same in this world.
pub(crate) async fn vault_in(world: &World, public_key: [u8; 32]) -> (Account, Served, Gateway) {
    location(world, "session-key").await.unwrap();
    let alice = world.user("alice").await;
    add_device(world, public_key, false).await.unwrap();
    let served = Served::start(&world.control).await;
    let token = world.control.gateway_token("gw", "vault").await.unwrap();
    let enrolled = enroll(&world.control, served.port, token.expose());
    let mut gateway = Gateway::new(enrolled.await.unwrap());
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(world)).await;
    (alice, served, gateway)
}

pub(crate) fn newest(world: &World) -> u64 {
    *world.control.revisions().borrow()
}

async fn add_session(world: &World) -> Result<AddSessionResponse, Status> {
    let request = AddSessionRequest {
        device: "laptop".into(),
        ..Default::default()
    };
    let admin = world.control.admin();
    Ok(admin.add_session(Request::new(request)).await?.into_inner())
}

/// A session that the gateway acknowledges.
async fn connect(world: &World, gateway: &mut Gateway) -> AddSessionResponse {
    let next = newest(world) + 1;
    let (answer, ()) = tokio::join!(add_session(world), gateway.follow_to(next));
    answer.unwrap()
}

fn held(gateway: &Gateway) -> Option<&v1::Peer> {
    gateway.state.peers.get(key("laptop").as_slice())
}

async fn a_device_is_a_peer_only_while_it_has_a_session(engine: Engine) {
    let (world, _served, mut gateway) = vault(engine).await;
    assert_eq!(held(&gateway), None, "in a snapshot");

    let first = connect(&world, &mut gateway).await;
    assert_eq!(first.preshared_key.len(), 32);
    assert!(!format!("{first:?}").contains(&format!("{:?}", first.preshared_key)));
    let peer = held(&gateway).unwrap();
    assert_eq!(peer.preshared_key, first.preshared_key);
    assert!(peer.session.is_some());

    // A newer session takes the place of the older one, and its key that of the older key.
    let second = connect(&world, &mut gateway).await;
    assert_ne!(second.preshared_key, first.preshared_key);
    let peer = held(&gateway).unwrap();
    assert_eq!(peer.preshared_key, second.preshared_key);

    let next = newest(&world) + 1;
    let revoke = world.revoke(Target::Device("laptop".into()), 5_000);
    let (status, ()) = tokio::join!(revoke, gateway.follow_to(next));
    assert!(status.gateways.iter().all(|gateway| gateway.acknowledged));
    assert_eq!(held(&gateway), None, "in a delta");
    let heard: String = gateway.heard.chars().filter(|c| *c == 's').collect();
    assert_eq!(heard, "s", "deltas were enough: {}", gateway.heard);

    let third = connect(&world, &mut gateway).await;
    assert_ne!(third.preshared_key, first.preshared_key);
    assert_ne!(third.preshared_key, second.preshared_key);
}

async fn a_session_that_no_gateway_acknowledges_is_none(engine: Engine) {
    let (world, served, mut gateway) = vault(engine).await;
    // It hears of the peer and says that its kernel holds something else.
    gateway.lie = true;
    let listening = async {
        while gateway.hear().await.is_ok() {
            gateway.acknowledge().await;
        }
    };
    let refused = tokio::select! {
        refused = add_session(&world) => refused.unwrap_err(),
        () = listening => panic!("the stream ended"),
    };
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("ended again"), "{refused}");
    gateway.disconnect();

    let sessions = world.sessions().await;
    assert!(sessions.iter().all(|session| session.state == "revoked"));
    assert_eq!(sessions.len(), 1);
    gateway.lie = false;
    gateway.connect(served.port).await.unwrap();
    gateway.hear().await.unwrap();
    assert_eq!(held(&gateway), None);
}

async fn the_key_outlives_control_and_not_the_session(engine: Engine) {
    let (mut world, served, mut gateway) = vault(engine).await;
    let answer = connect(&world, &mut gateway).await;
    gateway.disconnect();
    served.stop().await;
    world.reopen().await;

    let served = Served::start(&world.control).await;
    let remembered = std::mem::take(&mut gateway.state);
    gateway.connect(served.port).await.unwrap();
    gateway.hear().await.unwrap();
    let peer = held(&gateway).unwrap();
    assert_eq!(peer.preshared_key, answer.preshared_key);
    gateway.disconnect();

    // Ended while it was away: what it resumes with takes the peer from it.
    world.revoke(Target::Everyone(true), 0).await;
    gateway.state = remembered;
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    assert_eq!(gateway.heard, "d");
    assert_eq!(held(&gateway), None);
}

async fn a_session_past_its_deadline_is_no_peer_before_anything_is_swept(engine: Engine) {
    let (world, served, mut gateway) = vault(engine).await;
    connect(&world, &mut gateway).await;
    gateway.disconnect();
    world.advance_s(3_600);
    let remembered = std::mem::take(&mut gateway.state);
    gateway.connect(served.port).await.unwrap();
    gateway.hear().await.unwrap();
    assert_eq!(held(&gateway), None);
    gateway.disconnect();

    // One that held it is told once it is.
    gateway.state = remembered;
    let control = world.control.clone();
    let sweeping = tokio::spawn(async move { control.run_expiry(std::future::pending()).await });
    gateway.connect(served.port).await.unwrap();
    let gone = async {
        while held(&gateway).is_some() {
            gateway.hear().await.unwrap();
            gateway.acknowledge().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();
    sweeping.abort();
}

async fn nobody_logs_in_through_the_tunnel_or_brings_a_key(engine: Engine) {
    let world = World::new(engine).await;
    location(&world, "session-key").await.unwrap();
    world.user("alice").await;
    let refused = add_device(&world, key("laptop"), true).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let device = add_device(&world, key("laptop"), false).await.unwrap();
    let from = device.addresses[0].parse().unwrap();
    let logins = world.control.logins();
    let refused = logins.begin(from, "alice", PASSWORD.into()).await;
    assert!(
        matches!(refused, Err(LoginError::SessionKey)),
        "{refused:?}"
    );
    assert!(world.sessions().await.is_empty());
}

async fn a_location_has_a_mode_that_there_is(engine: Engine) {
    let world = World::new(engine).await;
    let refused = location(&world, "open").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let location = location(&world, "").await.unwrap();
    assert_eq!(location.mode, "gate");
}
