//! Users and their own factors: changing each, what it needs, and what ends with it.

use std::net::IpAddr;

use portcullis_control::{Level, LoginError, NewDevice, SelfService, SelfServiceError};
use portcullis_proto::v1::{self, admin_server::Admin as _};
use sqlx::Connection as _;
use tonic::Request;

use crate::fixture::{Account, Engine, PASSWORD, World, key};
use crate::rogue;

crate::on_both!(
    a_password_is_changed_by_its_rules_and_the_old_one_is_over,
    an_authenticator_counts_once_its_code_was_given,
    a_setup_belongs_to_its_session_and_ends_after_ten_minutes,
    wrong_codes_of_a_setup_are_counted_across_restarts,
    new_recovery_codes_void_the_old_ones,
    every_change_needs_a_fresh_login_at_the_highest_level,
    changes_end_other_sessions_where_wished,
    the_last_way_to_sign_in_stays,
    a_link_to_a_provider_that_is_gone_is_no_way_in_and_no_level,
    a_seed_is_shown_again_to_a_fresh_login_only,
    changes_have_a_rate_that_a_restart_does_not_forget,
);

const NEW: &str = "another fine phrase";

/// Alice, signed in on her laptop.
struct Scene {
    world: World,
    alice: Account,
    from: IpAddr,
}

impl Scene {
    async fn new(engine: Engine) -> Self {
        let (mut world, alice, from) = World::with_alice(engine).await;
        world.config.sso = vec![rogue::config(&world, "acme", "https://acme.example")];
        world.reopen().await;
        world.log_in(from, &alice).await.unwrap();
        world.advance_s(30);
        Self { world, alice, from }
    }

    fn own(&self) -> SelfService {
        self.world.control.logins().self_service()
    }

    async fn audited(&self, action: &str) -> Vec<v1::AuditRecord> {
        let records = self.world.audit().await;
        let records = records.into_iter();
        records.filter(|r| r.action == action).collect()
    }

    /// Has set up an authenticator, and gives what it is.
    async fn begin_totp(&self) -> Account {
        let setup = self.own().begin_totp(self.from).await.unwrap();
        Account {
            name: "alice".into(),
            totp: setup.authenticator.secret.expose().into(),
        }
    }

    async fn confirm(&self, code: &str) -> Result<(), SelfServiceError> {
        let confirmed = self.own().confirm_totp(self.from, code, false).await;
        confirmed.map(drop)
    }

    async fn sql(&self, statement: &'static str) {
        sqlx::any::install_default_drivers();
        let database = &self.world.config.database;
        let mut connection = sqlx::AnyConnection::connect(database).await.unwrap();
        let done = sqlx::query(statement).execute(&mut connection).await;
        done.unwrap();
        connection.close().await.unwrap();
    }

    /// As a provider would have: what is done about it needs none.
    async fn link(&self, level: Level) {
        self.sql(
            "INSERT INTO sso_identities (user_id, provider, issuer, subject, created_ms)
             SELECT id, 'acme', 'https://acme.example', 'alice-1', 7 FROM users WHERE name = 'alice'",
        )
        .await;
        if level == Level::PhishingResistant {
            self.sql("UPDATE sso_identities SET level = 2").await;
        }
    }
}

fn is_stale<T: std::fmt::Debug>(result: Result<T, SelfServiceError>, wanted: Level) {
    assert!(
        matches!(result, Err(SelfServiceError::Stale { needed }) if needed == wanted),
        "{result:?}"
    );
}

