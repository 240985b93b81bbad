//! Which factors a login takes, one by one: several logins at once, and locations that do not allow
//! everything.

use portcullis_control::{Level, LoginError, LoginStep};

use crate::fixture::{Engine, PASSWORD, World};
use crate::mfa::{factors, require, set};

crate::on_both!(
    two_logins_at_once_do_not_disturb_each_other,
    one_code_opens_one_of_two_racing_logins,
    a_factor_that_is_not_allowed_is_refused_like_a_wrong_one,
    a_password_that_is_not_allowed_is_refused_like_a_wrong_one,
    a_changed_policy_ends_logins_in_progress,
    where_a_passkey_is_required_the_password_says_so_and_no_code_helps,
);

async fn two_logins_at_once_do_not_disturb_each_other(engine: Engine) {
    let (mut world, alice, from) = World::with_alice(engine).await;
    let first = world.begin(from, "alice", PASSWORD).await.unwrap();
    let second = world.begin(from, "alice", PASSWORD).await.unwrap();
    let wrong = alice.wrong_code(world.now_ms());
    let refused = world.control.logins().totp(from, &first, &wrong).await;
    assert!(matches!(refused, Err(LoginError::Refused)));
    world.reopen().await;
    for login in [&second, &first] {
        let logins = world.control.logins();
        let wants = logins.wants(from, login).await.unwrap();
        let LoginStep::Wants { factors, .. } = wants else {
            panic!("{wants:?}")
        };
        assert_eq!(factors.names(), ["totp", "recovery-code", "passkey"]);
        let code = alice.code(world.now_ms());
        let done = logins.totp(from, login, &code).await.unwrap();
        assert_eq!(done.session().unwrap().level, Level::Mfa);
        world.advance_s(30);
    }
}

async fn one_code_opens_one_of_two_racing_logins(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    let mut racing = Vec::new();
    let code = alice.code(world.now_ms());
    // Two processes on one store.
    let other = crate::fixture::open(&world.config, &world.now).await;
    for number in 0..8 {
        let login = world.begin(from, "alice", PASSWORD).await.unwrap();
        let control = if number % 2 == 0 {
            &world.control
        } else {
            &other
        };
        let (logins, code) = (control.logins(), code.clone());
        racing.push(async move { logins.totp(from, &login, &code).await });
    }
    let racing: Vec<_> = racing.into_iter().map(tokio::spawn).collect();
    let mut done = 0;
    for login in racing {
        match login.await.unwrap() {
            Ok(step) => done += i32::from(step.session().is_some()),
            Err(LoginError::Refused | LoginError::Delayed { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(done, 1);
    let live = world.sessions().await;
    assert_eq!(live.iter().filter(|s| s.state == "live").count(), 1);
    assert_eq!(live.len(), 1, "none was granted and replaced");
}

async fn a_factor_that_is_not_allowed_is_refused_like_a_wrong_one(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    set(&world, factors(&["password", "recovery-code"]))
        .await
        .unwrap();
    let login = world.begin(from, "alice", PASSWORD).await.unwrap();
    let logins = world.control.logins();
    let wrong = alice.wrong_code(world.now_ms());
    let wrong = logins.totp(from, &login, &wrong).await.unwrap_err();
    let right = alice.code(world.now_ms());
    let right = logins.totp(from, &login, &right).await.unwrap_err();
    assert!(matches!(right, LoginError::Refused));
    assert_eq!(wrong.to_string(), right.to_string());
    // It is counted as one, and has spent nothing.
    for _ in 0..3 {
        let code = alice.code(world.now_ms());
        let refused = logins.totp(from, &login, &code).await;
        assert!(matches!(refused, Err(LoginError::Refused)));
    }
    let delayed = world.begin(from, "alice", PASSWORD).await;
    assert!(matches!(delayed, Err(LoginError::Delayed { .. })));
    set(&world, factors(&["password", "totp"])).await.unwrap();
    world.advance_s(30);
    world.log_in(from, &alice).await.unwrap();
}

async fn a_password_that_is_not_allowed_is_refused_like_a_wrong_one(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    set(&world, factors(&["passkey"])).await.unwrap();
    for password in [PASSWORD, "wrong password", PASSWORD, PASSWORD, PASSWORD] {
        let refused = world.begin(from, "alice", password).await;
        assert!(matches!(refused, Err(LoginError::Refused)));
    }
    let delayed = world.begin(from, "alice", PASSWORD).await;
    assert!(matches!(delayed, Err(LoginError::Delayed { .. })));
    set(&world, factors(&["password", "totp"])).await.unwrap();
    world.advance_s(30);
    world.log_in(from, &alice).await.unwrap();
}

async fn a_changed_policy_ends_logins_in_progress(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    for change in [
        require(Level::PhishingResistant),
        require(Level::Mfa),
        factors(&["password", "totp"]),
    ] {
        let pending = world.begin(from, "alice", PASSWORD).await.unwrap();
        set(&world, change).await.unwrap();
        let code = alice.code(world.now_ms());
        let over = world.control.logins().totp(from, &pending, &code).await;
        assert!(matches!(over, Err(LoginError::UnknownAttempt)));
    }
    world.log_in(from, &alice).await.unwrap();
}

async fn where_a_passkey_is_required_the_password_says_so_and_no_code_helps(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    set(&world, require(Level::PhishingResistant))
        .await
        .unwrap();
    let logins = world.control.logins();
    let step = logins.begin(from, "alice", PASSWORD.into()).await.unwrap();
    let LoginStep::Wants {
        attempt, factors, ..
    } = step
    else {
        panic!("{step:?}")
    };
    assert_eq!(factors.names(), ["passkey"]);
    let code = alice.code(world.now_ms());
    let refused = logins.totp(from, &attempt, &code).await;
    assert!(matches!(refused, Err(LoginError::Refused)));
    assert!(logins.current(from).await.unwrap().is_none());
}
