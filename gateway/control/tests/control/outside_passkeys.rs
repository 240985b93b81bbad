//! A passkey after the password, from outside of the tunnel.

use std::net::IpAddr;

use portcullis_control::{
    Browser, Factor, FactorSet, Level, LoginError, Outside, OutsideStep, PasskeyError, Secret,
    Stranger,
};
use serde_json::Value;

use crate::authenticator::Authenticator;
use crate::fixture::{Account, Engine, PASSWORD, World};
use crate::outside::set_factors;
use crate::passkeys::{NAME, ORIGIN, passkeys, register};

crate::on_both!(
    a_passkey_after_the_password_opens_what_wants_one,
    there_is_no_challenge_without_the_password,
    what_is_no_proof_opens_nothing,
    no_challenge_is_answered_twice_and_the_newest_counts,
    a_copied_passkey_is_blocked,
    a_removed_passkey_takes_its_logins_with_it,
    devices_that_want_codes_are_not_opened_by_a_passkey,
    wrong_answers_are_counted_with_the_codes,
    a_challenge_survives_a_restart,
);

const HOME: Stranger = Stranger {
    network: IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7)),
};
const PASSKEYS: &[&str] = &["passkey"];

/// Alice with a registered authenticator, signed out.
struct Scene {
    world: World,
    alice: Account,
    key: Authenticator,
    laptop: IpAddr,
}

impl Scene {
    async fn new(engine: Engine) -> Self {
        let (world, alice, laptop) = World::with_alice(engine).await;
        world.log_in(laptop, &alice).await.unwrap();
        let mut key = Authenticator::new("key", ORIGIN, NAME);
        register(&world, laptop, &mut key).await.unwrap();
        world.control.logins().end(laptop).await.unwrap().unwrap();
        Self {
            world,
            alice,
            key,
            laptop,
        }
    }

    /// The same at a location that accepts passkeys and nothing else.
    async fn strict(engine: Engine) -> Self {
        let scene = Self::new(engine).await;
        set_factors(&scene.world, "office", PASSKEYS, Level::PhishingResistant).await;
        scene
    }

    fn outside(&self) -> Outside {
        let outside = self.world.control.outside();
        outside.with_passkeys(passkeys(&self.world))
    }

    async fn begin(&self) -> (Browser, FactorSet) {
        match self.try_begin(&self.alice.name, PASSWORD).await.unwrap() {
            (browser, OutsideStep::Wants { factors, .. }) => (browser, factors),
            (_, step) => panic!("{step:?}"),
        }
    }

    async fn try_begin(
        &self,
        name: &str,
        password: &str,
    ) -> Result<(Browser, OutsideStep), LoginError> {
        let password = Secret::from(password);
        self.outside().begin(HOME, name, &password).await
    }

    async fn ask(&self, browser: &Browser) -> Value {
        let options = self.outside().begin_passkey(browser).await.unwrap();
        serde_json::to_value(&options).unwrap()
    }

    async fn answer(&self, browser: &Browser, answer: &Value) -> Result<OutsideStep, PasskeyError> {
        let answer = serde_json::from_value(answer.clone()).unwrap();
        self.outside().finish_passkey(HOME, browser, &answer).await
    }

    /// Both steps, to the choice.
    async fn both(&mut self) -> Browser {
        let (browser, _) = self.begin().await;
        let options = self.ask(&browser).await;
        let answer = self.key.get(&options);
        let step = self.answer(&browser, &answer).await.unwrap();
        assert!(matches!(step, OutsideStep::Choose(_)), "{step:?}");
        browser
    }
}

fn only(factor: Factor) -> FactorSet {
    [factor].into_iter().collect()
}

