//! Recovery codes: good once each, for their own user, where the location allows them.

use std::net::IpAddr;

use portcullis_control::{Level, LoginError, LoginId, LoginStep};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use tonic::{Code, Request};

use crate::fixture::{Engine, PASSWORD, World};
use crate::mfa::{factors, set};

crate::on_both!(
    a_code_opens_a_session_once_and_leaves_a_record,
    one_code_opens_one_of_two_racing_logins,
    new_codes_and_a_new_authenticator_void_the_old_ones,
    wrong_codes_count_and_are_no_other_users,
    where_codes_are_not_allowed_a_right_one_is_refused_and_not_spent,
);

async fn codes(world: &World, user: &str) -> Vec<String> {
    let request = v1::NameRequest { name: user.into() };
    let admin = world.control.admin();
    let codes = admin.new_recovery_codes(Request::new(request)).await;
    codes.unwrap().into_inner().codes
}

async fn left(world: &World, user: &str) -> u32 {
    let request = v1::NameRequest { name: user.into() };
    let admin = world.control.admin();
    let user = admin.get_user(Request::new(request)).await.unwrap();
    user.into_inner().recovery_codes
}

async fn begin(world: &World, from: IpAddr) -> LoginId {
    world.begin(from, "alice", PASSWORD).await.unwrap()
}

async fn recover(world: &World, from: IpAddr, code: &str) -> Result<LoginStep, LoginError> {
    let login = begin(world, from).await;
    world.control.logins().recovery(from, &login, code).await
}

async fn a_code_opens_a_session_once_and_leaves_a_record(engine: Engine) {
    let (mut world, _, from) = World::with_alice(engine).await;
    assert_eq!(left(&world, "alice").await, 0);
    let codes = codes(&world, "alice").await;
    assert_eq!((codes.len(), left(&world, "alice").await), (10, 10));
    let login = begin(&world, from).await;
    world.reopen().await;
    let typed = codes[3].to_lowercase().replace('-', " ");
    let done = world.control.logins().recovery(from, &login, &typed).await;
    assert_eq!(done.unwrap().session().unwrap().level, Level::Mfa);
    assert_eq!(left(&world, "alice").await, 9);
    let audit = world.audit().await;
    let record = audit
        .iter()
        .find(|record| record.action == "user.recovery-code");
    let record = record.unwrap();
    assert_eq!(record.actor, "user:alice");
    assert!(record.detail.contains("\"left\":9"), "{}", record.detail);
    assert!(!audit.iter().any(|record| record.detail.contains(&codes[3])));
    let again = recover(&world, from, &codes[3]).await;
    assert!(matches!(again, Err(LoginError::Refused)));
    recover(&world, from, &codes[4]).await.unwrap();
    let unknown = v1::NameRequest { name: "bob".into() };
    let unknown = world
        .control
        .admin()
        .new_recovery_codes(Request::new(unknown))
        .await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
}

async fn one_code_opens_one_of_two_racing_logins(engine: Engine) {
    let (world, _, from) = World::with_alice(engine).await;
    let code = codes(&world, "alice").await.remove(0);
    let mut racing = Vec::new();
    for _ in 0..4 {
        let login = begin(&world, from).await;
        let (logins, code) = (world.control.logins(), code.clone());
        racing.push(tokio::spawn(async move {
            logins.recovery(from, &login, &code).await
        }));
    }
    let mut done = 0;
    for login in racing {
        match login.await.unwrap() {
            Ok(step) => done += i32::from(step.session().is_some()),
            Err(LoginError::Refused) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((done, world.sessions().await.len()), (1, 1));
    assert_eq!(left(&world, "alice").await, 9);
}

async fn new_codes_and_a_new_authenticator_void_the_old_ones(engine: Engine) {
    let (world, _, from) = World::with_alice(engine).await;
    let old = codes(&world, "alice").await;
    let new = codes(&world, "alice").await;
    assert_eq!(left(&world, "alice").await, 10);
    let refused = recover(&world, from, &old[0]).await;
    assert!(matches!(refused, Err(LoginError::Refused)));
    recover(&world, from, &new[0]).await.unwrap();
    let request = v1::ResetUserRequest {
        name: "alice".into(),
        totp: true,
        ..Default::default()
    };
    let admin = world.control.admin();
    admin.reset_user(Request::new(request)).await.unwrap();
    assert_eq!(left(&world, "alice").await, 0);
    let refused = recover(&world, from, &new[1]).await;
    assert!(matches!(refused, Err(LoginError::Refused)));
}

async fn wrong_codes_count_and_are_no_other_users(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    world.user("bob").await;
    let theirs = codes(&world, "bob").await;
    codes(&world, "alice").await;
    let login = begin(&world, from).await;
    for wrong in [
        theirs[0].as_str(),
        "",
        "123456",
        "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA",
        &theirs[1],
    ] {
        let refused = world.control.logins().recovery(from, &login, wrong).await;
        assert!(matches!(refused, Err(LoginError::Refused)));
    }
    let code = alice.code(world.now_ms());
    let delayed = world.control.logins().totp(from, &login, &code).await;
    assert!(matches!(delayed, Err(LoginError::Delayed { .. })));
    assert_eq!(
        (left(&world, "bob").await, left(&world, "alice").await),
        (10, 10)
    );
}

async fn where_codes_are_not_allowed_a_right_one_is_refused_and_not_spent(engine: Engine) {
    let (world, _, from) = World::with_alice(engine).await;
    let codes = codes(&world, "alice").await;
    set(&world, factors(&["password", "totp"])).await.unwrap();
    let right = recover(&world, from, &codes[0]).await.unwrap_err();
    let wrong = recover(&world, from, "nonsense").await.unwrap_err();
    assert!(matches!(right, LoginError::Refused));
    assert_eq!(right.to_string(), wrong.to_string());
    assert_eq!(left(&world, "alice").await, 10);
}
