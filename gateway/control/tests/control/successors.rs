//! A session takes the place of an older one when a gateway holds it, and not before.

use std::time::Duration;

use portcullis_control::{ConnectStep, LoginError, Secret};
use portcullis_proto::v1::revoke_sessions_request::Target;
use sqlx::{AnyConnection, Connection as _};

use crate::connect::{LAPTOP, begin, connect, public, vault};
use crate::fixture::{Account, Engine, World};
use crate::gateway::Gateway;
use crate::session_key::newest;

crate::on_both!(
    a_session_goes_on_when_nobody_holds_its_successor,
    of_three_in_a_row_the_last_that_was_held_goes_on,
    what_is_revoked_meanwhile_is_not_put_back,
    a_change_of_the_location_meanwhile_puts_nothing_back,
    what_a_process_leaves_is_undone_by_the_next,
);

fn key(gateway: &Gateway) -> Option<Vec<u8>> {
    let peer = gateway.state.peers.get(public(LAPTOP).as_slice())?;
    Some(peer.preshared_key.clone())
}

/// A login to its end, of which no gateway says anything.
async fn unheard(world: &World, alice: &Account) -> Result<ConnectStep, LoginError> {
    world.advance_s(30);
    let login = begin(world).await;
    let code = alice.code(world.now_ms());
    world.control.connects().totp(&login, &code).await
}

async fn state(world: &World, token: &Secret) -> String {
    let session = world.control.connects().session(token).await.unwrap();
    session.unwrap().state
}

async fn live(world: &World) -> Vec<String> {
    let sessions = world.sessions().await.into_iter();
    let live = sessions.filter(|session| session.state == "live");
    live.map(|session| session.id).collect()
}

/// How many keys the store holds.
async fn keys(world: &World) -> i64 {
    let url = &world.config.database;
    let mut connection = AnyConnection::connect(url).await.unwrap();
    let query = "SELECT COUNT(*) FROM sessions WHERE preshared_key IS NOT NULL";
    let keys = sqlx::query_scalar(query).fetch_one(&mut connection).await;
    connection.close().await.unwrap();
    keys.unwrap()
}

fn is_no_gateway(result: &Result<ConnectStep, LoginError>) -> bool {
    matches!(result, Err(LoginError::NoGateway))
}

async fn a_session_goes_on_when_nobody_holds_its_successor(engine: Engine) {
    let (world, alice, _served, mut gateway) = vault(engine).await;
    let first = connect(&world, &alice, &mut gateway).await;
    let before = key(&gateway).unwrap();
    let while_waiting = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        (live(&world).await, state(&world, &first.token).await)
    };
    let (refused, (meanwhile, told)) = tokio::join!(unheard(&world, &alice), while_waiting);
    assert!(is_no_gateway(&refused), "{refused:?}");
    assert_eq!(meanwhile.len(), 1);
    assert_ne!(meanwhile[0], first.session.id, "the newer one, until then");
    assert_eq!(told, "live", "its device does not give up meanwhile");

    gateway.follow_to(newest(&world)).await;
    assert_eq!(
        key(&gateway).unwrap(),
        before,
        "the key that the device has"
    );
    assert_eq!(live(&world).await, [first.session.id.as_str()]);
    assert_eq!(state(&world, &first.token).await, "live");

    // One that is held takes the place, and the former key is gone.
    world.advance_s(30);
    let second = connect(&world, &alice, &mut gateway).await;
    assert_eq!(state(&world, &first.token).await, "replaced");
    assert_eq!(live(&world).await, [second.session.id.as_str()]);
    assert_eq!(keys(&world).await, 1);
}

async fn of_three_in_a_row_the_last_that_was_held_goes_on(engine: Engine) {
    let (world, alice, _served, mut gateway) = vault(engine).await;
    let first = connect(&world, &alice, &mut gateway).await;
    let later = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        unheard(&world, &alice).await
    };
    let (second, third) = tokio::join!(unheard(&world, &alice), later);
    assert!(is_no_gateway(&second) && is_no_gateway(&third));
    assert_eq!(live(&world).await, [first.session.id.as_str()]);
    assert_eq!(keys(&world).await, 1);
}

async fn what_is_revoked_meanwhile_is_not_put_back(engine: Engine) {
    let (world, alice, _served, mut gateway) = vault(engine).await;
    for target in [None, Some(Target::User("alice".into()))] {
        world.advance_s(30);
        let first = connect(&world, &alice, &mut gateway).await;
        let target = target.unwrap_or_else(|| Target::Session(first.session.id.clone()));
        let revoking = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            world.revoke(target, 0).await
        };
        let (refused, _) = tokio::join!(unheard(&world, &alice), revoking);
        assert!(is_no_gateway(&refused), "{refused:?}");
        assert_eq!(live(&world).await, Vec::<String>::new());
        assert_ne!(state(&world, &first.token).await, "live");
        assert_eq!(keys(&world).await, 0);
        gateway.follow_to(newest(&world)).await;
        assert_eq!(key(&gateway), None);
    }
}

async fn a_change_of_the_location_meanwhile_puts_nothing_back(engine: Engine) {
    use portcullis_proto::v1::{SetLocationRequest, admin_server::Admin as _};
    let (world, alice, _served, mut gateway) = vault(engine).await;
    connect(&world, &alice, &mut gateway).await;
    let changing = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let request = SetLocationRequest {
            name: "vault".into(),
            session_lifetime_ms: Some(60_000),
            ..Default::default()
        };
        let admin = world.control.admin();
        admin
            .set_location(tonic::Request::new(request))
            .await
            .unwrap();
    };
    let (refused, ()) = tokio::join!(unheard(&world, &alice), changing);
    assert!(is_no_gateway(&refused), "{refused:?}");
    assert_eq!(live(&world).await, Vec::<String>::new());
    assert_eq!(keys(&world).await, 0);
}

async fn what_a_process_leaves_is_undone_by_the_next(engine: Engine) {
    let (mut world, alice, served, mut gateway) = vault(engine).await;
    let first = connect(&world, &alice, &mut gateway).await;
    {
        // It ends while it waits.
        let waiting = unheard(&world, &alice);
        let gone = tokio::time::timeout(Duration::from_secs(1), waiting).await;
        assert!(gone.is_err());
    }
    gateway.disconnect();
    served.stop().await;
    world.reopen().await;
    assert_ne!(live(&world).await, [first.session.id.as_str()]);
    let control = world.control.clone();
    let sweeping = tokio::spawn(async move { control.run_expiry(std::future::pending()).await });
    world.advance_s(16);
    while live(&world).await != [first.session.id.as_str()] {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    sweeping.abort();
    assert_eq!(state(&world, &first.token).await, "live");
}