async fn a_passkey_after_the_password_opens_what_wants_one(engine: Engine) {
    let mut scene = Scene::strict(engine).await;
    // Where the portal has no name, nothing can be asked for, and nothing goes on.
    let nameless = scene.world.control.outside();
    let refused = nameless.begin(HOME, "alice", &Secret::from(PASSWORD)).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");

    let (_, factors) = scene.begin().await;
    assert_eq!(factors, only(Factor::Passkey));
    let browser = scene.both().await;
    let sessions = scene.world.sessions().await;
    assert!(sessions.iter().all(|session| session.state != "live"));
    let outside = scene.outside();
    let OutsideStep::Choose(choices) = outside.step(&browser).await.unwrap() else {
        panic!("no choice");
    };
    let opened = outside.choose(HOME, &browser, &choices[0].id).await;
    assert_eq!(opened.unwrap().session.level, Level::PhishingResistant);
    let current = scene.world.control.logins().current(scene.laptop).await;
    assert_eq!(current.unwrap().unwrap().level, Level::PhishingResistant);
}

async fn there_is_no_challenge_without_the_password(engine: Engine) {
    let scene = Scene::strict(engine).await;
    let stranger = Browser::new().unwrap();
    let refused = scene.outside().begin_passkey(&stranger).await;
    assert!(
        matches!(
            refused,
            Err(PasskeyError::Login(LoginError::UnknownAttempt))
        ),
        "{refused:?}"
    );
    // Who has no passkey hears the same as somebody whose password is wrong.
    scene.world.user("bob").await;
    scene.world.device("bobs", "bob").await;
    for (name, password) in [("bob", PASSWORD), ("alice", "wrong"), ("nobody", PASSWORD)] {
        let refused = scene.try_begin(name, password).await;
        assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    }
}

async fn what_is_no_proof_opens_nothing(engine: Engine) {
    let mut scene = Scene::strict(engine).await;
    let (browser, _) = scene.begin().await;

    scene.key.verifies = false;
    let options = scene.ask(&browser).await;
    let answer = scene.key.get(&options);
    let refused = scene.answer(&browser, &answer).await;
    assert!(
        matches!(refused, Err(PasskeyError::NotVerified)),
        "{refused:?}"
    );
    scene.key.verifies = true;

    let origin = std::mem::replace(&mut scene.key.origin, "https://evil.example".into());
    let options = scene.ask(&browser).await;
    let answer = scene.key.get(&options);
    let refused = scene.answer(&browser, &answer).await;
    assert!(matches!(refused, Err(PasskeyError::Refused)), "{refused:?}");
    scene.key.origin = origin;

    let mut another = Authenticator::new("another", ORIGIN, NAME);
    let options = scene.ask(&browser).await;
    let refused = scene.answer(&browser, &another.get(&options)).await;
    assert!(matches!(refused, Err(PasskeyError::Refused)), "{refused:?}");

    let code = scene.alice.code(scene.world.now_ms());
    let refused = scene.outside().totp(HOME, &browser, &code).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");

    // The right one still does, by the same login.
    let options = scene.ask(&browser).await;
    let answer = scene.key.get(&options);
    scene.answer(&browser, &answer).await.unwrap();
    let audit = scene.world.audit().await;
    let refusals = audit
        .iter()
        .filter(|record| record.action == "outside.refuse");
    assert_eq!(refusals.count(), 4);
}

async fn no_challenge_is_answered_twice_and_the_newest_counts(engine: Engine) {
    let mut scene = Scene::strict(engine).await;
    let (browser, _) = scene.begin().await;
    let older = scene.ask(&browser).await;
    let newer = scene.ask(&browser).await;
    let stale = scene.key.get(&older);
    let refused = scene.answer(&browser, &stale).await;
    assert!(matches!(refused, Err(PasskeyError::Refused)), "{refused:?}");
    // Which has spent the newer one as well.
    let late = scene.key.get(&newer);
    let refused = scene.answer(&browser, &late).await;
    assert!(
        matches!(refused, Err(PasskeyError::UnknownCeremony)),
        "{refused:?}"
    );
    let options = scene.ask(&browser).await;
    let answer = scene.key.get(&options);
    scene.answer(&browser, &answer).await.unwrap();
    // Neither a second time, nor by another login of the same account.
    let again = scene.answer(&browser, &answer).await;
    assert!(
        matches!(again, Err(PasskeyError::UnknownCeremony)),
        "{again:?}"
    );
    let (other, _) = scene.begin().await;
    scene.ask(&other).await;
    let replayed = scene.answer(&other, &answer).await;
    assert!(
        matches!(replayed, Err(PasskeyError::Refused)),
        "{replayed:?}"
    );
    let refused = scene.outside().begin_passkey(&browser).await;
    assert!(refused.is_err(), "its second factor is proven");
}

