//! A session that is renewed in place: the same one, with another key that gateways know for its next.

use portcullis_control::{ConnectProof, ConnectStep, LoginError, LoginId, RenewedConnection};
use portcullis_proto::digest::key_mark;
use portcullis_proto::v1;
use portcullis_proto::v1::revoke_sessions_request::Target;

use crate::connect::{LAPTOP, attempt, begin, connect, prove, public, vault};
use crate::fixture::{Account, Engine, World};
use crate::gateway::Gateway;
use crate::session_key::newest;

crate::on_both!(
    a_renewed_session_goes_on_with_another_key,
    without_a_session_there_is_nothing_to_renew,
    a_session_that_ends_meanwhile_is_not_revived,
    what_no_gateway_has_confirmed_is_undone,
    another_login_is_no_renewal,
);

async fn begin_renewal(world: &World) -> Result<LoginId, LoginError> {
    let connects = world.control.connects();
    let proof = ConnectProof {
        renew: true,
        ..prove(&connects, LAPTOP, "vault", "alice")
    };
    Ok(attempt(connects.begin(proof).await?))
}

async fn renew(
    world: &World,
    alice: &Account,
    gateway: &mut Gateway,
) -> Result<RenewedConnection, LoginError> {
    let login = begin_renewal(world).await?;
    let (code, next) = (alice.code(world.now_ms()), newest(world) + 1);
    let connects = world.control.connects();
    let (step, ()) = tokio::join!(connects.totp(&login, &code), gateway.follow_to(next));
    match step? {
        ConnectStep::Renewed(renewed) => Ok(*renewed),
        step => panic!("{step:?}"),
    }
}

fn peer(gateway: &Gateway) -> &v1::Peer {
    &gateway.state.peers[public(LAPTOP).as_slice()]
}

fn key(gateway: &Gateway) -> [u8; 32] {
    peer(gateway).preshared_key.as_slice().try_into().unwrap()
}

async fn a_renewed_session_goes_on_with_another_key(engine: Engine) {
    let (world, alice, _served, mut gateway) = vault(engine).await;
    let first = connect(&world, &alice, &mut gateway).await;
    let before = key(&gateway);
    assert!(peer(&gateway).renews.is_empty());
    world.advance_s(60);
    let renewed = renew(&world, &alice, &mut gateway).await.unwrap();
    let after = key(&gateway);
    assert_eq!(renewed.session.id, first.session.id);
    assert_eq!(
        renewed.session.deadline_ms,
        first.session.deadline_ms + 60_000
    );
    assert_ne!(before, after);
    assert_eq!(peer(&gateway).renews, key_mark(&before));
    assert!(!format!("{renewed:?}").contains(renewed.preshared_key.expose()));

    // What the device asks for its session with is still good.
    let connects = world.control.connects();
    let session = connects.session(&first.token).await.unwrap().unwrap();
    assert!(session.live);
    assert_eq!(session.session.deadline_ms, renewed.session.deadline_ms);

    // Once more: of the last key, and not of the one before it.
    world.advance_s(60);
    renew(&world, &alice, &mut gateway).await.unwrap();
    assert_eq!(peer(&gateway).renews, key_mark(&after));
    assert_eq!(world.sessions().await.len(), 1);
}

async fn without_a_session_there_is_nothing_to_renew(engine: Engine) {
    let (world, alice, _served, mut gateway) = vault(engine).await;
    let refused = begin_renewal(&world).await;
    assert!(matches!(refused, Err(LoginError::NoSession)), "{refused:?}");
    // A wrong password does not tell whether there is one.
    connect(&world, &alice, &mut gateway).await;
    let connects = world.control.connects();
    let proof = ConnectProof {
        renew: true,
        password: "wrong horse battery staple".into(),
        ..prove(&connects, LAPTOP, "vault", "alice")
    };
    let refused = connects.begin(proof).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
}

async fn a_session_that_ends_meanwhile_is_not_revived(engine: Engine) {
    let (world, alice, _served, mut gateway) = vault(engine).await;
    connect(&world, &alice, &mut gateway).await;
    world.advance_s(60);
    let login = begin_renewal(&world).await.unwrap();
    let next = newest(&world) + 1;
    let revoke = world.revoke(Target::User("alice".into()), 5_000);
    let (_, ()) = tokio::join!(revoke, gateway.follow_to(next));
    let code = alice.code(world.now_ms());
    let connects = world.control.connects();
    let refused = connects.totp(&login, &code).await;
    // The revocation has ended the login with it, or the session is not there any more.
    assert!(
        matches!(
            refused,
            Err(LoginError::NoSession | LoginError::UnknownAttempt)
        ),
        "{refused:?}"
    );
    let sessions = world.sessions().await;
    assert!(sessions.iter().all(|session| session.state != "live"));
    assert!(gateway.state.peers.is_empty());
}

async fn what_no_gateway_has_confirmed_is_undone(engine: Engine) {
    let (world, alice, served, mut gateway) = vault(engine).await;
    let first = connect(&world, &alice, &mut gateway).await;
    let before = key(&gateway);
    world.advance_s(60);
    let login = begin_renewal(&world).await.unwrap();
    // It applies everything, and its answers are lost.
    let code = alice.code(world.now_ms());
    let connects = world.control.connects();
    let hearing = async { while gateway.hear().await.is_ok() {} };
    let refused = tokio::select! {
        refused = connects.totp(&login, &code) => refused,
        () = hearing => panic!("the stream ended"),
    };
    assert!(
        matches!(refused, Err(LoginError::NotRenewed)),
        "{refused:?}"
    );
    gateway.follow_to(newest(&world)).await;
    assert_eq!(key(&gateway), before, "the key that the device has");
    let session = connects.session(&first.token).await.unwrap().unwrap();
    assert!(session.live);
    assert_eq!(session.session.deadline_ms, first.session.deadline_ms);
    let audit = world.audit().await;
    assert!(
        audit
            .iter()
            .any(|record| record.action == "session.renewal-undone")
    );
    drop(served);
}

async fn another_login_is_no_renewal(engine: Engine) {
    let (world, alice, _served, mut gateway) = vault(engine).await;
    connect(&world, &alice, &mut gateway).await;
    world.advance_s(60);
    renew(&world, &alice, &mut gateway).await.unwrap();
    world.advance_s(60);
    // From the same device, without saying that it renews: what the former session had is to be gone.
    let login = begin(&world).await;
    let (code, next) = (alice.code(world.now_ms()), newest(&world) + 1);
    let connects = world.control.connects();
    let (step, ()) = tokio::join!(connects.totp(&login, &code), gateway.follow_to(next));
    assert!(matches!(step, Ok(ConnectStep::Connected(_))), "{step:?}");
    assert!(peer(&gateway).renews.is_empty());
}
