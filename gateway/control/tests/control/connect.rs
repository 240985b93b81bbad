//! Logins before there is a tunnel: nothing without the device's key, nothing twice, and one key for one session.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_control::{ConnectProof, ConnectStep, Connection, Connects, LoginError, LoginId};
use portcullis_proto::v1::revoke_sessions_request::Target;
use portcullis_trust::Claim;
use sqlx::{AnyConnection, Connection as _};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::fixture::{Account, Engine, PASSWORD, World};
use crate::gateway::{Gateway, Served};
use crate::session_key::{newest, vault_with};

crate::on_both!(
    a_device_that_proves_its_key_and_its_user_connects,
    nothing_begins_without_the_devices_key,
    a_proof_is_good_once_and_for_a_minute,
    the_key_alone_is_not_enough,
    nothing_is_finished_twice,
    of_two_logins_at_once_one_session_is_left,
    a_login_goes_on_the_way_it_began,
    without_a_gateway_there_is_no_session,
    a_session_is_ended_by_its_device,
);

/// The laptop's private key.
pub(crate) const LAPTOP: [u8; 32] = [7; 32];

pub(crate) fn public(private: [u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(private)).to_bytes()
}

pub(crate) async fn vault(engine: Engine) -> (World, Account, Served, Gateway) {
    vault_with(engine, public(LAPTOP)).await
}

/// What a device with this key says to be `username` at `location`.
pub(crate) fn prove(
    connects: &Connects,
    device: [u8; 32],
    location: &str,
    username: &str,
) -> ConnectProof {
    let public_key = STANDARD.encode(public(device));
    let asked = connects.challenge(location, &public_key).unwrap();
    let location_key = STANDARD.decode(&asked.location_key).unwrap();
    let claim = Claim {
        challenge: &asked.challenge,
        location,
        username,
        device: &public(device),
        location_key: location_key.as_slice().try_into().unwrap(),
    };
    let proof = STANDARD.encode(claim.prove(&device).unwrap().as_slice());
    ConnectProof {
        location: location.into(),
        public_key,
        challenge: asked.challenge,
        proof: proof.into(),
        username: username.into(),
        password: PASSWORD.into(),
        renew: false,
    }
}

/// The same a second time.
pub(crate) fn copy(proof: &ConnectProof) -> ConnectProof {
    ConnectProof {
        location: proof.location.clone(),
        public_key: proof.public_key.clone(),
        challenge: proof.challenge.clone(),
        proof: proof.proof.expose().into(),
        username: proof.username.clone(),
        password: proof.password.expose().into(),
        renew: proof.renew,
    }
}

pub(crate) fn attempt(step: ConnectStep) -> LoginId {
    match step {
        ConnectStep::Wants { attempt, .. } => attempt,
        step => panic!("{step:?}"),
    }
}

pub(crate) async fn begin(world: &World) -> LoginId {
    let connects = world.control.connects();
    let proof = prove(&connects, LAPTOP, "vault", "alice");
    attempt(connects.begin(proof).await.unwrap())
}

/// The last factor, while a gateway follows.
async fn finish(
    world: &World,
    gateway: &mut Gateway,
    login: &LoginId,
    code: &str,
) -> Result<Connection, LoginError> {
    let connects = world.control.connects();
    let next = newest(world) + 1;
    let (step, ()) = tokio::join!(connects.totp(login, code), gateway.follow_to(next));
    match step? {
        ConnectStep::Connected(connection) => Ok(*connection),
        step => panic!("{step:?}"),
    }
}

pub(crate) async fn connect(world: &World, alice: &Account, gateway: &mut Gateway) -> Connection {
    let login = begin(world).await;
    let code = alice.code(world.now_ms());
    finish(world, gateway, &login, &code).await.unwrap()
}

fn held(gateway: &Gateway) -> Option<String> {
    let peer = gateway.state.peers.get(public(LAPTOP).as_slice())?;
    Some(STANDARD.encode(&peer.preshared_key))
}

async fn a_device_that_proves_its_key_and_its_user_connects(engine: Engine) {
    let (world, alice, _served, mut gateway) = vault(engine).await;
    let login = begin(&world).await;
    assert_eq!(held(&gateway), None, "before the last factor");
    let code = alice.code(world.now_ms());
    let connection = finish(&world, &mut gateway, &login, &code).await.unwrap();
    assert_eq!(
        held(&gateway).as_deref(),
        Some(connection.preshared_key.expose())
    );
    assert!(!format!("{connection:?}").contains(connection.preshared_key.expose()));
    assert_eq!(connection.session.user, "alice");
    assert_eq!(connection.tunnel.endpoint, "vpn.example.org:51820");
    assert_eq!(connection.tunnel.addresses.len(), 1);

    let connects = world.control.connects();
    let session = connects.session(&connection.token).await.unwrap().unwrap();
    assert!(session.live);
    assert_eq!(session.session.id, connection.session.id);
    assert!(connects.session(&"other".into()).await.unwrap().is_none());

    let next = newest(&world) + 1;
    let revoke = world.revoke(Target::User("alice".into()), 5_000);
    let (_, ()) = tokio::join!(revoke, gateway.follow_to(next));
    assert_eq!(held(&gateway), None);
    let session = connects.session(&connection.token).await.unwrap().unwrap();
    assert_eq!((session.live, session.state.as_str()), (false, "revoked"));
}

