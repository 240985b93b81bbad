//! Passkeys: what registers one, what a login with one is, and all that is refused.

use std::net::IpAddr;

use portcullis_control::{
    CeremonyId, Challenge, CreationChallengeResponse, Level, LoginError, LoginId, PasskeyChange,
    PasskeyError, Passkeys, PortalName, RequestChallengeResponse, SessionView,
};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use serde_json::Value;
use tonic::Request;

use crate::authenticator::Authenticator;
use crate::fixture::{Account, Engine, PASSWORD, World};
use crate::mfa;

pub(crate) const NAME: &str = "login.example.com";
pub(crate) const ORIGIN: &str = "https://login.example.com:8443";

crate::on_both!(
    a_passkey_is_registered_and_logs_in_phishing_resistant,
    browsers_are_asked_to_verify_the_user,
    registration_needs_a_fresh_login_at_the_highest_level,
    registration_without_user_verification_is_refused,
    login_without_user_verification_is_refused,
    another_users_passkey_is_refused,
    no_answer_counts_twice,
    an_answer_to_another_challenge_is_refused,
    ceremonies_end_after_five_minutes,
    a_counter_that_goes_backwards_blocks_the_passkey,
    answers_that_overtake_each_other_block_nothing,
    other_origins_are_refused,
    another_rp_id_is_refused,
    two_ceremonies_at_once_survive_a_restart,
    a_ceremony_belongs_to_its_device,
    a_passkey_is_the_second_step_of_a_login,
    where_the_location_allows_no_passkeys_none_logs_in,
    where_the_location_requires_passkeys_they_alone_log_in,
    passkeys_are_renamed_and_removed,
    removing_a_passkey_ends_other_sessions_where_wished,
    one_authenticator_is_registered_once,
    a_disabled_user_has_no_passkey_login,
    refused_answers_delay_the_device_and_nobody_else,
    a_device_holds_few_ceremonies,
);

/// Alice, signed in, and an authenticator of hers that is not registered yet.
struct Scene {
    world: World,
    alice: Account,
    from: IpAddr,
    key: Authenticator,
}

impl Scene {
    async fn new(engine: Engine) -> Self {
        let (world, alice, from) = World::with_alice(engine).await;
        world.log_in(from, &alice).await.unwrap();
        Self {
            world,
            alice,
            from,
            key: Authenticator::new("key", ORIGIN, NAME),
        }
    }

    /// The same with the authenticator registered, and the session ended.
    async fn registered(engine: Engine) -> Self {
        let mut scene = Self::new(engine).await;
        scene.register().await.unwrap();
        let ended = scene.world.control.logins().end(scene.from).await.unwrap();
        assert!(ended.is_some());
        scene
    }

    fn passkeys(&self) -> Passkeys {
        passkeys(&self.world)
    }

    async fn register(&mut self) -> Result<PasskeyChange, PasskeyError> {
        register(&self.world, self.from, &mut self.key).await
    }

    async fn begin(&self) -> (CeremonyId, Value) {
        unpack_login(self.passkeys().begin_login(self.from, None).await.unwrap())
    }

    async fn finish(
        &self,
        ceremony: &CeremonyId,
        answer: &Value,
    ) -> Result<SessionView, PasskeyError> {
        finish(&self.world, self.from, None, ceremony, answer).await
    }

    async fn log_in(&mut self) -> Result<SessionView, PasskeyError> {
        let (ceremony, options) = self.begin().await;
        let answer = self.key.get(&options);
        self.finish(&ceremony, &answer).await
    }

    async fn has_session(&self) -> bool {
        let current = self.world.control.logins().current(self.from).await;
        current.unwrap().is_some()
    }

    async fn audited(&self, action: &str) -> Vec<v1::AuditRecord> {
        let mut records = self.world.audit().await;
        records.retain(|record| record.action == action);
        records
    }
}

pub(crate) fn passkeys(world: &World) -> Passkeys {
    let name = PortalName::parse(NAME).unwrap();
    world.control.passkeys(name, &[8443]).unwrap()
}

fn unpack(challenge: Challenge<CreationChallengeResponse>) -> (CeremonyId, Value) {
    let options = serde_json::to_value(&challenge.options).unwrap();
    (challenge.ceremony, options)
}

