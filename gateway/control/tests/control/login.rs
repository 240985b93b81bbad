//! Logins: what opens a session, and how often one may guess.

use std::net::IpAddr;
use std::time::Duration;

use portcullis_control::{Level, LoginError, LoginId};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use tonic::Request;

use crate::fixture::{Engine, PASSWORD, World};

crate::on_both!(
    password_and_code_open_a_session,
    a_code_is_accepted_once,
    a_code_is_good_one_step_around_its_own,
    invariant_11_the_sixth_wrong_attempt_is_delayed_across_a_restart,
    parallel_guesses_are_counted_one_by_one,
    a_right_password_buys_no_more_guesses_of_the_code,
    only_the_devices_own_user_can_log_in_from_it,
    invariant_11_wrong_names_delay_the_device_across_a_restart,
    refused_logins_are_one_record_per_minute,
    unlocking_enabling_and_resetting_end_a_delay,
    a_clock_set_back_does_not_lengthen_a_delay,
    a_pending_login_survives_a_restart_and_ages,
    a_later_login_replaces_the_earlier_session,
    disabling_a_user_ends_sessions_and_pending_logins,
);

async fn password_and_code_open_a_session(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    assert!(
        world
            .control
            .logins()
            .current(from)
            .await
            .unwrap()
            .is_none()
    );
    let session = world.log_in(from, &alice).await.unwrap();
    assert_eq!(
        (session.user.as_str(), session.device.as_str()),
        ("alice", "laptop")
    );
    assert_eq!(session.level, Level::Mfa);
    assert_eq!(session.deadline_ms, world.now_ms() + 3_600_000);
    assert_eq!(session.idle_timeout_ms, 600_000);
    let current = world.control.logins().current(from).await.unwrap().unwrap();
    assert_eq!(current.id, session.id);
    let ended = world.control.logins().end(from).await.unwrap().unwrap();
    assert!(!ended.pending, "there is no gateway to wait for");
    assert!(
        world
            .control
            .logins()
            .current(from)
            .await
            .unwrap()
            .is_none()
    );
    assert!(world.control.logins().end(from).await.unwrap().is_none());
    let actions: Vec<_> = world.audit().await.into_iter().map(|r| r.action).collect();
    assert_eq!(
        actions[..3],
        ["session.logout", "session.grant", "login.begin"]
    );
}

async fn a_code_is_accepted_once(engine: Engine) {
    let (mut world, alice, from) = World::with_alice(engine).await;
    let code = alice.code(world.now_ms());
    let attempt = world.begin(from, "alice", PASSWORD).await.unwrap();
    world
        .control
        .logins()
        .totp(from, &attempt, &code)
        .await
        .unwrap();
    // The attempt is spent, and so is the code, in this step and the next, restart or not.
    let again = world.control.logins().totp(from, &attempt, &code).await;
    assert!(matches!(again, Err(LoginError::UnknownAttempt)));
    world.reopen().await;
    let attempt = world.begin(from, "alice", PASSWORD).await.unwrap();
    let replayed = world.control.logins().totp(from, &attempt, &code).await;
    assert!(matches!(replayed, Err(LoginError::Refused)));
    let older = alice.code(world.now_ms() - 30_000);
    let older = world.control.logins().totp(from, &attempt, &older).await;
    assert!(matches!(older, Err(LoginError::Refused)));
    world.advance_s(30);
    let next = alice.code(world.now_ms());
    world
        .control
        .logins()
        .totp(from, &attempt, &next)
        .await
        .unwrap();
}