async fn a_password_is_changed_by_its_rules_and_the_old_one_is_over(engine: Engine) {
    let scene = Scene::new(engine).await;
    let (own, from) = (scene.own(), scene.from);
    for bad in ["short", "password1", "alice's horse"] {
        let refused = own.change_password(from, &bad.into(), false).await;
        assert!(
            matches!(refused, Err(SelfServiceError::Password(_))),
            "{bad}"
        );
    }
    let before = scene.world.begin(from, "alice", PASSWORD).await.unwrap();
    scene.world.advance_s(5);
    own.change_password(from, &NEW.into(), false).await.unwrap();
    let factors = own.factors(from).await.unwrap();
    assert_eq!(
        factors.password.unwrap().at_ms,
        Some(scene.world.now_ms()),
        "{factors:?}"
    );

    // A login that was half-way by the old one is over.
    let code = scene.alice.code(scene.world.now_ms());
    let logins = scene.world.control.logins();
    let half = logins.totp(from, &before, &code).await;
    assert!(matches!(half, Err(LoginError::UnknownAttempt)), "{half:?}");
    let old = scene.world.begin(from, "alice", PASSWORD).await;
    assert!(matches!(old, Err(LoginError::Refused)));
    scene.world.begin(from, "alice", NEW).await.unwrap();
    let records = scene.audited("user.password").await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].actor, "user:alice");
    assert!(!records[0].detail.contains(NEW));
    let told = own.activity(from).await.unwrap();
    assert!(
        told.iter()
            .any(|a| a.what == "The password was changed" && a.by == "you")
    );
}

async fn an_authenticator_counts_once_its_code_was_given(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let first = scene.begin_totp().await;
    let new = scene.begin_totp().await;
    assert_ne!(first.totp, new.totp);
    // A restart in between loses nothing.
    scene.world.reopen().await;
    let shown = scene.own().totp_setup(scene.from).await.unwrap();
    assert_eq!(shown.authenticator.secret.expose(), new.totp);
    // Until then the one before signs in, and the new one does not.
    let now_ms = scene.world.now_ms();
    let attempt = scene
        .world
        .begin(scene.from, "alice", PASSWORD)
        .await
        .unwrap();
    let logins = scene.world.control.logins();
    let early = logins.totp(scene.from, &attempt, &new.code(now_ms)).await;
    assert!(matches!(early, Err(LoginError::Refused)), "{early:?}");
    for wrong in [new.wrong_code(now_ms), first.code(now_ms), String::new()] {
        if wrong == new.code(now_ms) {
            continue;
        }
        let refused = scene.confirm(&wrong).await;
        assert!(
            matches!(refused, Err(SelfServiceError::Code)),
            "{refused:?}"
        );
    }
    assert!(scene.audited("user.totp").await.is_empty());
    let code = new.code(now_ms);
    scene.confirm(&code).await.unwrap();
    assert_eq!(scene.audited("user.totp").await.len(), 1);
    let again = scene.confirm(&code).await;
    assert!(matches!(again, Err(SelfServiceError::NoSetup)), "{again:?}");

    // The code that confirmed signs nobody in; neither does the old authenticator.
    let attempt = scene
        .world
        .begin(scene.from, "alice", PASSWORD)
        .await
        .unwrap();
    let used = logins.totp(scene.from, &attempt, &code).await;
    assert!(matches!(used, Err(LoginError::Refused)), "{used:?}");
    scene.world.advance_s(60);
    let old = scene.alice.code(scene.world.now_ms());
    let old = logins.totp(scene.from, &attempt, &old).await;
    assert!(matches!(old, Err(LoginError::Refused)), "{old:?}");
    // The wrong ones have to be waited for.
    scene.world.advance_s(120);
    let next = new.code(scene.world.now_ms());
    let next = logins.totp(scene.from, &attempt, &next).await;
    next.unwrap().session().unwrap();
    let factors = scene.own().factors(scene.from).await.unwrap();
    assert_eq!(factors.totp.unwrap().at_ms, Some(now_ms));
}