fn unpack_login(challenge: Challenge<RequestChallengeResponse>) -> (CeremonyId, Value) {
    let options = serde_json::to_value(&challenge.options).unwrap();
    (challenge.ceremony, options)
}

pub(crate) async fn register(
    world: &World,
    from: IpAddr,
    key: &mut Authenticator,
) -> Result<PasskeyChange, PasskeyError> {
    let (ceremony, options) = unpack(passkeys(world).begin_registration(from).await?);
    let made = serde_json::from_value(key.create(&options)).unwrap();
    passkeys(world)
        .finish_registration(from, &ceremony, "My key", &made, false)
        .await
}

async fn finish(
    world: &World,
    from: IpAddr,
    attempt: Option<&LoginId>,
    ceremony: &CeremonyId,
    answer: &Value,
) -> Result<SessionView, PasskeyError> {
    let answer = serde_json::from_value(answer.clone()).unwrap();
    passkeys(world)
        .finish_login(from, attempt, ceremony, &answer)
        .await
}

async fn a_passkey_is_registered_and_logs_in_phishing_resistant(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let added = scene.register().await.unwrap();
    assert_eq!(added.passkey.name, "My key");
    assert_eq!(added.passkey.last_used_ms, None);
    assert_eq!(scene.audited("passkey.add").await[0].actor, "user:alice");

    scene.world.advance_s(60);
    let session = scene.log_in().await.unwrap();
    assert_eq!(session.level, Level::PhishingResistant);
    assert_eq!(session.authenticated_at_ms, scene.world.now_ms());
    assert_eq!(
        (session.user.as_str(), session.device.as_str()),
        ("alice", "laptop")
    );
    let list = scene.passkeys().list(scene.from).await.unwrap();
    assert_eq!(list.change_needs, None);
    assert_eq!(list.passkeys.len(), 1);
    assert_eq!(list.passkeys[0].last_used_ms, Some(scene.world.now_ms()));
    // And again, with a counter that grew.
    scene.log_in().await.unwrap();
    assert_eq!(scene.world.sessions().await.len(), 3, "one for each login");
}

async fn browsers_are_asked_to_verify_the_user(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let begun = scene.passkeys().begin_registration(scene.from).await;
    let (_, options) = unpack(begun.unwrap());
    let options = &options["publicKey"];
    assert_eq!(
        options["authenticatorSelection"]["userVerification"],
        "required"
    );
    assert_eq!(options["rp"]["id"], NAME);
    assert_eq!(options["timeout"], 300_000);
    assert!(matches!(
        options["attestation"].as_str(),
        None | Some("none")
    ));
    assert_eq!(
        options["excludeCredentials"].as_array().map_or(0, Vec::len),
        0
    );

    scene.register().await.unwrap();
    let (_, options) = scene.begin().await;
    let options = &options["publicKey"];
    assert_eq!(options["userVerification"], "required");
    assert_eq!(options["rpId"], NAME);
    assert_eq!(options["timeout"], 300_000);
    assert_eq!(options["allowCredentials"].as_array().unwrap().len(), 1);

    // Who holds one already is told not to make another.
    scene.log_in().await.unwrap();
    let begun = scene.passkeys().begin_registration(scene.from).await;
    let (_, options) = unpack(begun.unwrap());
    let excluded = &options["publicKey"]["excludeCredentials"];
    assert_eq!(excluded.as_array().unwrap().len(), 1);
}

