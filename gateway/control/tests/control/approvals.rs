//! A phone that approves a login: exactly that one, once, within a minute, by the right number and a passkey.

use std::net::{IpAddr, Ipv4Addr};

use portcullis_control::{
    ApprovalError, Approvals, Browser, ConnectStep, Factor, FactorSet, Level, LoginError, LoginId,
    LoginStep, Outside, OutsideStep, PasskeyError, PhonePrompt, PhoneState, PhoneStep, Secret,
    SessionView, Stranger,
};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use serde_json::Value;
use sqlx::{AnyConnection, Connection as _};
use tonic::Request;

use crate::authenticator::Authenticator;
use crate::fixture::{Account, Engine, PASSWORD, World};
use crate::outside::set_factors;
use crate::passkeys::{NAME, ORIGIN, passkeys, register};
use crate::session_key::newest;

crate::on_both!(
    the_right_number_and_a_passkey_open_a_session_at_level_mfa,
    a_wrong_number_ends_it_and_is_counted,
    after_a_minute_it_is_over,
    what_is_approved_and_not_finished_is_void,
    nothing_is_approved_or_finished_twice,
    of_two_finishes_at_once_one_has_the_session,
    of_two_phones_at_once_one_approves,
    what_another_address_finishes_is_refused,
    an_approval_is_of_one_login,
    a_denied_login_is_over,
    a_newer_request_takes_the_place_of_the_older,
    another_passkey_and_another_challenge_approve_nothing,
    phones_are_asked_a_few_times_and_then_less_and_less,
    few_wait_at_the_same_time,
    who_has_no_passkey_is_not_offered_a_phone,
    a_location_may_not_allow_it,
    a_disabled_user_and_a_removed_passkey_approve_nothing,
    outside_of_the_tunnel_it_comes_before_the_device,
    outside_of_the_tunnel_another_network_finishes_nothing,
    before_there_is_a_tunnel_it_connects,
    the_store_alone_has_no_token,
);

pub(crate) const PAGE: &str = "https://login.example.com:8443/approve";
/// Where the phone is.
pub(crate) const PHONE: Stranger = at(198, 51, 100, 9);
pub(crate) const HOME: Stranger = at(198, 51, 100, 7);

const fn at(a: u8, b: u8, c: u8, d: u8) -> Stranger {
    Stranger {
        network: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
    }
}

/// Alice with a passkey on her phone, signed out.
pub(crate) struct Scene {
    pub(crate) world: World,
    key: Authenticator,
    laptop: IpAddr,
}

fn token(prompt: &PhonePrompt) -> Secret {
    let url = prompt.url.expose();
    let (page, token) = url.split_once('#').expect("a token");
    assert_eq!(page, PAGE);
    token.into()
}

/// A number that is not this one.
fn wrong(number: u8) -> u32 {
    if number == 99 {
        10
    } else {
        u32::from(number) + 1
    }
}

impl Scene {
    async fn new(engine: Engine) -> Self {
        let (world, alice, laptop) = World::with_alice(engine).await;
        Self::of(world, alice, laptop).await
    }

    pub(crate) async fn of(world: World, alice: Account, laptop: IpAddr) -> Self {
        world.log_in(laptop, &alice).await.unwrap();
        let mut key = Authenticator::new("key", ORIGIN, NAME);
        register(&world, laptop, &mut key).await.unwrap();
        world.control.logins().end(laptop).await.unwrap().unwrap();
        world.control.serve_approvals_at(PAGE.into());
        Self { world, key, laptop }
    }

    pub(crate) fn approvals(&self) -> Approvals {
        self.world.control.approvals(passkeys(&self.world))
    }

    fn outside(&self) -> Outside {
        let outside = self.world.control.outside();
        outside.with_passkeys(passkeys(&self.world))
    }

    async fn begin(&self) -> LoginId {
        let begun = self.world.begin(self.laptop, "alice", PASSWORD);
        begun.await.unwrap()
    }

    async fn try_ask(&self, login: &LoginId) -> Result<PhonePrompt, LoginError> {
        self.world
            .control
            .logins()
            .ask_phone(self.laptop, login)
            .await
    }

    async fn ask(&self, login: &LoginId) -> PhonePrompt {
        self.try_ask(login).await.unwrap()
    }