async fn nothing_begins_without_the_devices_key(engine: Engine) {
    let (world, _, _served, _gateway) = vault(engine).await;
    let connects = world.control.connects();
    let good = || prove(&connects, LAPTOP, "vault", "alice");

    // A key that belongs to no device proves itself, and that is all.
    let stranger = prove(&connects, [8; 32], "vault", "alice");
    let foreign = ConnectProof {
        proof: copy(&stranger).proof,
        ..good()
    };
    let renamed = ConnectProof {
        username: "bob".into(),
        ..good()
    };
    let elsewhere = prove(&connects, LAPTOP, "office", "alice");
    let shapeless = ConnectProof {
        proof: "?".into(),
        ..good()
    };
    let zero = ConnectProof {
        proof: STANDARD.encode([0; 32]).into(),
        ..good()
    };
    let none = [0; 32];
    let asked = connects.challenge("vault", &STANDARD.encode(none)).unwrap();
    let weak = ConnectProof {
        public_key: STANDARD.encode(none),
        challenge: asked.challenge,
        ..copy(&zero)
    };
    for (what, proof) in [
        ("a stranger", stranger),
        ("a proof by another key", foreign),
        ("another name", renamed),
        ("a location that is not there", elsewhere),
        ("no base64", shapeless),
        ("zeros", zero),
        ("a key that is none", weak),
    ] {
        let refused = connects.begin(proof).await;
        assert!(
            matches!(refused, Err(LoginError::Refused)),
            "{what}: {refused:?}"
        );
    }
    // A challenge for another device or another location is none.
    let others = prove(&connects, [8; 32], "vault", "alice").challenge;
    let borrowed = ConnectProof {
        challenge: others,
        ..good()
    };
    let refused = connects.begin(borrowed).await;
    assert!(
        matches!(refused, Err(LoginError::UnknownAttempt)),
        "{refused:?}"
    );

    let mut connection = AnyConnection::connect(&world.config.database)
        .await
        .unwrap();
    let spent: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM connect_spent")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    assert_eq!(spent, 0, "strangers write nothing");

    // Whoever tries has delayed nobody, and left no record.
    for _ in 0..10 {
        let proof = ConnectProof {
            proof: STANDARD.encode([1; 32]).into(),
            ..good()
        };
        assert!(connects.begin(proof).await.is_err());
    }
    let audit = world.audit().await;
    assert!(audit.iter().all(|record| record.action != "login.refuse"));
    begin(&world).await;

    // Every location and every device seems to be there.
    let there = connects.challenge("vault", "x").unwrap();
    let not_there = connects.challenge("nowhere", "x").unwrap();
    assert_eq!(there.challenge.len(), not_there.challenge.len());
    assert_eq!(there.location_key.len(), not_there.location_key.len());
    assert_ne!(there.location_key, not_there.location_key);
}

async fn a_proof_is_good_once_and_for_a_minute(engine: Engine) {
    let (mut world, _, served, gateway) = vault(engine).await;
    let connects = world.control.connects();
    let proof = prove(&connects, LAPTOP, "vault", "alice");
    connects.begin(copy(&proof)).await.unwrap();
    let refused = connects.begin(copy(&proof)).await;
    assert!(
        matches!(refused, Err(LoginError::UnknownAttempt)),
        "{refused:?}"
    );

    drop((connects, gateway));
    served.stop().await;
    world.reopen().await;
    let connects = world.control.connects();
    let refused = connects.begin(proof).await;
    assert!(
        matches!(refused, Err(LoginError::UnknownAttempt)),
        "after a restart: {refused:?}"
    );
    // One that was not used outlives a restart as well, for its minute.
    let late = prove(&connects, LAPTOP, "vault", "alice");
    world.advance_s(59);
    connects.begin(copy(&late)).await.unwrap();
    let late = prove(&connects, LAPTOP, "vault", "alice");
    world.advance_s(60);
    let refused = connects.begin(late).await;
    assert!(
        matches!(refused, Err(LoginError::UnknownAttempt)),
        "{refused:?}"
    );
}

async fn the_key_alone_is_not_enough(engine: Engine) {
    let (world, alice, _served, mut gateway) = vault(engine).await;
    let connects = world.control.connects();
    let proof = ConnectProof {
        password: "wrong horse battery staple".into(),
        ..prove(&connects, LAPTOP, "vault", "alice")
    };
    let refused = connects.begin(proof).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    // With the password too.
    let login = begin(&world).await;
    let wrong = alice.wrong_code(world.now_ms());
    let refused = connects.totp(&login, &wrong).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    let refused = connects.recovery(&login, "AAAA-BBBB-CCCC-DDDD").await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    assert!(world.sessions().await.is_empty());
    assert_eq!(held(&gateway), None);
    // They were counted, and the right code still counts.
    let code = alice.code(world.now_ms());
    finish(&world, &mut gateway, &login, &code).await.unwrap();
}