async fn registration_needs_a_fresh_login_at_the_highest_level(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    scene.world.advance_s(10 * 60 + 1);
    let stale = scene.register().await.unwrap_err();
    assert!(matches!(stale, PasskeyError::Stale { needed: Level::Mfa }));
    scene.world.log_in(scene.from, &scene.alice).await.unwrap();
    // Begun in time, finished a little later: that is fresh enough.
    scene.world.advance_s(9 * 60 + 59);
    let begun = scene.passkeys().begin_registration(scene.from).await;
    let (ceremony, options) = unpack(begun.unwrap());
    let begun = scene.passkeys().begin_registration(scene.from).await;
    let (second, later) = unpack(begun.unwrap());
    scene.world.advance_s(60);
    let made = serde_json::from_value(scene.key.create(&options)).unwrap();
    let passkeys = scene.passkeys();
    passkeys
        .finish_registration(scene.from, &ceremony, "One", &made, false)
        .await
        .unwrap();

    // From now on password and code are below the account's highest level, also for what was begun
    // before, and however fresh they are.
    let mut two = Authenticator::new("two", ORIGIN, NAME);
    let made = serde_json::from_value(two.create(&later)).unwrap();
    let late = passkeys.finish_registration(scene.from, &second, "Two", &made, false);
    assert!(matches!(
        late.await.unwrap_err(),
        PasskeyError::Stale { .. }
    ));
    scene.world.log_in(scene.from, &scene.alice).await.unwrap();
    let low = scene.register().await.unwrap_err();
    let needed = Level::PhishingResistant;
    assert!(matches!(low, PasskeyError::Stale { needed: n } if n == needed));
    let list = passkeys.list(scene.from).await.unwrap();
    assert_eq!(list.change_needs, Some(needed));
    let removed = passkeys.remove(scene.from, &list.passkeys[0].id, false);
    assert!(matches!(
        removed.await.unwrap_err(),
        PasskeyError::Stale { .. }
    ));
    scene.log_in().await.unwrap();
    let mut another = Authenticator::new("another", ORIGIN, NAME);
    register(&scene.world, scene.from, &mut another)
        .await
        .unwrap();

    // A session that has ended meanwhile is none.
    let begun = passkeys.begin_registration(scene.from).await;
    let (ceremony, options) = unpack(begun.unwrap());
    scene.world.control.logins().end(scene.from).await.unwrap();
    let mut third = Authenticator::new("third", ORIGIN, NAME);
    let made = serde_json::from_value(third.create(&options)).unwrap();
    let ended = passkeys.finish_registration(scene.from, &ceremony, "Three", &made, false);
    assert!(matches!(ended.await.unwrap_err(), PasskeyError::NoSession));
    let none = passkeys.begin_registration(scene.from).await.unwrap_err();
    assert!(matches!(none, PasskeyError::NoSession));
}

async fn registration_without_user_verification_is_refused(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    scene.key.verifies = false;
    let refused = scene.register().await.unwrap_err();
    assert!(matches!(refused, PasskeyError::NotVerified), "{refused:?}");
    let list = scene.passkeys().list(scene.from).await.unwrap();
    assert!(list.passkeys.is_empty());
}

async fn login_without_user_verification_is_refused(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    scene.key.verifies = false;
    let refused = scene.log_in().await.unwrap_err();
    assert!(matches!(refused, PasskeyError::NotVerified), "{refused:?}");
    assert!(!scene.has_session().await);
    assert_eq!(scene.audited("login.refuse").await.len(), 1);
    scene.key.verifies = true;
    scene.log_in().await.unwrap();
}

async fn another_users_passkey_is_refused(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    let bob = scene.world.user("bob").await;
    let device = scene.world.device("desktop", "bob").await.device.unwrap();
    let desk: IpAddr = device.addresses[0].parse().unwrap();
    scene.world.log_in(desk, &bob).await.unwrap();
    let mut bobs = Authenticator::new("bobs", ORIGIN, NAME);
    register(&scene.world, desk, &mut bobs).await.unwrap();

    // Bob's passkey, on the device of Alice.
    let (ceremony, options) = scene.begin().await;
    let refused = scene.finish(&ceremony, &bobs.get(&options)).await;
    assert!(matches!(refused, Err(PasskeyError::Refused)), "{refused:?}");
    // The id of hers with a signature of his.
    let (ceremony, options) = scene.begin().await;
    bobs.id.clone_from(&scene.key.id);
    let refused = scene.finish(&ceremony, &bobs.get(&options)).await;
    assert!(matches!(refused, Err(PasskeyError::Refused)), "{refused:?}");
    // Her own, of which the authenticator says that it is another user's.
    scene.key.user_handle = Some("AAAAAAAAAAAAAAAAAAAAAA".to_owned());
    let refused = scene.log_in().await;
    assert!(matches!(refused, Err(PasskeyError::Refused)), "{refused:?}");
    assert!(!scene.has_session().await);
}