    async fn state(&self, login: &LoginId) -> PhoneState {
        let logins = self.world.control.logins();
        logins.phone(self.laptop, login).await.unwrap()
    }

    /// What the phone's browser answers.
    pub(crate) async fn signed(&mut self, token: &Secret) -> Value {
        let options = self.approvals().begin(token).await.unwrap();
        let options = serde_json::to_value(&options).unwrap();
        assert_eq!(options["publicKey"]["userVerification"], "required");
        self.key.get(&options)
    }

    async fn answer(
        &self,
        token: &Secret,
        number: u32,
        signed: &Value,
    ) -> Result<(), ApprovalError> {
        let signed = serde_json::from_value(signed.clone()).unwrap();
        let approvals = self.approvals();
        let then = approvals.approve(PHONE, token, number, &signed).await?;
        assert!(then.is_none(), "the phone stays where it is");
        Ok(())
    }

    /// As its user does.
    pub(crate) async fn approve(&mut self, prompt: &PhonePrompt) {
        let token = token(prompt);
        let signed = self.signed(&token).await;
        let number = prompt.number.into();
        self.answer(&token, number, &signed).await.unwrap();
    }

    async fn finish(&self, login: &LoginId) -> Result<SessionView, LoginError> {
        let logins = self.world.control.logins();
        match logins.finish_phone(self.laptop, login).await? {
            PhoneStep::Done(step) => Ok(step.session().expect("two factors are enough here")),
            step @ PhoneStep::Waiting { .. } => panic!("{step:?}"),
        }
    }

    async fn audited(&self, action: &str) -> Vec<v1::AuditRecord> {
        let mut records = self.world.audit().await;
        records.retain(|record| record.action == action);
        records
    }

    async fn has_session(&self) -> bool {
        let current = self.world.control.logins().current(self.laptop).await;
        current.unwrap().is_some()
    }

    pub(crate) async fn wrong_attempts(&self) -> i64 {
        use sqlx::Connection as _;
        let mut connection = AnyConnection::connect(&self.world.config.database)
            .await
            .unwrap();
        let query = sqlx::query_scalar("SELECT failures FROM users WHERE name = 'alice'");
        query.fetch_one(&mut connection).await.unwrap()
    }

    async fn begin_outside(&self) -> (Browser, FactorSet) {
        let password = Secret::from(PASSWORD);
        let begun = self.outside().begin(HOME, "alice", &password).await;
        match begun.unwrap() {
            (browser, OutsideStep::Wants { factors, .. }) => (browser, factors),
            (_, step) => panic!("{step:?}"),
        }
    }
}

fn over<T: std::fmt::Debug>(result: Result<T, ApprovalError>) {
    assert!(matches!(result, Err(ApprovalError::Over)), "{result:?}");
}

async fn the_right_number_and_a_passkey_open_a_session_at_level_mfa(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let logins = scene.world.control.logins();
    let begun = logins.begin(scene.laptop, "alice", PASSWORD.into()).await;
    let LoginStep::Wants {
        attempt, factors, ..
    } = begun.unwrap()
    else {
        panic!("no login");
    };
    assert!(factors.contains(Factor::Phone));
    let prompt = scene.ask(&attempt).await;
    assert!((10..=99).contains(&prompt.number));
    assert_eq!(prompt.expires_in.as_secs(), 60);
    assert!(!format!("{prompt:?}").contains(token(&prompt).expose()));

    let view = scene.approvals().look(&token(&prompt)).await.unwrap();
    assert_eq!(view.user, "alice");
    assert_eq!(view.device.as_deref(), Some("laptop"));
    assert_eq!(view.locations, ["office"]);
    assert_eq!(view.network, scene.laptop.to_string());
    assert!(view.in_tunnel);
    // Where the device is in the world says more, once a gateway has told it.
    let mut store = AnyConnection::connect(&scene.world.config.database)
        .await
        .unwrap();
    sqlx::query("UPDATE devices SET endpoint = '[2001:db8::7:1]:4242'")
        .execute(&mut store)
        .await
        .unwrap();
    store.close().await.unwrap();
    let view = scene.approvals().look(&token(&prompt)).await.unwrap();
    assert_eq!(
        (view.network.as_str(), view.in_tunnel),
        ("2001:db8::", false)
    );
    assert_eq!(view.begun_ms, scene.world.now_ms());

    let waiting = logins.finish_phone(scene.laptop, &attempt).await.unwrap();
    assert!(matches!(waiting, PhoneStep::Waiting { .. }), "{waiting:?}");
    match scene.state(&attempt).await {
        // The page is drawn again with the same code and number.
        PhoneState::Waiting(again) => {
            assert_eq!(again.url.expose(), prompt.url.expose());
            assert_eq!(again.number, prompt.number);
        }
        state => panic!("{state:?}"),
    }
    scene.approve(&prompt).await;
    let state = scene.state(&attempt).await;
    assert!(matches!(state, PhoneState::Approved { .. }), "{state:?}");
    assert!(
        !scene.has_session().await,
        "only the computer has it opened"
    );
    let session = scene.finish(&attempt).await.unwrap();
    assert_eq!(session.level, Level::Mfa);
    assert_eq!(scene.wrong_attempts().await, 0);
    for action in ["phone.begin", "phone.approve"] {
        let records = scene.audited(action).await;
        assert_eq!(records.len(), 1, "{action}");
        assert_eq!(records[0].subject, "device:laptop");
    }
}

