//! Logging in from outside of the tunnel: what strangers learn, what they can cost others, and what is granted.

use std::net::IpAddr;

use portcullis_control::{
    Browser, Choice, Factor, Level, LoginError, Outside, OutsideStep, Secret, Stranger,
};
use portcullis_proto::v1::{self, admin_server::Admin as _, revoke_sessions_request::Target};
use tonic::Request;

use crate::fixture::{Account, Engine, PASSWORD, World, key};
use crate::session_key;

crate::on_both!(
    two_factors_and_then_the_device,
    parallel_guesses_are_counted_one_by_one,
    a_name_that_no_database_holds_is_as_wrong_as_any,
    a_delay_and_a_refusal_tell_nothing_of_accounts,
    guesses_outside_leave_the_owner_inside_alone,
    guesses_of_one_network_do_not_delay_another,
    one_network_tries_few_names,
    a_right_password_buys_few_codes,
    limits_and_logins_survive_a_restart,
    only_devices_whose_location_is_satisfied_are_offered,
    devices_of_session_key_locations_are_not_offered,
    nobody_elses_device_and_none_before_both_factors,
    a_browser_may_do_what_its_session_may,
    what_voids_factors_voids_logins_half_way,
    a_code_counts_once_inside_and_outside,
);

const HOME: Stranger = at(7);

const fn at(host: u8) -> Stranger {
    Stranger {
        network: IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, host)),
    }
}

async fn begin(
    world: &World,
    from: Stranger,
    name: &str,
    password: &str,
) -> Result<Browser, LoginError> {
    let outside = world.control.outside();
    let (browser, step) = outside.begin(from, name, &Secret::from(password)).await?;
    assert!(matches!(step, OutsideStep::Wants { .. }), "{step:?}");
    Ok(browser)
}

async fn both(world: &World, alice: &Account) -> (Outside, Browser, Vec<Choice>) {
    let outside = world.control.outside();
    let browser = begin(world, HOME, &alice.name, PASSWORD).await.unwrap();
    let code = alice.code(world.now_ms());
    let step = outside.totp(HOME, &browser, &code).await.unwrap();
    let OutsideStep::Choose(choices) = step else {
        panic!("{step:?}");
    };
    (outside, browser, choices)
}

fn retry_after_s(result: Result<Browser, LoginError>) -> u64 {
    match result {
        Err(LoginError::Delayed { retry_after }) => retry_after.as_secs(),
        other => panic!("{other:?}"),
    }
}

async fn a_name_that_no_database_holds_is_as_wrong_as_any(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    let refused = begin(&world, HOME, "al\0ice", PASSWORD).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
}