async fn no_answer_counts_twice(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    let (ceremony, options) = scene.begin().await;
    let answer = scene.key.get(&options);
    scene.finish(&ceremony, &answer).await.unwrap();
    let replayed = scene.finish(&ceremony, &answer).await;
    assert!(matches!(replayed, Err(PasskeyError::UnknownCeremony)));
    // Nor does a right answer after a wrong one.
    let (ceremony, options) = scene.begin().await;
    let mut wrong = answer.clone();
    wrong["response"]["signature"] = "AAAA".into();
    assert!(scene.finish(&ceremony, &wrong).await.is_err());
    let answer = scene.key.get(&options);
    let late = scene.finish(&ceremony, &answer).await;
    assert!(matches!(late, Err(PasskeyError::UnknownCeremony)));
    // Nor is a challenge for a login good for a registration.
    let (ceremony, options) = scene.begin().await;
    let made = serde_json::from_value(scene.key.create(&options)).unwrap();
    let passkeys = scene.passkeys();
    let other = passkeys.finish_registration(scene.from, &ceremony, "x", &made, false);
    assert!(matches!(other.await, Err(PasskeyError::UnknownCeremony)));
}

async fn an_answer_to_another_challenge_is_refused(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    let (_, options) = scene.begin().await;
    let answer = scene.key.get(&options);
    let (ceremony, _) = scene.begin().await;
    let refused = scene.finish(&ceremony, &answer).await;
    assert!(matches!(refused, Err(PasskeyError::Refused)), "{refused:?}");
    assert!(!scene.has_session().await);
}

async fn ceremonies_end_after_five_minutes(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    let (ceremony, options) = scene.begin().await;
    let answer = scene.key.get(&options);
    scene.world.advance_s(300);
    let late = scene.finish(&ceremony, &answer).await;
    assert!(matches!(late, Err(PasskeyError::UnknownCeremony)));
    let (ceremony, options) = scene.begin().await;
    let answer = scene.key.get(&options);
    scene.world.advance_s(299);
    scene.finish(&ceremony, &answer).await.unwrap();
}

async fn a_counter_that_goes_backwards_blocks_the_passkey(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    scene.world.advance_s(1);
    scene.log_in().await.unwrap();
    scene.world.control.logins().end(scene.from).await.unwrap();
    scene.world.advance_s(1);
    // A copy that was made before the last use.
    scene.key.counter -= 1;
    let refused = scene.log_in().await.unwrap_err();
    assert!(matches!(refused, PasskeyError::Copied), "{refused:?}");
    assert!(!scene.has_session().await);
    let blocked = scene.audited("passkey.block").await;
    assert_eq!(blocked.len(), 1);
    assert_eq!(blocked[0].actor, "user:alice");
    // It stays blocked, whatever it counts, and a login below it is the highest there is.
    scene.key.counter += 100;
    let gone = scene.passkeys().begin_login(scene.from, None).await;
    assert!(matches!(gone.unwrap_err(), PasskeyError::NoPasskey));
    scene.world.advance_s(30);
    scene.world.log_in(scene.from, &scene.alice).await.unwrap();
    let list = scene.passkeys().list(scene.from).await.unwrap();
    assert!(list.passkeys[0].blocked);
    assert_eq!(list.change_needs, None);
    let id = list.passkeys[0].id.clone();
    let removed = scene.passkeys().remove(scene.from, &id, false).await;
    assert!(removed.unwrap().passkey.blocked);
}

async fn answers_that_overtake_each_other_block_nothing(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    let ((first, a), (second, b)) = (scene.begin().await, scene.begin().await);
    let (a, b) = (scene.key.get(&a), scene.key.get(&b));
    scene.finish(&second, &b).await.unwrap();
    let overtaken = scene.finish(&first, &a).await;
    assert!(
        matches!(overtaken, Err(PasskeyError::Refused)),
        "{overtaken:?}"
    );
    assert!(scene.audited("passkey.block").await.is_empty());
    scene.world.advance_s(1);
    scene.log_in().await.unwrap();
}