async fn a_setup_belongs_to_its_session_and_ends_after_ten_minutes(engine: Engine) {
    let scene = Scene::new(engine).await;
    let phone = scene.world.device("phone", "alice").await.device.unwrap();
    let phone: IpAddr = phone.addresses[0].parse().unwrap();
    scene.world.log_in(phone, &scene.alice).await.unwrap();
    scene.world.advance_s(30);
    let new = scene.begin_totp().await;
    let code = new.code(scene.world.now_ms());
    let theirs = scene.own().confirm_totp(phone, &code, false).await;
    assert!(
        matches!(theirs, Err(SelfServiceError::NoSetup)),
        "{theirs:?}"
    );
    let seen = scene.own().totp_setup(phone).await;
    assert!(matches!(seen, Err(SelfServiceError::NoSetup)), "{seen:?}");
    // Another login of the same device is another session.
    scene.world.log_in(scene.from, &scene.alice).await.unwrap();
    let later = scene.confirm(&code).await;
    assert!(matches!(later, Err(SelfServiceError::NoSetup)), "{later:?}");

    let new = scene.begin_totp().await;
    scene.world.advance_s(10 * 60);
    let late = scene.confirm(&new.code(scene.world.now_ms())).await;
    assert!(matches!(late, Err(SelfServiceError::NoSetup)), "{late:?}");
}

async fn wrong_codes_of_a_setup_are_counted_across_restarts(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    for attempt in 0..5 {
        // Beginning anew buys nothing.
        let new = scene.begin_totp().await;
        let refused = scene.confirm(&new.wrong_code(scene.world.now_ms())).await;
        assert!(matches!(refused, Err(SelfServiceError::Code)), "{attempt}");
        scene.world.reopen().await;
    }
    let new = scene.begin_totp().await;
    let right = new.code(scene.world.now_ms());
    let delayed = scene.confirm(&right).await;
    let is_delayed = matches!(
        delayed,
        Err(SelfServiceError::Login(LoginError::Delayed { .. }))
    );
    assert!(is_delayed, "{delayed:?}");
    scene.world.advance_s(31);
    let right = new.code(scene.world.now_ms());
    scene.confirm(&right).await.unwrap();
}

async fn new_recovery_codes_void_the_old_ones(engine: Engine) {
    let scene = Scene::new(engine).await;
    let own = scene.own();
    let first = own.new_recovery_codes(scene.from, false).await.unwrap();
    assert_eq!(first.codes.len(), 10);
    let second = own.new_recovery_codes(scene.from, false).await.unwrap();
    assert_eq!(own.factors(scene.from).await.unwrap().recovery_codes, 10);
    let attempt = scene
        .world
        .begin(scene.from, "alice", PASSWORD)
        .await
        .unwrap();
    let logins = scene.world.control.logins();
    let old = logins.recovery(scene.from, &attempt, first.codes[0].expose());
    assert!(matches!(old.await, Err(LoginError::Refused)));
    let new = logins.recovery(scene.from, &attempt, second.codes[0].expose());
    new.await.unwrap().session().unwrap();
    assert_eq!(own.factors(scene.from).await.unwrap().recovery_codes, 9);
    let records = scene.audited("user.recovery-codes").await;
    assert!(records.len() == 2 && records.iter().all(|r| r.actor == "user:alice"));
    assert!(
        records
            .iter()
            .all(|r| !r.detail.contains(second.codes[0].expose()))
    );
}