async fn a_wrong_number_ends_it_and_is_counted(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let login = scene.begin().await;
    let prompt = scene.ask(&login).await;
    let token = token(&prompt);
    let signed = scene.signed(&token).await;
    let refused = scene.answer(&token, wrong(prompt.number), &signed).await;
    assert!(
        matches!(refused, Err(ApprovalError::WrongNumber)),
        "{refused:?}"
    );
    assert_eq!(scene.wrong_attempts().await, 1);
    // The right one comes too late.
    over(scene.answer(&token, prompt.number.into(), &signed).await);
    over(scene.approvals().look(&token).await);
    let refused = scene.finish(&login).await;
    assert!(
        matches!(refused, Err(LoginError::NotApproved)),
        "{refused:?}"
    );
    assert!(!scene.has_session().await);
    assert_eq!(scene.audited("phone.wrong-number").await.len(), 1);
    // The login may go on, by another request as well.
    let prompt = scene.ask(&login).await;
    scene.approve(&prompt).await;
    scene.finish(&login).await.unwrap();
}

async fn after_a_minute_it_is_over(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let login = scene.begin().await;
    let prompt = scene.ask(&login).await;
    let token = token(&prompt);
    let signed = scene.signed(&token).await;
    scene.world.advance_s(60);
    over(scene.answer(&token, prompt.number.into(), &signed).await);
    over(scene.approvals().look(&token).await);
    over(scene.approvals().begin(&token).await);
    over(scene.approvals().deny(PHONE, &token).await);
    let state = scene.state(&login).await;
    assert!(matches!(state, PhoneState::Over), "{state:?}");
    let refused = scene.finish(&login).await;
    assert!(
        matches!(refused, Err(LoginError::ApprovalOver)),
        "{refused:?}"
    );
}

async fn what_is_approved_and_not_finished_is_void(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let login = scene.begin().await;
    let prompt = scene.ask(&login).await;
    scene.world.advance_s(30);
    scene.approve(&prompt).await;
    scene.world.advance_s(30);
    let refused = scene.finish(&login).await;
    assert!(
        matches!(refused, Err(LoginError::ApprovalOver)),
        "{refused:?}"
    );
    assert!(!scene.has_session().await);
}

async fn nothing_is_approved_or_finished_twice(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let login = scene.begin().await;
    let prompt = scene.ask(&login).await;
    let token = token(&prompt);
    let signed = scene.signed(&token).await;
    let number = prompt.number.into();
    scene.answer(&token, number, &signed).await.unwrap();
    over(scene.answer(&token, number, &signed).await);
    over(scene.approvals().deny(PHONE, &token).await);
    scene.finish(&login).await.unwrap();
    let replayed = scene.finish(&login).await;
    assert!(
        matches!(replayed, Err(LoginError::UnknownAttempt)),
        "{replayed:?}"
    );
    // Nor for another request, with what was signed for the first.
    let login = scene.begin().await;
    let prompt = scene.ask(&login).await;
    let other = self::token(&prompt);
    scene.signed(&other).await;
    let replayed = scene.answer(&other, prompt.number.into(), &signed).await;
    assert!(
        matches!(replayed, Err(ApprovalError::Passkey(PasskeyError::Refused))),
        "{replayed:?}"
    );
    assert_eq!(scene.audited("phone.approve").await.len(), 1);
}