async fn other_origins_are_refused(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    scene.log_in().await.unwrap();
    for origin in [
        "https://evil.example:8443",
        "http://login.example.com:8443",
        "https://login.example.com",
        "https://login.example.com:9443",
        "https://sub.login.example.com:8443",
        "https://example.com:8443",
    ] {
        scene.world.advance_s(3600);
        scene.key.origin = origin.to_owned();
        let refused = scene.log_in().await.unwrap_err();
        assert!(matches!(refused, PasskeyError::Refused), "{origin}");
        scene.key.origin = ORIGIN.to_owned();
        scene.log_in().await.unwrap();
        let mut another = Authenticator::new("another", origin, NAME);
        let refused = register(&scene.world, scene.from, &mut another).await;
        assert!(matches!(refused, Err(PasskeyError::Refused)), "{origin}");
    }
}

async fn another_rp_id_is_refused(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    scene.key.rp_id = "example.com".to_owned();
    let refused = scene.log_in().await.unwrap_err();
    assert!(matches!(refused, PasskeyError::Refused), "{refused:?}");
    scene.key.rp_id = NAME.to_owned();
    scene.log_in().await.unwrap();
    let mut another = Authenticator::new("another", ORIGIN, "example.com");
    let refused = register(&scene.world, scene.from, &mut another).await;
    assert!(matches!(refused, Err(PasskeyError::Refused)), "{refused:?}");
}

async fn two_ceremonies_at_once_survive_a_restart(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    // A passkey that does not count, as those that are synchronised.
    (scene.key.counter, scene.key.step) = (0, 0);
    let begun = scene.passkeys().begin_registration(scene.from).await;
    let (ceremony, options) = unpack(begun.unwrap());
    scene.world.reopen().await;
    let made = serde_json::from_value(scene.key.create(&options)).unwrap();
    let passkeys = scene.passkeys();
    passkeys
        .finish_registration(scene.from, &ceremony, "Mine", &made, false)
        .await
        .unwrap();
    drop(passkeys);
    let ((first, a), (second, b)) = (scene.begin().await, scene.begin().await);
    scene.world.reopen().await;
    let (a, b) = (scene.key.get(&a), scene.key.get(&b));
    scene.finish(&second, &b).await.unwrap();
    scene.finish(&first, &a).await.unwrap();
}

async fn a_ceremony_belongs_to_its_device(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    let phone = scene.world.device("phone", "alice").await.device.unwrap();
    let phone: IpAddr = phone.addresses[0].parse().unwrap();
    let (ceremony, options) = scene.begin().await;
    let answer = scene.key.get(&options);
    let elsewhere = finish(&scene.world, phone, None, &ceremony, &answer).await;
    assert!(matches!(elsewhere, Err(PasskeyError::UnknownCeremony)));
    let nowhere: IpAddr = "10.77.0.200".parse().unwrap();
    let elsewhere = finish(&scene.world, nowhere, None, &ceremony, &answer).await;
    assert!(matches!(elsewhere, Err(PasskeyError::UnknownCeremony)));
    let unknown = scene.passkeys().begin_login(nowhere, None).await;
    assert!(matches!(
        unknown.unwrap_err(),
        PasskeyError::Login(LoginError::UnknownDevice)
    ));
    // That was no use of it.
    scene.finish(&ceremony, &answer).await.unwrap();
}

async fn a_passkey_is_the_second_step_of_a_login(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    let attempt = scene
        .world
        .begin(scene.from, "alice", PASSWORD)
        .await
        .unwrap();
    let passkeys = scene.passkeys();
    let begun = passkeys.begin_login(scene.from, Some(&attempt)).await;
    let (ceremony, options) = unpack_login(begun.unwrap());
    let answer = scene.key.get(&options);
    // It is a step of this login, and of no other.
    let alone = scene.finish(&ceremony, &answer).await;
    assert!(matches!(alone, Err(PasskeyError::UnknownCeremony)));
    let session = finish(&scene.world, scene.from, Some(&attempt), &ceremony, &answer);
    assert_eq!(session.await.unwrap().level, Level::PhishingResistant);
    // Which is over with it.
    let code = scene.alice.code(scene.world.now_ms());
    let logins = scene.world.control.logins();
    let spent = logins.totp(scene.from, &attempt, &code).await;
    assert!(matches!(spent, Err(LoginError::UnknownAttempt)));
    let spent = passkeys.begin_login(scene.from, Some(&attempt)).await;
    assert!(matches!(
        spent.unwrap_err(),
        PasskeyError::Login(LoginError::UnknownAttempt)
    ));
}