/// By the codes of oathtool, at the first and at the last millisecond of a step.
async fn a_code_is_good_one_step_around_its_own(engine: Engine) {
    for within_ms in [0, 29_999] {
        for (steps, is_good) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
            let (world, alice, from) = World::with_alice(engine).await;
            let step_ms = world.now_ms();
            world
                .now
                .store(step_ms + within_ms, std::sync::atomic::Ordering::SeqCst);
            let attempt = world.begin(from, "alice", PASSWORD).await.unwrap();
            let code = alice.code(step_ms + steps * 30_000);
            let answer = world.control.logins().totp(from, &attempt, &code).await;
            match answer {
                Ok(_) => assert!(is_good, "{steps} steps away, {within_ms} ms into a step"),
                Err(LoginError::Refused) => assert!(!is_good, "{steps} steps away, {within_ms}"),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

async fn invariant_11_the_sixth_wrong_attempt_is_delayed_across_a_restart(engine: Engine) {
    let (mut world, alice, from) = World::with_alice(engine).await;
    for _ in 0..3 {
        let refused = world.begin(from, "alice", "wrong password").await;
        assert!(matches!(refused, Err(LoginError::Refused)));
    }
    let attempt = world.begin(from, "alice", PASSWORD).await.unwrap();
    for _ in 0..2 {
        let wrong = alice.wrong_code(world.now_ms());
        let refused = world.control.logins().totp(from, &attempt, &wrong).await;
        assert!(matches!(refused, Err(LoginError::Refused)));
    }
    world.reopen().await;
    // Delayed without being looked at: even what is right.
    let right = alice.code(world.now_ms());
    let delayed = world.control.logins().totp(from, &attempt, &right).await;
    let Err(LoginError::Delayed { retry_after }) = delayed else {
        panic!("{delayed:?}")
    };
    assert_eq!(retry_after, Duration::from_secs(30));
    let delayed = world.begin(from, "alice", PASSWORD).await;
    assert!(matches!(delayed, Err(LoginError::Delayed { .. })));
    world.advance_s(31);
    let wrong = world.begin(from, "alice", "wrong password").await;
    assert!(matches!(wrong, Err(LoginError::Refused)));
    let delayed = world.begin(from, "alice", PASSWORD).await;
    let Err(LoginError::Delayed { retry_after }) = delayed else {
        panic!("{delayed:?}")
    };
    assert_eq!(retry_after, Duration::from_secs(60));
    world.advance_s(61);
    world.log_in(from, &alice).await.unwrap();
    // A complete login forgets.
    for _ in 0..4 {
        let refused = world.begin(from, "alice", "wrong password").await;
        assert!(matches!(refused, Err(LoginError::Refused)));
    }
    world.advance_s(30);
    world.log_in(from, &alice).await.unwrap();
}

async fn parallel_guesses_are_counted_one_by_one(engine: Engine) {
    let (world, _, from) = World::with_alice(engine).await;
    let guesses = (0..20).map(|guess| {
        let logins = world.control.logins();
        tokio::spawn(async move {
            logins
                .begin(from, "alice", format!("wrong {guess}").into())
                .await
        })
    });
    let (mut refused, mut delayed) = (0, 0);
    for guess in guesses.collect::<Vec<_>>() {
        match guess.await.unwrap() {
            Err(LoginError::Refused) => refused += 1,
            Err(LoginError::Delayed { .. }) => delayed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((refused, delayed), (5, 15));
}

async fn a_right_password_buys_no_more_guesses_of_the_code(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    let wrong = alice.wrong_code(world.now_ms());
    for _ in 0..5 {
        let attempt = world.begin(from, "alice", PASSWORD).await.unwrap();
        let refused = world.control.logins().totp(from, &attempt, &wrong).await;
        assert!(matches!(refused, Err(LoginError::Refused)));
    }
    let delayed = world.begin(from, "alice", PASSWORD).await;
    assert!(matches!(delayed, Err(LoginError::Delayed { .. })));
}

async fn only_the_devices_own_user_can_log_in_from_it(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    world.user("mallory").await;
    let device = world
        .device("mallory-laptop", "mallory")
        .await
        .device
        .unwrap();
    let theirs: IpAddr = device.addresses[0].parse().unwrap();
    // Neither right nor wrong passwords from there do anything to Alice's account.
    for password in [PASSWORD, "a", "b", "c"] {
        let refused = world.begin(theirs, "alice", password).await;
        assert!(matches!(refused, Err(LoginError::Refused)));
    }
    assert!(matches!(
        world.begin(theirs, "nobody", PASSWORD).await,
        Err(LoginError::Refused)
    ));
    let unknown = world
        .begin("10.77.0.99".parse().unwrap(), "alice", PASSWORD)
        .await;
    assert!(matches!(unknown, Err(LoginError::UnknownDevice)));
    // A login begun on one device cannot be finished on another.
    let attempt = world.begin(from, "alice", PASSWORD).await.unwrap();
    let code = alice.code(world.now_ms());
    let stolen = world.control.logins().totp(theirs, &attempt, &code).await;
    assert!(matches!(stolen, Err(LoginError::UnknownAttempt)));
    let guessed = LoginId::from("guess".to_owned());
    let guessed = world.control.logins().totp(from, &guessed, &code).await;
    assert!(matches!(guessed, Err(LoginError::UnknownAttempt)));
    world
        .control
        .logins()
        .totp(from, &attempt, &code)
        .await
        .unwrap();
}

async fn invariant_11_wrong_names_delay_the_device_across_a_restart(engine: Engine) {
    let (mut world, alice, from) = World::with_alice(engine).await;
    for _ in 0..5 {
        let refused = world.begin(from, "bob", PASSWORD).await;
        assert!(matches!(refused, Err(LoginError::Refused)));
    }
    world.reopen().await;
    // For every name: the delay does not tell which one is right.
    for name in ["bob", "alice"] {
        let delayed = world.begin(from, name, PASSWORD).await;
        let Err(LoginError::Delayed { retry_after }) = delayed else {
            panic!("{delayed:?}")
        };
        assert_eq!(retry_after, Duration::from_secs(30));
    }
    world.advance_s(30);
    world.log_in(from, &alice).await.unwrap();
    world.advance_s(30);
    let refused = world.begin(from, "bob", PASSWORD).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "forgotten");
}

async fn refused_logins_are_one_record_per_minute(engine: Engine) {
    let (world, _, from) = World::with_alice(engine).await;
    let refusals = async || {
        let records = world.audit().await.into_iter();
        let refusals = records.filter(|record| record.action == "login.refuse");
        refusals.map(|record| record.detail).collect::<Vec<_>>()
    };
    for name in ["alice", "bob", "alice", "bob"] {
        let refused = world.begin(from, name, "wrong password").await;
        assert!(matches!(refused, Err(LoginError::Refused)));
    }
    assert_eq!(refusals().await.len(), 1);
    world.advance_s(60);
    let refused = world.begin(from, "alice", "wrong password").await;
    assert!(matches!(refused, Err(LoginError::Refused)));
    let refusals = refusals().await;
    assert_eq!(refusals.len(), 2);
    assert!(refusals[0].contains("\"refused\":4"), "{refusals:?}");
}

async fn unlocking_enabling_and_resetting_end_a_delay(engine: Engine) {
    let (world, mut alice, from) = World::with_alice(engine).await;
    let admin = world.control.admin();
    let lock = async || {
        for _ in 0..5 {
            let refused = world.begin(from, "alice", "wrong password").await;
            assert!(matches!(refused, Err(LoginError::Refused)));
        }
        let delayed = world.begin(from, "alice", PASSWORD).await;
        assert!(matches!(delayed, Err(LoginError::Delayed { .. })));
    };
    let name = || v1::NameRequest {
        name: "alice".into(),
    };
    lock().await;
    admin.unlock_user(Request::new(name())).await.unwrap();
    world.log_in(from, &alice).await.unwrap();
    lock().await;
    for disabled in [true, false] {
        let request = v1::SetUserDisabledRequest {
            name: "alice".into(),
            disabled,
        };
        let set = admin.set_user_disabled(Request::new(request));
        set.await.unwrap();
    }
    world.advance_s(30);
    // The clock went on by as much as the delay was: the count has to be gone, too.
    world.log_in(from, &alice).await.unwrap();
    lock().await;
    let request = v1::ResetUserRequest {
        name: "alice".into(),
        totp: true,
        ..Default::default()
    };
    let reset = admin.reset_user(Request::new(request)).await.unwrap();
    alice.totp = reset.into_inner().totp_secret;
    world.log_in(from, &alice).await.unwrap();
}

async fn a_clock_set_back_does_not_lengthen_a_delay(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    world.advance_s(365 * 86_400);
    for _ in 0..5 {
        let refused = world.begin(from, "alice", "wrong password").await;
        assert!(matches!(refused, Err(LoginError::Refused)));
    }
    world.advance_s(-365 * 86_400);
    let delayed = world.begin(from, "alice", PASSWORD).await;
    let Err(LoginError::Delayed { retry_after }) = delayed else {
        panic!("{delayed:?}")
    };
    assert_eq!(retry_after, Duration::from_secs(15 * 60));
    world.advance_s(15 * 60);
    world.log_in(from, &alice).await.unwrap();
}

async fn a_pending_login_survives_a_restart_and_ages(engine: Engine) {
    let (mut world, alice, from) = World::with_alice(engine).await;
    let attempt = world.begin(from, "alice", PASSWORD).await.unwrap();
    let aged = world.begin(from, "alice", PASSWORD).await.unwrap();
    world.reopen().await;
    let code = alice.code(world.now_ms());
    let session = world
        .control
        .logins()
        .totp(from, &attempt, &code)
        .await
        .unwrap()
        .session()
        .unwrap();
    world.reopen().await;
    let current = world.control.logins().current(from).await.unwrap().unwrap();
    assert_eq!(current.id, session.id);
    world.advance_s(301);
    let code = alice.code(world.now_ms());
    let late = world.control.logins().totp(from, &aged, &code).await;
    assert!(matches!(late, Err(LoginError::UnknownAttempt)));
}

async fn a_later_login_replaces_the_earlier_session(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    let first = world.log_in(from, &alice).await.unwrap();
    world.advance_s(60);
    let second = world.log_in(from, &alice).await.unwrap();
    let sessions = world.sessions().await;
    let state = |id: &str| sessions.iter().find(|s| s.id == id).unwrap().state.clone();
    assert_eq!(state(&first.id), "replaced");
    assert_eq!(state(&second.id), "live");
}

async fn disabling_a_user_ends_sessions_and_pending_logins(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    world.log_in(from, &alice).await.unwrap();
    world.advance_s(30);
    let pending = world.begin(from, "alice", PASSWORD).await.unwrap();
    let admin = world.control.admin();
    let disable = |disabled| v1::SetUserDisabledRequest {
        name: "alice".into(),
        disabled,
    };
    let status = admin
        .set_user_disabled(Request::new(disable(true)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(status.sessions, 1);
    assert!(
        world
            .control
            .logins()
            .current(from)
            .await
            .unwrap()
            .is_none()
    );
    let code = alice.code(world.now_ms());
    let finished = world.control.logins().totp(from, &pending, &code).await;
    assert!(matches!(finished, Err(LoginError::UnknownAttempt)));
    assert!(matches!(
        world.begin(from, "alice", PASSWORD).await,
        Err(LoginError::Refused)
    ));
    let request = v1::AddSessionRequest {
        device: "laptop".into(),
        ..Default::default()
    };
    assert!(admin.add_session(Request::new(request)).await.is_err());
    admin
        .set_user_disabled(Request::new(disable(false)))
        .await
        .unwrap();
    world.log_in(from, &alice).await.unwrap();
}