async fn of_two_finishes_at_once_one_has_the_session(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let login = scene.begin().await;
    let prompt = scene.ask(&login).await;
    scene.approve(&prompt).await;
    let (one, other) = tokio::join!(scene.finish(&login), scene.finish(&login));
    assert_ne!(one.is_ok(), other.is_ok(), "{one:?} {other:?}");
    let sessions = scene.world.sessions().await;
    let live = sessions.iter().filter(|session| session.state == "live");
    assert_eq!(live.count(), 1);
    assert_eq!(
        scene.audited("session.grant").await.len(),
        2,
        "with the first"
    );
}

async fn of_two_phones_at_once_one_approves(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let login = scene.begin().await;
    let prompt = scene.ask(&login).await;
    let token = token(&prompt);
    let signed = scene.signed(&token).await;
    let number = prompt.number.into();
    let (one, other) = tokio::join!(
        scene.answer(&token, number, &signed),
        scene.answer(&token, number, &signed)
    );
    assert_ne!(one.is_ok(), other.is_ok(), "{one:?} {other:?}");
    assert_eq!(scene.audited("phone.approve").await.len(), 1);
}

async fn what_another_address_finishes_is_refused(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let login = scene.begin().await;
    let prompt = scene.ask(&login).await;
    scene.approve(&prompt).await;
    // Another device of hers.
    let phone = scene.world.device("phone", "alice").await.device.unwrap();
    let elsewhere = phone.addresses[0].parse().unwrap();
    let logins = scene.world.control.logins();
    let refused = logins.finish_phone(elsewhere, &login).await;
    assert!(
        matches!(refused, Err(LoginError::UnknownAttempt)),
        "{refused:?}"
    );
    // The other address of the same device.
    let other: IpAddr = scene.other_address().await;
    let refused = logins.finish_phone(other, &login).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    assert_eq!(scene.wrong_attempts().await, 1);
    let state = logins.phone(other, &login).await.unwrap();
    assert!(matches!(state, PhoneState::Over), "{state:?}");
    assert!(!scene.has_session().await);
    scene.finish(&login).await.unwrap();
}

async fn an_approval_is_of_one_login(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let (login, other) = (scene.begin().await, scene.begin().await);
    let prompt = scene.ask(&login).await;
    let of_other = scene.ask(&other).await;
    scene.approve(&prompt).await;
    let logins = scene.world.control.logins();
    let waiting = logins.finish_phone(scene.laptop, &other).await.unwrap();
    assert!(matches!(waiting, PhoneStep::Waiting { .. }), "{waiting:?}");
    // What is signed for the one request does not approve the other.
    let signed = scene.signed(&token(&of_other)).await;
    over(
        scene
            .answer(&token(&prompt), prompt.number.into(), &signed)
            .await,
    );
    scene.finish(&login).await.unwrap();
    let never = scene.begin().await;
    let refused = scene.finish(&never).await;
    assert!(
        matches!(refused, Err(LoginError::ApprovalOver)),
        "{refused:?}"
    );
}

async fn a_denied_login_is_over(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let login = scene.begin().await;
    let prompt = scene.ask(&login).await;
    let token = token(&prompt);
    let signed = scene.signed(&token).await;
    scene.approvals().deny(PHONE, &token).await.unwrap();
    over(scene.answer(&token, prompt.number.into(), &signed).await);
    let refused = scene.finish(&login).await;
    assert!(
        matches!(refused, Err(LoginError::NotApproved)),
        "{refused:?}"
    );
    let records = scene.audited("phone.deny").await;
    assert_eq!(records.len(), 1);
    assert!(records[0].detail.contains("198.51.100.9"), "{records:?}");
}

async fn a_newer_request_takes_the_place_of_the_older(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let login = scene.begin().await;
    let older = scene.ask(&login).await;
    let signed = scene.signed(&token(&older)).await;
    let newer = scene.ask(&login).await;
    over(
        scene
            .answer(&token(&older), older.number.into(), &signed)
            .await,
    );
    over(scene.approvals().look(&token(&older)).await);
    scene.approve(&newer).await;
    // Also in place of one that was approved.
    scene.ask(&login).await;
    let logins = scene.world.control.logins();
    let waiting = logins.finish_phone(scene.laptop, &login).await.unwrap();
    assert!(matches!(waiting, PhoneStep::Waiting { .. }), "{waiting:?}");
}