async fn parallel_guesses_are_counted_one_by_one(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    let guesses = (0..20).map(|guess| {
        let outside = world.control.outside();
        tokio::spawn(async move {
            let password = Secret::from(format!("wrong {guess}"));
            outside.begin(HOME, "alice", &password).await
        })
    });
    let mut refused = 0;
    for guess in guesses.collect::<Vec<_>>() {
        match guess.await.unwrap() {
            Err(LoginError::Refused) => refused += 1,
            Err(LoginError::Delayed { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    // Those that are free, and the one whose price is the first delay.
    assert!((1..=6).contains(&refused), "{refused} were evaluated");
}

pub(crate) async fn set_factors(world: &World, location: &str, factors: &[&str], require: Level) {
    let request = v1::SetLocationRequest {
        name: location.into(),
        factors: Some(v1::FactorNames {
            names: factors.iter().map(|name| (*name).into()).collect(),
        }),
        require: Some(require.into()),
        ..Default::default()
    };
    let admin = world.control.admin();
    admin.set_location(Request::new(request)).await.unwrap();
}

async fn two_factors_and_then_the_device(engine: Engine) {
    let (world, alice, laptop) = World::with_alice(engine).await;
    world.device("phone", "alice").await;
    let (outside, browser, choices) = both(&world, &alice).await;
    let names: Vec<&str> = choices
        .iter()
        .map(|choice| choice.device.as_str())
        .collect();
    assert_eq!(names, ["laptop", "phone"]);
    assert_eq!(choices[0].location, "office");
    let logins = world.control.logins();
    assert!(logins.current(laptop).await.unwrap().is_none());

    let opened = outside
        .choose(HOME, &browser, &choices[0].id)
        .await
        .unwrap();
    let session = logins.current(laptop).await.unwrap().expect("a session");
    assert_eq!(session.id, opened.session.id);
    assert_eq!(
        (session.device.as_str(), session.level),
        ("laptop", Level::Mfa)
    );
    assert_eq!(session.deadline_ms, world.now_ms() + 3_600_000);
    assert_eq!(
        world.sessions().await.len(),
        1,
        "of the chosen device alone"
    );
    // The login is spent, and its cookie is not the session's.
    let again = outside.choose(HOME, &browser, &choices[1].id).await;
    assert!(
        matches!(again, Err(LoginError::UnknownAttempt)),
        "{again:?}"
    );
    assert!(outside.session(&browser).await.unwrap().is_none());

    let audit = world.audit().await;
    let record = |action: &str| audit.iter().find(|record| record.action == action).unwrap();
    assert_eq!(record("outside.begin").subject, "user:alice");
    assert!(record("outside.begin").detail.contains("198.51.100.7"));
    assert_eq!(record("outside.grant").subject, "device:laptop");
    assert!(record("outside.grant").detail.contains(&session.id));
}

/// Unknown, disabled, without a device, without a way that could lead anywhere: one answer, and one delay.
async fn a_delay_and_a_refusal_tell_nothing_of_accounts(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    world.user("idle").await;
    world.user("gone").await;
    world.device("old", "gone").await;
    let admin = world.control.admin();
    let request = v1::SetUserDisabledRequest {
        name: "gone".into(),
        disabled: true,
    };
    admin
        .set_user_disabled(Request::new(request))
        .await
        .unwrap();
    let request = Request::new(v1::NameRequest {
        name: "alice".into(),
    });
    let id = admin.get_user(request).await.unwrap().into_inner().id;
    let mut texts = Vec::new();
    for (host, name, password) in [
        (1, "alice", "wrong"),
        (2, "nobody", "wrong"),
        (3, "nobody", PASSWORD),
        (4, "gone", PASSWORD),
        (5, "idle", PASSWORD),
        (6, id.as_str(), PASSWORD),
        (7, "", PASSWORD),
        (8, "alice\n198.51.100.9", PASSWORD),
    ] {
        for round in 0..5 {
            let refused = begin(&world, at(host), name, password).await.unwrap_err();
            assert!(
                matches!(refused, LoginError::Refused),
                "{name} {round}: {refused:?}"
            );
            texts.push(refused.to_string());
        }
        let delay_s = retry_after_s(begin(&world, at(host), name, password).await);
        assert_eq!(delay_s, 30, "{name:?}");
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    // Nor did what was typed as a name count against the account from elsewhere.
    begin(&world, at(9), "alice", PASSWORD).await.unwrap();
}

/// NIST SP 800-63B-4, 3.2.2: nothing that a stranger does may keep the owner out.
async fn guesses_outside_leave_the_owner_inside_alone(engine: Engine) {
    let (world, alice, laptop) = World::with_alice(engine).await;
    for round in 0..80 {
        let _ = begin(&world, at(round), "alice", "wrong").await;
    }
    let all = retry_after_s(begin(&world, at(200), "alice", PASSWORD).await);
    assert!(all <= 900, "{all}");
    // As if nothing had been, password and code.
    world.log_in(laptop, &alice).await.unwrap();
    let request = Request::new(v1::NameRequest {
        name: "alice".into(),
    });
    // An administrator forgets what was counted by the name.
    world.control.admin().unlock_user(request).await.unwrap();
    begin(&world, at(200), "alice", PASSWORD).await.unwrap();
}

async fn guesses_of_one_network_do_not_delay_another(engine: Engine) {
    let (world, alice, _) = World::with_alice(engine).await;
    let mut longest_s = 0;
    for _ in 0..30 {
        match begin(&world, at(66), "alice", "wrong").await.unwrap_err() {
            LoginError::Delayed { retry_after } => {
                longest_s = longest_s.max(retry_after.as_secs());
                // Not evaluated, and not counted either, however often it is tried.
                world.advance_s(i64::try_from(retry_after.as_secs()).unwrap() + 1);
            }
            error => assert!(matches!(error, LoginError::Refused), "{error:?}"),
        }
    }
    assert_eq!(longest_s, 900, "it grows, and not without end");
    let (outside, browser, choices) = both(&world, &alice).await;
    outside
        .choose(HOME, &browser, &choices[0].id)
        .await
        .unwrap();
}

async fn one_network_tries_few_names(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    for index in 0..20 {
        let refused = begin(&world, at(66), &format!("user-{index}"), "Spring2026").await;
        assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    }
    let delayed = begin(&world, at(66), "alice", PASSWORD).await;
    assert_eq!(retry_after_s(delayed), 30);
    // An account of one's own buys no more of them.
    world.advance_s(31);
    let browser = begin(&world, at(66), "alice", PASSWORD).await.unwrap();
    assert!(matches!(
        world.control.outside().step(&browser).await,
        Ok(OutsideStep::Wants { .. })
    ));
    let refused = begin(&world, at(66), "user-21", "Spring2026").await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    assert!(retry_after_s(begin(&world, at(66), "user-22", "Spring2026").await) >= 60);
    begin(&world, HOME, "alice", PASSWORD).await.unwrap();
}

/// Neither beginning again nor another network buys more guesses at codes.
async fn a_right_password_buys_few_codes(engine: Engine) {
    let (world, alice, laptop) = World::with_alice(engine).await;
    let outside = world.control.outside();
    for round in 0..5 {
        let browser = begin(&world, at(round), "alice", PASSWORD).await.unwrap();
        let code = alice.wrong_code(world.now_ms());
        let refused = outside.totp(at(round), &browser, &code).await;
        assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    }
    let browser = begin(&world, at(99), "alice", PASSWORD).await.unwrap();
    let code = alice.code(world.now_ms());
    let delayed = outside.totp(at(99), &browser, &code).await;
    assert!(
        matches!(delayed, Err(LoginError::Delayed { .. })),
        "{delayed:?}"
    );
    let recovery = outside.recovery(at(99), &browser, "ABCD").await;
    assert!(
        matches!(recovery, Err(LoginError::Delayed { .. })),
        "{recovery:?}"
    );
    // The owner is told, and gets in through the tunnel.
    let audit = world.audit().await;
    let told = audit
        .iter()
        .filter(|record| record.action == "outside.refuse");
    assert_eq!(told.count(), 5);
    world.log_in(laptop, &alice).await.unwrap();
    // Right ones forget the wrong ones, once the login is complete.
    world.advance_s(60);
    let (outside, browser, choices) = both(&world, &alice).await;
    outside
        .choose(HOME, &browser, &choices[0].id)
        .await
        .unwrap();
    world.advance_s(60);
    let browser = begin(&world, HOME, "alice", PASSWORD).await.unwrap();
    let code = alice.wrong_code(world.now_ms());
    let refused = outside.totp(HOME, &browser, &code).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    let code = alice.code(world.now_ms());
    outside.totp(HOME, &browser, &code).await.unwrap();
}

async fn limits_and_logins_survive_a_restart(engine: Engine) {
    let (mut world, alice, _) = World::with_alice(engine).await;
    let browser = begin(&world, HOME, "alice", PASSWORD).await.unwrap();
    for _ in 0..5 {
        let _ = begin(&world, at(66), "alice", "wrong").await;
    }
    world.reopen().await;
    assert_eq!(
        retry_after_s(begin(&world, at(66), "alice", PASSWORD).await),
        30
    );
    let outside = world.control.outside();
    let code = alice.code(world.now_ms());
    outside.totp(HOME, &browser, &code).await.unwrap();
    world.reopen().await;
    let outside = world.control.outside();
    let OutsideStep::Choose(choices) = outside.step(&browser).await.unwrap() else {
        panic!("it was there");
    };
    let opened = outside
        .choose(HOME, &browser, &choices[0].id)
        .await
        .unwrap();
    world.reopen().await;
    let outside = world.control.outside();
    assert!(outside.session(&opened.browser).await.unwrap().is_some());
    // Five minutes, from the password on.
    let browser = begin(&world, HOME, "alice", PASSWORD).await.unwrap();
    world.advance_s(301);
    let late = outside.step(&browser).await;
    assert!(matches!(late, Err(LoginError::UnknownAttempt)), "{late:?}");
}

async fn only_devices_whose_location_is_satisfied_are_offered(engine: Engine) {
    let (world, alice, _) = World::with_alice(engine).await;
    world.location("vault", &["10.78.0.0/24"]).await.unwrap();
    let key = key("safe");
    let device = world.try_device("safe", "alice", "vault", &key);
    let safe = device.await.unwrap().device.unwrap();
    let names = async || {
        world.advance_s(30);
        let (outside, browser, choices) = both(&world, &alice).await;
        let refused = outside.choose(HOME, &browser, &safe.id).await;
        let names: Vec<String> = choices.into_iter().map(|choice| choice.device).collect();
        assert_eq!(
            refused.is_ok(),
            names.contains(&"safe".to_owned()),
            "{refused:?}"
        );
        names
    };
    assert_eq!(names().await, ["laptop", "safe"]);
    set_factors(&world, "vault", &["passkey"], Level::PhishingResistant).await;
    assert_eq!(names().await, ["laptop"]);
    let all = ["password", "totp", "passkey"];
    set_factors(&world, "vault", &all, Level::PhishingResistant).await;
    assert_eq!(names().await, ["laptop"]);
    // What was proven has to be what is allowed there.
    set_factors(&world, "vault", &["password", "recovery-code"], Level::Mfa).await;
    assert_eq!(names().await, ["laptop"]);
    set_factors(&world, "vault", &["totp", "passkey"], Level::Mfa).await;
    assert_eq!(names().await, ["laptop"]);
    // A policy that changes while the user chooses holds at once.
    set_factors(&world, "vault", &["password", "totp"], Level::Mfa).await;
    world.advance_s(30);
    let (outside, browser, choices) = both(&world, &alice).await;
    assert_eq!(choices.len(), 2);
    set_factors(&world, "vault", &["passkey"], Level::PhishingResistant).await;
    let refused = outside.choose(HOME, &browser, &safe.id).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");

    // Where no location takes a password and a code, the right password is as good as a wrong one.
    set_factors(&world, "office", &["passkey"], Level::PhishingResistant).await;
    let refused = begin(&world, HOME, "alice", PASSWORD).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    // A code that no location wants is none.
    set_factors(&world, "office", &["password", "recovery-code"], Level::Mfa).await;
    let outside = world.control.outside();
    let (browser, step) = outside
        .begin(HOME, "alice", &Secret::from(PASSWORD))
        .await
        .unwrap();
    let OutsideStep::Wants { factors, .. } = step else {
        panic!("{step:?}");
    };
    assert!(factors.contains(Factor::RecoveryCode) && !factors.contains(Factor::Totp));
    world.advance_s(30);
    let code = alice.code(world.now_ms());
    let refused = outside.totp(HOME, &browser, &code).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    // And was not spent.
    set_factors(&world, "office", &["password", "totp"], Level::Mfa).await;
    outside.totp(HOME, &browser, &code).await.unwrap();
}

/// Their sessions begin with a key of their own, which nothing here hands out.
async fn devices_of_session_key_locations_are_not_offered(engine: Engine) {
    let (world, alice, _) = World::with_alice(engine).await;
    session_key::location(&world, "session-key").await.unwrap();
    let request = v1::AddDeviceRequest {
        name: "safe".into(),
        user: "alice".into(),
        location: "vault".into(),
        public_key: key("safe").to_vec(),
        ..Default::default()
    };
    let admin = world.control.admin();
    let added = admin.add_device(Request::new(request)).await.unwrap();
    let safe = added.into_inner().device.unwrap();
    let (outside, browser, choices) = both(&world, &alice).await;
    let names: Vec<String> = choices.into_iter().map(|choice| choice.device).collect();
    assert_eq!(names, ["laptop"]);
    let refused = outside.choose(HOME, &browser, &safe.id).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    assert!(world.sessions().await.is_empty());
}

async fn nobody_elses_device_and_none_before_both_factors(engine: Engine) {
    let (world, alice, _) = World::with_alice(engine).await;
    world.user("bob").await;
    let bobs = world.device("bobs", "bob").await.device.unwrap();
    let outside = world.control.outside();
    let (_, _, choices) = both(&world, &alice).await;
    world.advance_s(30);
    let browser = begin(&world, HOME, "alice", PASSWORD).await.unwrap();
    let early = outside.choose(HOME, &browser, &choices[0].id).await;
    assert!(
        matches!(early, Err(LoginError::UnknownAttempt)),
        "{early:?}"
    );
    let code = alice.code(world.now_ms());
    outside.totp(HOME, &browser, &code).await.unwrap();
    let another = outside.choose(HOME, &browser, &bobs.id).await.unwrap_err();
    let none = outside.choose(HOME, &browser, "none").await.unwrap_err();
    assert_eq!(another.to_string(), none.to_string());
    assert!(matches!(another, LoginError::Refused), "{another:?}");
    assert!(world.sessions().await.is_empty());
    // Nor is a login another browser's.
    let other = Browser::new().unwrap();
    for refused in [
        outside.step(&other).await.map(drop),
        outside.totp(HOME, &other, &code).await.map(drop),
        outside.choose(HOME, &other, &choices[0].id).await.map(drop),
    ] {
        assert!(
            matches!(refused, Err(LoginError::UnknownAttempt)),
            "{refused:?}"
        );
    }
    outside
        .choose(HOME, &browser, &choices[0].id)
        .await
        .unwrap();
}

async fn a_browser_may_do_what_its_session_may(engine: Engine) {
    let (world, alice, laptop) = World::with_alice(engine).await;
    let open = async || {
        world.advance_s(60);
        let (outside, browser, choices) = both(&world, &alice).await;
        let opened = outside
            .choose(HOME, &browser, &choices[0].id)
            .await
            .unwrap();
        assert!(outside.session(&opened.browser).await.unwrap().is_some());
        (outside, opened)
    };
    // Ended by the browser, and by nobody who is not it.
    let (outside, opened) = open().await;
    let other = Browser::new().unwrap();
    assert!(outside.end(&other).await.unwrap().is_none());
    assert!(outside.end(&opened.browser).await.unwrap().is_some());
    assert!(outside.end(&opened.browser).await.unwrap().is_none());
    assert!(
        world
            .control
            .logins()
            .current(laptop)
            .await
            .unwrap()
            .is_none()
    );
    // Revoked, replaced, over: the browser's right goes with it.
    let (outside, opened) = open().await;
    world.revoke(Target::User("alice".into()), 0).await;
    assert!(outside.session(&opened.browser).await.unwrap().is_none());
    let (outside, opened) = open().await;
    world.advance_s(60);
    world.log_in(laptop, &alice).await.unwrap();
    assert!(outside.session(&opened.browser).await.unwrap().is_none());
    assert!(outside.end(&opened.browser).await.unwrap().is_none());
    assert!(
        world
            .control
            .logins()
            .current(laptop)
            .await
            .unwrap()
            .is_some()
    );
    let (outside, opened) = open().await;
    world.advance_s(3600);
    assert!(outside.session(&opened.browser).await.unwrap().is_none());
}

async fn what_voids_factors_voids_logins_half_way(engine: Engine) {
    let (world, alice, _) = World::with_alice(engine).await;
    let admin = world.control.admin();
    let (outside, browser, _) = both(&world, &alice).await;
    for disabled in [true, false] {
        let request = v1::SetUserDisabledRequest {
            name: "alice".into(),
            disabled,
        };
        admin
            .set_user_disabled(Request::new(request))
            .await
            .unwrap();
        let over = outside.step(&browser).await;
        assert!(matches!(over, Err(LoginError::UnknownAttempt)), "{over:?}");
    }
    world.advance_s(30);
    let (_, browser, choices) = both(&world, &alice).await;
    let request = v1::ResetFactorsRequest {
        name: "alice".into(),
        reason: "phone stolen".into(),
        ..Default::default()
    };
    admin.reset_factors(Request::new(request)).await.unwrap();
    let over = outside.choose(HOME, &browser, &choices[0].id).await;
    assert!(matches!(over, Err(LoginError::UnknownAttempt)), "{over:?}");
    assert!(world.sessions().await.is_empty());
}

async fn a_code_counts_once_inside_and_outside(engine: Engine) {
    let (world, alice, laptop) = World::with_alice(engine).await;
    world.log_in(laptop, &alice).await.unwrap();
    let outside = world.control.outside();
    let browser = begin(&world, HOME, "alice", PASSWORD).await.unwrap();
    let used = alice.code(world.now_ms());
    let refused = outside.totp(HOME, &browser, &used).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    let request = Request::new(v1::NameRequest {
        name: "alice".into(),
    });
    let admin = world.control.admin();
    let codes = admin
        .new_recovery_codes(request)
        .await
        .unwrap()
        .into_inner()
        .codes;
    let step = outside.recovery(HOME, &browser, &codes[0]).await.unwrap();
    assert!(matches!(step, OutsideStep::Choose(_)), "{step:?}");
    // One more factor is not wanted, and not spent.
    let more = outside.recovery(HOME, &browser, &codes[1]).await;
    assert!(matches!(more, Err(LoginError::Refused)), "{more:?}");
    let again = begin(&world, HOME, "alice", PASSWORD).await.unwrap();
    let spent = outside.recovery(HOME, &again, &codes[0]).await;
    assert!(matches!(spent, Err(LoginError::Refused)), "{spent:?}");
    outside.recovery(HOME, &again, &codes[1]).await.unwrap();
}

#[tokio::test]
async fn invariant_10_cookies_are_hashed() {
    let (world, alice, _) = World::with_alice(Engine::Sqlite).await;
    let (outside, browser, choices) = both(&world, &alice).await;
    let opened = outside
        .choose(HOME, &browser, &choices[0].id)
        .await
        .unwrap();
    let half_way = {
        world.advance_s(30);
        begin(&world, HOME, "alice", PASSWORD).await.unwrap()
    };
    let mut bytes = Vec::new();
    for end in ["", "-wal"] {
        let file = world.dir.path().join(format!("store.db{end}"));
        bytes.extend(std::fs::read(file).unwrap_or_default());
    }
    let bytes = String::from_utf8_lossy(&bytes);
    for browser in [&browser, &opened.browser, &half_way] {
        assert!(!bytes.contains(browser.cookie().expose()));
    }
}