async fn where_the_location_allows_no_passkeys_none_logs_in(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    let (ceremony, options) = scene.begin().await;
    let answer = scene.key.get(&options);
    mfa::set(&scene.world, mfa::factors(&["password", "totp"]))
        .await
        .unwrap();
    // Not even one that was asked for before.
    let refused = scene.finish(&ceremony, &answer).await;
    assert!(matches!(refused, Err(PasskeyError::Refused)));
    let refused = scene.log_in().await;
    assert!(matches!(refused, Err(PasskeyError::Refused)));
    assert!(!scene.has_session().await);
}

async fn where_the_location_requires_passkeys_they_alone_log_in(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    mfa::set(&scene.world, mfa::require(Level::PhishingResistant))
        .await
        .unwrap();
    let other = scene.world.log_in(scene.from, &scene.alice).await;
    assert!(other.is_err());
    assert!(!scene.has_session().await);
    let session = scene.log_in().await.unwrap();
    assert_eq!(session.level, Level::PhishingResistant);
    // The last one stays: nothing else would sign her in here.
    let passkeys = scene.passkeys();
    let list = passkeys.list(scene.from).await.unwrap();
    let kept = passkeys.remove(scene.from, &list.passkeys[0].id, false);
    let kept = kept.await;
    assert!(
        matches!(&kept, Err(PasskeyError::LastWay { location }) if location == "office"),
        "{kept:?}"
    );
}

async fn passkeys_are_renamed_and_removed(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    scene.log_in().await.unwrap();
    let passkeys = scene.passkeys();
    let id = passkeys.list(scene.from).await.unwrap().passkeys[0]
        .id
        .clone();
    let renamed = passkeys.rename(scene.from, &id, " Blue key ").await;
    assert_eq!(renamed.unwrap().name, "Blue key");
    let bad = passkeys.rename(scene.from, &id, "a\nb").await;
    assert!(matches!(bad, Err(PasskeyError::Invalid(_))));
    let detail = &scene.audited("passkey.rename").await[0].detail;
    assert!(detail.contains("Blue key") && detail.contains("My key"));

    // Another user has no hand in it.
    let bob = scene.world.user("bob").await;
    let device = scene.world.device("desktop", "bob").await.device.unwrap();
    let desk: IpAddr = device.addresses[0].parse().unwrap();
    scene.world.log_in(desk, &bob).await.unwrap();
    assert!(passkeys.list(desk).await.unwrap().passkeys.is_empty());
    let theirs = passkeys.remove(desk, &id, false).await;
    assert!(matches!(theirs, Err(PasskeyError::UnknownPasskey)));
    let theirs = passkeys.rename(desk, &id, "x").await;
    assert!(matches!(theirs, Err(PasskeyError::UnknownPasskey)));

    // Removed while it is being used, it opens nothing any more.
    let (ceremony, options) = scene.begin().await;
    let answer = scene.key.get(&options);
    passkeys.remove(scene.from, &id, false).await.unwrap();
    assert_eq!(scene.audited("passkey.remove").await.len(), 1);
    let gone = scene.finish(&ceremony, &answer).await;
    assert!(matches!(gone, Err(PasskeyError::Refused)), "{gone:?}");
    let none = passkeys.begin_login(scene.from, None).await.unwrap_err();
    assert!(matches!(none, PasskeyError::NoPasskey));
}

async fn removing_a_passkey_ends_other_sessions_where_wished(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    let phone = scene.world.device("phone", "alice").await.device.unwrap();
    let phone: IpAddr = phone.addresses[0].parse().unwrap();
    // Another code.
    scene.world.advance_s(30);
    scene.world.log_in(phone, &scene.alice).await.unwrap();
    scene.log_in().await.unwrap();
    let passkeys = scene.passkeys();
    let id = passkeys.list(scene.from).await.unwrap().passkeys[0]
        .id
        .clone();
    let removed = passkeys.remove(scene.from, &id, true).await.unwrap();
    assert_eq!((removed.ended, removed.pending), (1, false));
    let logins = scene.world.control.logins();
    assert!(logins.current(phone).await.unwrap().is_none());
    assert!(scene.has_session().await);
}