async fn another_passkey_and_another_challenge_approve_nothing(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let login = scene.begin().await;
    let prompt = scene.ask(&login).await;
    let (token, number) = (token(&prompt), u32::from(prompt.number));
    let refused_by = |result: Result<(), ApprovalError>| match result {
        Err(ApprovalError::Passkey(error)) => error,
        other => panic!("{other:?}"),
    };

    let mut another = Authenticator::new("another", ORIGIN, NAME);
    let options = scene.approvals().begin(&token).await.unwrap();
    let options = serde_json::to_value(&options).unwrap();
    let error = refused_by(scene.answer(&token, number, &another.get(&options)).await);
    assert!(matches!(error, PasskeyError::Refused), "{error:?}");
    // Its challenge is spent with that.
    let late = scene.key.get(&options);
    let error = refused_by(scene.answer(&token, number, &late).await);
    assert!(matches!(error, PasskeyError::UnknownCeremony), "{error:?}");

    scene.key.verifies = false;
    let signed = scene.signed(&token).await;
    let error = refused_by(scene.answer(&token, number, &signed).await);
    assert!(matches!(error, PasskeyError::NotVerified), "{error:?}");
    scene.key.verifies = true;

    let origin = std::mem::replace(&mut scene.key.origin, "https://evil.example".into());
    let signed = scene.signed(&token).await;
    let error = refused_by(scene.answer(&token, number, &signed).await);
    assert!(matches!(error, PasskeyError::Refused), "{error:?}");
    scene.key.origin = origin;
    assert_eq!(scene.audited("phone.refuse").await.len(), 4);
    assert_eq!(scene.wrong_attempts().await, 4);

    // The account is not delayed yet, and the request still waits.
    scene.approve(&prompt).await;
    scene.finish(&login).await.unwrap();
}

async fn phones_are_asked_a_few_times_and_then_less_and_less(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let mut asked = 0;
    let retry_after = loop {
        let login = scene.begin().await;
        match scene.try_ask(&login).await {
            Ok(prompt) => scene
                .approvals()
                .deny(PHONE, &token(&prompt))
                .await
                .unwrap(),
            Err(LoginError::Delayed { retry_after }) => break retry_after,
            other => panic!("{other:?}"),
        }
        asked += 1;
    };
    assert_eq!((asked, retry_after.as_secs()), (5, 30));
    assert_eq!(scene.wrong_attempts().await, 0, "codes are not delayed");
    // What was begun elsewhere is counted apart.
    let (browser, _) = scene.begin_outside().await;
    scene.outside().ask_phone(HOME, &browser).await.unwrap();

    scene.world.advance_s(30);
    let login = scene.begin().await;
    let prompt = scene.ask(&login).await;
    let other = scene.begin().await;
    match scene.try_ask(&other).await {
        Err(LoginError::Delayed { retry_after }) => assert_eq!(retry_after.as_secs(), 60),
        other => panic!("{other:?}"),
    }
    // One that is finished makes good for all.
    scene.approve(&prompt).await;
    scene.finish(&login).await.unwrap();
    let login = scene.begin().await;
    scene.ask(&login).await;
}

async fn few_wait_at_the_same_time(engine: Engine) {
    let scene = Scene::new(engine).await;
    for _ in 0..3 {
        let login = scene.begin().await;
        scene.ask(&login).await;
        // The same login's takes no other place.
        scene.world.advance_s(1);
    }
    let login = scene.begin().await;
    let refused = scene.try_ask(&login).await;
    match refused {
        Err(LoginError::Delayed { retry_after }) => assert_eq!(retry_after.as_secs(), 57),
        other => panic!("{other:?}"),
    }
    scene.world.advance_s(57);
    scene.ask(&login).await;
}

async fn who_has_no_passkey_is_not_offered_a_phone(engine: Engine) {
    let scene = Scene::new(engine).await;
    let bob = scene.world.user("bob").await;
    let device = scene.world.device("bobs", "bob").await.device.unwrap();
    let from = device.addresses[0].parse().unwrap();
    let logins = scene.world.control.logins();
    let begun = logins.begin(from, &bob.name, PASSWORD.into()).await;
    let LoginStep::Wants {
        attempt, factors, ..
    } = begun.unwrap()
    else {
        panic!("no login");
    };
    assert!(!factors.contains(Factor::Phone) && factors.contains(Factor::Totp));
    let refused = logins.ask_phone(from, &attempt).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    let bob = Secret::from(PASSWORD);
    let begun = scene.outside().begin(HOME, "bob", &bob).await.unwrap();
    match begun {
        (_, OutsideStep::Wants { factors, .. }) => assert!(!factors.contains(Factor::Phone)),
        (_, step) => panic!("{step:?}"),
    }
}