async fn every_change_needs_a_fresh_login_at_the_highest_level(engine: Engine) {
    let scene = Scene::new(engine).await;
    let (own, from) = (scene.own(), scene.from);
    scene.link(Level::None).await;
    let new = scene.begin_totp().await;
    let refuse = async |needed: Level| {
        is_stale(own.change_password(from, &NEW.into(), false).await, needed);
        is_stale(own.begin_totp(from).await, needed);
        is_stale(own.new_recovery_codes(from, false).await, needed);
        is_stale(own.unlink_provider(from, "acme", false).await, needed);
        let factors = own.factors(from).await.unwrap();
        assert_eq!(factors.change_needs, Some(needed));
    };
    // What a provider has vouched for once is the account's highest level from then on.
    assert_eq!(own.factors(from).await.unwrap().change_needs, None);
    scene.sql("UPDATE sso_identities SET level = 2").await;
    refuse(Level::PhishingResistant).await;
    let code = new.code(scene.world.now_ms());
    is_stale(
        own.confirm_totp(from, &code, false).await,
        Level::PhishingResistant,
    );
    scene.sql("UPDATE sso_identities SET level = 1").await;
    scene.world.advance_s(10 * 60);
    refuse(Level::Mfa).await;
    scene.world.log_in(from, &scene.alice).await.unwrap();
    own.change_password(from, &NEW.into(), false).await.unwrap();
    // Without a session nothing is seen.
    scene.world.control.logins().end(from).await.unwrap();
    let unseen = own.factors(from).await;
    assert!(
        matches!(unseen, Err(SelfServiceError::NoSession)),
        "{unseen:?}"
    );
}

async fn changes_end_other_sessions_where_wished(engine: Engine) {
    let scene = Scene::new(engine).await;
    let (own, from) = (scene.own(), scene.from);
    scene.link(Level::None).await;
    scene.world.device("phone", "alice").await;
    let live = async || {
        let sessions = scene.world.sessions().await;
        sessions.iter().filter(|s| s.state == "live").count()
    };
    for change in 0..4 {
        for wished in [false, true] {
            scene.world.grant("phone").await;
            let ended = match change {
                0 => own
                    .change_password(from, &NEW.into(), wished)
                    .await
                    .unwrap(),
                1 => {
                    let new = scene.begin_totp().await;
                    let code = new.code(scene.world.now_ms());
                    own.confirm_totp(from, &code, wished).await.unwrap()
                }
                2 => own.new_recovery_codes(from, wished).await.unwrap().ended,
                _ => {
                    let unlinked = own.unlink_provider(from, "acme", wished).await.unwrap();
                    if !wished {
                        scene.link(Level::None).await;
                    }
                    unlinked
                }
            };
            assert_eq!(ended.ended, usize::from(wished), "{change}");
            assert_eq!(live().await, if wished { 1 } else { 2 }, "{change}");
        }
    }
}

async fn the_last_way_to_sign_in_stays(engine: Engine) {
    let scene = Scene::new(engine).await;
    let (own, from) = (scene.own(), scene.from);
    scene.link(Level::PhishingResistant).await;
    let set = async |factors: &[&str], require: Level| {
        let request = v1::SetLocationRequest {
            name: "office".into(),
            factors: Some(v1::FactorNames {
                names: factors.iter().map(|f| (*f).into()).collect(),
            }),
            require: Some(require.into()),
            ..Default::default()
        };
        let admin = scene.world.control.admin();
        admin.set_location(Request::new(request)).await.unwrap();
    };
    // As after a login by the provider.
    let highest = async || {
        scene.world.grant("laptop").await;
        scene.sql("UPDATE sessions SET level = 2").await;
    };
    set(&["sso"], Level::Mfa).await;
    highest().await;
    let kept = own.unlink_provider(from, "acme", false).await;
    assert!(
        matches!(&kept, Err(SelfServiceError::LastWay { location }) if location == "office"),
        "{kept:?}"
    );
    let other = own.unlink_provider(from, "other", false).await;
    assert!(matches!(other, Err(SelfServiceError::UnknownProvider)));
    set(&["password", "totp", "sso"], Level::Mfa).await;
    highest().await;
    own.unlink_provider(from, "acme", false).await.unwrap();
    assert!(own.factors(from).await.unwrap().providers.is_empty());
    assert_eq!(scene.audited("user.sso").await[0].actor, "user:alice");
}