async fn a_copied_passkey_is_blocked(engine: Engine) {
    let mut scene = Scene::strict(engine).await;
    scene.key.counter = 100;
    scene.both().await;
    scene.world.advance_s(1);
    scene.key.counter = 7;
    let (browser, _) = scene.begin().await;
    let options = scene.ask(&browser).await;
    let answer = scene.key.get(&options);
    let refused = scene.answer(&browser, &answer).await;
    assert!(matches!(refused, Err(PasskeyError::Copied)), "{refused:?}");
    // It is good for nothing any more, and what was begun with it neither.
    let refused = scene.try_begin("alice", PASSWORD).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
}

async fn a_removed_passkey_takes_its_logins_with_it(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let browser = scene.both().await;
    let outside = scene.outside();
    outside.step(&browser).await.unwrap();

    let passkeys = passkeys(&scene.world);
    let begun = passkeys.begin_login(scene.laptop, None).await.unwrap();
    let options = serde_json::to_value(&begun.options).unwrap();
    let answer = serde_json::from_value(scene.key.get(&options)).unwrap();
    let inside = passkeys.finish_login(scene.laptop, None, &begun.ceremony, &answer);
    inside.await.unwrap();
    let list = passkeys.list(scene.laptop).await.unwrap();
    let removed = passkeys.remove(scene.laptop, &list.passkeys[0].id, false);
    removed.await.unwrap();
    let over = outside.step(&browser).await;
    assert!(matches!(over, Err(LoginError::UnknownAttempt)), "{over:?}");
}

async fn devices_that_want_codes_are_not_opened_by_a_passkey(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let browser = scene.both().await;
    let outside = scene.outside();
    let OutsideStep::Choose(choices) = outside.step(&browser).await.unwrap() else {
        panic!("no choice");
    };
    set_factors(&scene.world, "office", &["password", "totp"], Level::Mfa).await;
    let refused = outside.choose(HOME, &browser, &choices[0].id).await;
    assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    match outside.step(&browser).await.unwrap() {
        OutsideStep::Choose(choices) => assert!(choices.is_empty(), "{choices:?}"),
        step @ OutsideStep::Wants { .. } => panic!("{step:?}"),
    }
    // The next login is not asked for one.
    let (_, factors) = scene.begin().await;
    assert_eq!(factors, only(Factor::Totp));
}

async fn wrong_answers_are_counted_with_the_codes(engine: Engine) {
    let mut scene = Scene::strict(engine).await;
    let mut another = Authenticator::new("another", ORIGIN, NAME);
    let mut evaluated = 0;
    for _ in 0..20 {
        let (browser, _) = scene.begin().await;
        let options = scene.ask(&browser).await;
        match scene.answer(&browser, &another.get(&options)).await {
            Err(PasskeyError::Refused) => evaluated += 1,
            Err(PasskeyError::Login(LoginError::Delayed { .. })) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!((5..=6).contains(&evaluated), "{evaluated}");
    // They wear off, and who has the passkey comes in.
    scene.world.advance_s(3600);
    scene.both().await;
}

async fn a_challenge_survives_a_restart(engine: Engine) {
    let mut scene = Scene::strict(engine).await;
    let (browser, _) = scene.begin().await;
    let options = scene.ask(&browser).await;
    scene.world.reopen().await;
    let answer = scene.key.get(&options);
    scene.answer(&browser, &answer).await.unwrap();
}