async fn a_location_may_not_allow_it(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let login = scene.begin().await;
    let prompt = scene.ask(&login).await;
    scene.approve(&prompt).await;
    set_factors(&scene.world, "office", &["password", "totp"], Level::Mfa).await;
    // What was begun under the other policy is over with it.
    let refused = scene.finish(&login).await;
    assert!(refused.is_err(), "{refused:?}");
    let login = scene.begin().await;
    let refused = scene.try_ask(&login).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    let (browser, factors) = scene.begin_outside().await;
    assert!(!factors.contains(Factor::Phone));
    let refused = scene.outside().ask_phone(HOME, &browser).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    // Alone with a password it is enough, and where passkeys are required it is not.
    set_factors(&scene.world, "office", &["password", "phone"], Level::Mfa).await;
    let login = scene.begin().await;
    let prompt = scene.ask(&login).await;
    scene.approve(&prompt).await;
    scene.finish(&login).await.unwrap();
    let all = ["password", "phone", "passkey"];
    set_factors(&scene.world, "office", &all, Level::PhishingResistant).await;
    let login = scene.begin().await;
    let refused = scene.try_ask(&login).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
}

async fn a_disabled_user_and_a_removed_passkey_approve_nothing(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let login = scene.begin().await;
    let prompt = scene.ask(&login).await;
    let token = token(&prompt);
    let signed = scene.signed(&token).await;
    for disabled in [true, false] {
        let request = v1::SetUserDisabledRequest {
            name: "alice".into(),
            disabled,
        };
        let admin = scene.world.control.admin();
        admin
            .set_user_disabled(Request::new(request))
            .await
            .unwrap();
    }
    over(scene.answer(&token, prompt.number.into(), &signed).await);
    assert!(scene.finish(&login).await.is_err());

    let login = scene.begin().await;
    let prompt = scene.ask(&login).await;
    scene.approve(&prompt).await;
    let passkeys = passkeys(&scene.world);
    let begun = passkeys.begin_login(scene.laptop, None).await.unwrap();
    let options = serde_json::to_value(&begun.options).unwrap();
    let answer = serde_json::from_value(scene.key.get(&options)).unwrap();
    let inside = passkeys.finish_login(scene.laptop, None, &begun.ceremony, &answer);
    inside.await.unwrap();
    let list = passkeys.list(scene.laptop).await.unwrap();
    let removed = passkeys.remove(scene.laptop, &list.passkeys[0].id, false);
    removed.await.unwrap();
    let refused = scene.finish(&login).await;
    assert!(
        matches!(refused, Err(LoginError::ApprovalOver)),
        "{refused:?}"
    );
}

async fn outside_of_the_tunnel_it_comes_before_the_device(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let (browser, factors) = scene.begin_outside().await;
    assert!(factors.contains(Factor::Phone));
    let outside = scene.outside();
    let prompt = outside.ask_phone(HOME, &browser).await.unwrap();
    let view = scene.approvals().look(&token(&prompt)).await.unwrap();
    assert_eq!((view.device, view.in_tunnel), (None, false));
    assert_eq!(view.locations, ["office"]);
    assert_eq!(view.network, "198.51.100.7");
    let waiting = outside.finish_phone(HOME, &browser).await.unwrap();
    assert!(matches!(waiting, PhoneStep::Waiting { .. }), "{waiting:?}");
    scene.approve(&prompt).await;
    let step = outside.finish_phone(HOME, &browser).await.unwrap();
    let PhoneStep::Done(OutsideStep::Choose(choices)) = step else {
        panic!("{step:?}");
    };
    let opened = outside.choose(HOME, &browser, &choices[0].id).await;
    assert_eq!(opened.unwrap().session.level, Level::Mfa);
    let replayed = outside.finish_phone(HOME, &browser).await;
    assert!(
        matches!(replayed, Err(LoginError::UnknownAttempt)),
        "{replayed:?}"
    );
}