async fn nothing_is_finished_twice(engine: Engine) {
    let (world, alice, _served, mut gateway) = vault(engine).await;
    let login = begin(&world).await;
    let other = begin(&world).await;
    let code = alice.code(world.now_ms());
    let connection = finish(&world, &mut gateway, &login, &code).await.unwrap();
    let connects = world.control.connects();
    let refused = connects.totp(&login, &code).await;
    assert!(
        matches!(refused, Err(LoginError::UnknownAttempt)),
        "{refused:?}"
    );
    let refused = connects.totp(&other, &code).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    assert_eq!(
        held(&gateway).as_deref(),
        Some(connection.preshared_key.expose()),
        "a login that failed has changed nothing"
    );
}

async fn of_two_logins_at_once_one_session_is_left(engine: Engine) {
    let (world, alice, _served, mut gateway) = vault(engine).await;
    let (one, other) = (begin(&world).await, begin(&world).await);
    // Two codes that are both good now.
    let codes = [-30_000, 0].map(|offset| alice.code(world.now_ms() + offset));
    let connects = world.control.connects();
    let race = async {
        tokio::join!(
            connects.totp(&one, &codes[0]),
            connects.totp(&other, &codes[1])
        )
    };
    let following = async {
        while gateway.hear().await.is_ok() {
            gateway.acknowledge().await;
        }
    };
    let (first, second) = tokio::select! {
        both = race => both,
        () = following => panic!("the stream ended"),
    };
    let live: Vec<_> = world
        .sessions()
        .await
        .into_iter()
        .filter(|session| session.state == "live")
        .collect();
    assert_eq!(live.len(), 1, "{live:?}");
    let granted: Vec<Connection> = [first, second]
        .into_iter()
        .filter_map(|step| match step {
            Ok(ConnectStep::Connected(connection)) => Some(*connection),
            _ => None,
        })
        .collect();
    let winner = granted
        .iter()
        .find(|connection| connection.session.id == live[0].id)
        .expect("whoever has the session knows its key");
    gateway.follow_to(newest(&world)).await;
    assert_eq!(
        held(&gateway).as_deref(),
        Some(winner.preshared_key.expose())
    );
}

async fn a_login_goes_on_the_way_it_began(engine: Engine) {
    let (world, alice, _served, mut gateway) = vault(engine).await;
    // Its own tunnel is up, and still no login with proof goes on in it.
    connect(&world, &alice, &mut gateway).await;
    world.advance_s(30);
    let login = begin(&world).await;
    let code = alice.code(world.now_ms());
    let from = "10.88.0.2".parse().unwrap();
    let logins = world.control.logins();
    let known = logins.current(from).await.unwrap();
    assert!(known.is_some(), "the laptop's address");
    let refused = logins.totp(from, &login, &code).await;
    assert!(
        matches!(refused, Err(LoginError::UnknownAttempt)),
        "{refused:?}"
    );
    finish(&world, &mut gateway, &login, &code).await.unwrap();

    // Nor does a login in a tunnel go on outside of it.
    world.location("office", &["10.77.0.0/24"]).await.unwrap();
    let bob = world.user("bob").await;
    let key = public([6; 32]);
    let added = world.try_device("desktop", "bob", "office", &key);
    let device = added.await.unwrap().device.unwrap();
    let from = device.addresses[0].parse().unwrap();
    let login = world.begin(from, "bob", PASSWORD).await.unwrap();
    let code = bob.code(world.now_ms());
    let connects = world.control.connects();
    let refused = connects.totp(&login, &code).await;
    assert!(
        matches!(refused, Err(LoginError::UnknownAttempt)),
        "{refused:?}"
    );
    // And a location of the other kind has no logins with proof.
    let refused = connects
        .begin(prove(&connects, [6; 32], "office", "bob"))
        .await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    logins.totp(from, &login, &code).await.unwrap();
}

async fn without_a_gateway_there_is_no_session(engine: Engine) {
    let (world, alice, _served, mut gateway) = vault(engine).await;
    gateway.disconnect();
    let login = begin(&world).await;
    let connects = world.control.connects();
    let code = alice.code(world.now_ms());
    let refused = connects.totp(&login, &code).await;
    assert!(matches!(refused, Err(LoginError::NoGateway)), "{refused:?}");
    let sessions = world.sessions().await;
    assert!(sessions.iter().all(|session| session.state != "live"));
}

async fn a_session_is_ended_by_its_device(engine: Engine) {
    let (world, alice, _served, mut gateway) = vault(engine).await;
    let connection = connect(&world, &alice, &mut gateway).await;
    let connects = world.control.connects();
    assert!(connects.end(&"other".into()).await.unwrap().is_none());
    let next = newest(&world) + 1;
    let (ended, ()) = tokio::join!(connects.end(&connection.token), gateway.follow_to(next));
    assert!(!ended.unwrap().unwrap().pending);
    assert_eq!(held(&gateway), None);
    assert!(connects.end(&connection.token).await.unwrap().is_none());
    let state = connects.session(&connection.token).await.unwrap().unwrap();
    assert_eq!(state.state, "revoked");
}