/// A provider that was taken out of the configuration signs nobody in. Its links stay, to be taken back.
async fn a_link_to_a_provider_that_is_gone_is_no_way_in_and_no_level(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    scene.link(Level::PhishingResistant).await;
    scene
        .sql(
            "INSERT INTO sso_identities (user_id, provider, issuer, subject, created_ms, level)
             SELECT id, 'other', 'https://other.example', 'alice-2', 7, 1 FROM users WHERE name = 'alice'",
        )
        .await;
    let factors = Some(v1::FactorNames {
        names: vec!["sso".into()],
    });
    let request = v1::SetLocationRequest {
        name: "office".into(),
        factors,
        ..Default::default()
    };
    let admin = scene.world.control.admin();
    admin.set_location(Request::new(request)).await.unwrap();
    scene.sql("UPDATE sessions SET level = 2").await;
    // The other link, whose provider nobody has configured, does not take its place.
    let kept = scene.own().unlink_provider(scene.from, "acme", false).await;
    assert!(
        matches!(kept, Err(SelfServiceError::LastWay { .. })),
        "{kept:?}"
    );
    let other = scene
        .own()
        .unlink_provider(scene.from, "other", false)
        .await;
    other.unwrap();

    // Nobody could ever have such a login again.
    scene.sql("UPDATE sessions SET level = 1").await;
    let factors = scene.own().factors(scene.from).await.unwrap();
    assert_eq!(factors.change_needs, Some(Level::PhishingResistant));
    scene.world.config.sso.clear();
    scene.world.reopen().await;
    let factors = scene.own().factors(scene.from).await.unwrap();
    assert_eq!(factors.change_needs, None);
    assert_eq!(factors.providers.len(), 1, "it is there to be taken back");
    let unlinked = scene.own().unlink_provider(scene.from, "acme", false).await;
    unlinked.unwrap();
}

async fn a_seed_is_shown_again_to_a_fresh_login_only(engine: Engine) {
    let scene = Scene::new(engine).await;
    let (own, from) = (scene.own(), scene.from);
    scene.world.advance_s(9 * 60);
    let new = scene.begin_totp().await;
    scene.world.advance_s(30);
    let shown = own.totp_setup(from).await.unwrap();
    assert_eq!(shown.authenticator.secret.expose(), new.totp);
    // More than ten minutes after the login, while the setup is still good.
    scene.world.advance_s(60);
    is_stale(own.totp_setup(from).await, Level::Mfa);
    scene
        .confirm(&new.code(scene.world.now_ms()))
        .await
        .unwrap();
}

async fn changes_have_a_rate_that_a_restart_does_not_forget(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    for number in 0..30 {
        if number == 15 {
            scene.world.reopen().await;
        }
        let made = scene.own().new_recovery_codes(scene.from, false).await;
        assert!(made.is_ok(), "{number}: {made:?}");
    }
    scene.world.reopen().await;
    let own = scene.own();
    let often = |result: Result<(), SelfServiceError>| {
        let is_often = matches!(&result, Err(SelfServiceError::Often { retry_after })
            if retry_after.as_secs() == 120);
        assert!(is_often, "{result:?}");
    };
    let codes = own.new_recovery_codes(scene.from, false).await;
    often(codes.map(drop));
    often(own.begin_totp(scene.from).await.map(drop));
    let password = own.change_password(scene.from, &NEW.into(), false).await;
    often(password.map(drop));
    scene
        .world
        .control
        .gateway_token("gw", "office")
        .await
        .unwrap();
    scene
        .sql("UPDATE gateways SET public_key = 'BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU='")
        .await;
    use base64::Engine as _;
    let public_key = base64::engine::general_purpose::STANDARD.encode(key("phone"));
    let phone = || NewDevice {
        name: "phone",
        public_key: &public_key,
        hours: None,
    };
    often(own.add_device(scene.from, phone()).await.map(drop));
    scene.world.advance_s(120);
    own.add_device(scene.from, phone()).await.unwrap();
    often(own.begin_totp(scene.from).await.map(drop));
}