async fn outside_of_the_tunnel_another_network_finishes_nothing(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let (browser, _) = scene.begin_outside().await;
    let outside = scene.outside();
    let prompt = outside.ask_phone(HOME, &browser).await.unwrap();
    scene.approve(&prompt).await;
    let refused = outside.finish_phone(PHONE, &browser).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    let step = outside.step(&browser).await.unwrap();
    assert!(matches!(step, OutsideStep::Wants { .. }), "{step:?}");
    assert_eq!(scene.audited("outside.refuse").await.len(), 1);
    let (one, other) = tokio::join!(
        outside.finish_phone(HOME, &browser),
        outside.finish_phone(HOME, &browser)
    );
    assert_ne!(one.is_ok(), other.is_ok(), "{one:?} {other:?}");
}

async fn before_there_is_a_tunnel_it_connects(engine: Engine) {
    let (world, alice, _served, mut gateway) = crate::connect::vault(engine).await;
    world.location("office", &["10.77.0.0/24"]).await.unwrap();
    let key = crate::fixture::key("tablet");
    let tablet = world.try_device("tablet", "alice", "office", &key);
    let device = tablet.await.unwrap().device.unwrap();
    let from = device.addresses[0].parse().unwrap();
    let mut scene = Scene::of(world, alice, from).await;
    gateway.follow_to(newest(&scene.world)).await;

    let login = crate::connect::begin(&scene.world).await;
    let connects = scene.world.control.connects();
    let prompt = connects.ask_phone(HOME, &login).await.unwrap();
    let view = scene.approvals().look(&token(&prompt)).await.unwrap();
    assert_eq!(view.device.as_deref(), Some("laptop"));
    assert_eq!(
        (view.locations, view.in_tunnel),
        (vec!["vault".into()], false)
    );
    assert_eq!(view.network, "198.51.100.7");
    let waiting = connects.finish_phone(HOME, &login).await.unwrap();
    assert!(matches!(waiting, PhoneStep::Waiting { .. }), "{waiting:?}");
    scene.approve(&prompt).await;
    let refused = connects.finish_phone(PHONE, &login).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    let next = newest(&scene.world) + 1;
    let (step, ()) = tokio::join!(connects.finish_phone(HOME, &login), gateway.follow_to(next));
    let PhoneStep::Done(ConnectStep::Connected(connection)) = step.unwrap() else {
        panic!("not connected");
    };
    assert_eq!(connection.session.level, Level::Mfa);
    let replayed = connects.finish_phone(HOME, &login).await;
    assert!(
        matches!(replayed, Err(LoginError::UnknownAttempt)),
        "{replayed:?}"
    );
}

/// Invariant 10.
async fn the_store_alone_has_no_token(engine: Engine) {
    use sqlx::{Connection as _, Row as _};
    let scene = Scene::new(engine).await;
    let login = scene.begin().await;
    let prompt = scene.ask(&login).await;
    let mut connection = AnyConnection::connect(&scene.world.config.database)
        .await
        .unwrap();
    let query = "SELECT id, attempt_id, seed, ceremony FROM approvals";
    let row = sqlx::query(query).fetch_one(&mut connection).await.unwrap();
    let token = token(&prompt);
    let secret = token.expose().trim_start_matches("portcullis_");
    for column in ["id", "attempt_id", "seed", "ceremony"] {
        let text: String = row.try_get(column).unwrap();
        assert!(!text.contains(secret), "{column}");
        let bare = Secret::from(format!("portcullis_{text}"));
        over(scene.approvals().look(&bare).await);
    }
    for none in ["", "x", "portcullis_"] {
        over(scene.approvals().look(&none.into()).await);
        over(scene.approvals().deny(PHONE, &none.into()).await);
    }
}

impl Scene {
    /// The laptop's other address.
    async fn other_address(&self) -> IpAddr {
        let request = v1::ListDevicesRequest::default();
        let admin = self.world.control.admin();
        let devices = admin.list_devices(Request::new(request)).await.unwrap();
        let mut devices = devices.into_inner().devices.into_iter();
        let laptop = devices.find(|device| device.name == "laptop").unwrap();
        let mut addresses = laptop.addresses.iter().map(|text| text.parse().unwrap());
        addresses.find(|address| *address != self.laptop).unwrap()
    }
}