async fn one_authenticator_is_registered_once(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    scene.log_in().await.unwrap();
    // One that does not heed excludeCredentials: the library or the store refuses it.
    let again = scene.register().await;
    assert!(
        matches!(again, Err(PasskeyError::Taken | PasskeyError::Refused)),
        "{again:?}"
    );
    // Nor for another account.
    let bob = scene.world.user("bob").await;
    let device = scene.world.device("desktop", "bob").await.device.unwrap();
    let desk: IpAddr = device.addresses[0].parse().unwrap();
    scene.world.log_in(desk, &bob).await.unwrap();
    let again = register(&scene.world, desk, &mut scene.key).await;
    assert!(matches!(again, Err(PasskeyError::Taken)), "{again:?}");
}

async fn a_disabled_user_has_no_passkey_login(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    let (ceremony, options) = scene.begin().await;
    let request = v1::SetUserDisabledRequest {
        name: "alice".into(),
        disabled: true,
    };
    let admin = scene.world.control.admin();
    admin
        .set_user_disabled(Request::new(request))
        .await
        .unwrap();
    let refused = scene.log_in().await;
    assert!(matches!(refused, Err(PasskeyError::Refused)), "{refused:?}");
    assert!(!scene.has_session().await);
    // What was begun before is over, also once the user is enabled again.
    let request = v1::SetUserDisabledRequest {
        name: "alice".into(),
        disabled: false,
    };
    let enabled = admin.set_user_disabled(Request::new(request)).await;
    enabled.unwrap();
    let answer = scene.key.get(&options);
    let refused = scene.finish(&ceremony, &answer).await;
    let over = matches!(refused, Err(PasskeyError::UnknownCeremony));
    assert!(over, "{refused:?}");
    assert!(!scene.has_session().await);
}

async fn refused_answers_delay_the_device_and_nobody_else(engine: Engine) {
    let mut scene = Scene::registered(engine).await;
    scene.key.verifies = false;
    for _ in 0..5 {
        assert!(scene.log_in().await.is_err());
    }
    scene.key.verifies = true;
    let delayed = scene.log_in().await.unwrap_err();
    assert!(matches!(
        delayed,
        PasskeyError::Login(LoginError::Delayed { .. })
    ));
    let phone = scene.world.device("phone", "alice").await.device.unwrap();
    let phone: IpAddr = phone.addresses[0].parse().unwrap();
    // Another code, and after the delay of the device.
    scene.world.advance_s(30);
    scene.world.log_in(phone, &scene.alice).await.unwrap();
    scene.log_in().await.unwrap();
}

async fn a_device_holds_few_ceremonies(engine: Engine) {
    let scene = Scene::registered(engine).await;
    for _ in 0..16 {
        scene.begin().await;
    }
    let busy = scene.passkeys().begin_login(scene.from, None).await;
    assert!(matches!(busy.unwrap_err(), PasskeyError::Busy { .. }));
    scene.world.advance_s(300);
    scene.begin().await;
}

/// Whoever can write to the database plants no passkey.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passkey_moved_to_another_account_opens_nothing() {
    let scene = Scene::registered(Engine::Sqlite).await;
    scene.world.user("bob").await;
    let device = scene.world.device("desktop", "bob").await.device.unwrap();
    let desk: IpAddr = device.addresses[0].parse().unwrap();
    let url = scene.world.config.database.clone();
    let pool = sqlx::AnyPool::connect(&url).await.unwrap();
    sqlx::query(
        "UPDATE webauthn_credentials SET user_id = (SELECT id FROM users WHERE name = 'bob')",
    )
    .execute(&pool)
    .await
    .unwrap();
    let moved = scene.passkeys().begin_login(desk, None).await.unwrap_err();
    assert!(matches!(
        moved,
        PasskeyError::Login(LoginError::Internal(_))
    ));
}
