//! Logging in by a provider: what is taken from one, and all that is not.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::PrivateSigningKey as _;
use openidconnect::url::Url;
use portcullis_control::{
    Browser, Callback, Factor, Level, LoginStep, PortalName, Secret, SessionView, Sso,
    SsoConfigError, SsoError, Visit,
};
use portcullis_proto::v1::{self, admin_server::Admin as _};
use serde_json::{Value, json};
use tonic::{Code, Request, Status};

use crate::fixture::{Account, Engine, World, open};
use crate::rogue::{CLIENT, Key, Rogue, SECRET, part};

crate::on_both!(
    a_providers_word_opens_a_session,
    a_visit_survives_a_restart_and_is_good_once,
    two_visits_do_not_know_of_each_other,
    one_factor_there_wants_another_here,
    groups_follow_the_provider,
    linking,
    a_reset_voids_the_link_and_whoever_is_under_way,
    a_login_is_as_old_as_the_provider_says,
    what_a_provider_has_vouched_for_once_is_needed_from_then_on,
);

pub(crate) const SUBJECT: &str = "alice at the provider";
const NAME: &str = "login.example.com";

/// Alice's laptop, and a provider that knows her.
pub(crate) struct Setting {
    pub(crate) world: World,
    pub(crate) alice: Account,
    pub(crate) laptop: IpAddr,
    pub(crate) rogue: Rogue,
    pub(crate) key: Key,
    pub(crate) browser: Browser,
}

impl Setting {
    pub(crate) async fn new(engine: Engine) -> Self {
        let (mut world, alice, laptop) = World::with_alice(engine).await;
        let rogue = Rogue::start().await;
        let key = Key::new("first");
        rogue.publish(&[&key]);
        world.config.sso = vec![rogue.config(&world, "acme")];
        world.reopen().await;
        let setting = Self {
            world,
            alice,
            laptop,
            rogue,
            key,
            browser: Browser::new().unwrap(),
        };
        setting.link("alice", SUBJECT).await.unwrap();
        setting
    }

    pub(crate) fn sso(&self) -> Sso {
        sso(&self.world)
    }

    pub(crate) async fn link(
        &self,
        user: &str,
        subject: &str,
    ) -> Result<v1::RevocationStatus, Status> {
        let request = v1::SetUserSsoRequest {
            name: user.into(),
            provider: "acme".into(),
            subject: subject.into(),
            wait_ms: 0,
        };
        let admin = self.world.control.admin();
        Ok(admin
            .set_user_sso(Request::new(request))
            .await?
            .into_inner())
    }

    /// A good token for a visit.
    pub(crate) fn claims(&self, visit: &Visit) -> Value {
        let now_s = self.world.now_ms() / 1000;
        json!({
            "iss": self.rogue.issuer, "aud": CLIENT, "sub": SUBJECT, "nonce": param(visit, "nonce"),
            "iat": now_s, "exp": now_s + 300, "auth_time": now_s, "amr": ["pwd", "mfa"],
            "sid": "there-1",
        })
    }

    pub(crate) async fn begin(&self) -> Visit {
        let browser = &self.browser;
        let begun = self.sso().begin(self.laptop, "acme", None, browser).await;
        begun.unwrap()
    }

    /// Comes back with a code that the provider answers with this token.
    pub(crate) async fn back(&self, visit: &Visit, token: String) -> Result<LoginStep, SsoError> {
        self.rogue.answer(token);
        self.sso()
            .finish(self.laptop, "acme", &callback(visit), Some(&self.browser))
            .await
    }

    /// A whole login with changed claims.
    pub(crate) async fn log_in(
        &self,
        change: impl FnOnce(&mut Value),
    ) -> Result<LoginStep, SsoError> {
        let visit = self.begin().await;
        let mut claims = self.claims(&visit);
        change(&mut claims);
        self.back(&visit, self.key.sign(&claims)).await
    }

    pub(crate) async fn session(&self, change: impl FnOnce(&mut Value)) -> SessionView {
        self.log_in(change)
            .await
            .unwrap()
            .session()
            .expect("a session")
    }

    pub(crate) async fn live(&self) -> usize {
        let sessions = self.world.sessions().await;
        sessions
            .iter()
            .filter(|session| session.state == "live")
            .count()
    }

    pub(crate) async fn unlock(&self) {
        let name = "alice".into();
        let request = Request::new(v1::NameRequest { name });
        self.world
            .control
            .admin()
            .unlock_user(request)
            .await
            .unwrap();
    }

    pub(crate) async fn alices(&self) -> v1::User {
        let name = "alice".into();
        let request = Request::new(v1::NameRequest { name });
        let user = self.world.control.admin().get_user(request).await.unwrap();
        user.into_inner()
    }

    async fn set_factors(&self, factors: &[&str], require: Level) {
        let request = v1::SetLocationRequest {
            name: "office".into(),
            factors: Some(v1::FactorNames {
                names: factors.iter().map(|name| (*name).into()).collect(),
            }),
            require: Some(require.into()),
            ..Default::default()
        };
        let admin = self.world.control.admin();
        admin.set_location(Request::new(request)).await.unwrap();
    }
}

fn sso(world: &World) -> Sso {
    let name = PortalName::parse(NAME).unwrap();
    world.control.sso(name, &[8443, 443]).unwrap().unwrap()
}

pub(crate) fn param(visit: &Visit, name: &str) -> String {
    let url = Url::parse(&visit.url).unwrap();
    let mut pairs = url.query_pairs();
    let found = pairs.find(|(key, _)| key == name);
    found
        .unwrap_or_else(|| panic!("no {name} in {url}"))
        .1
        .into_owned()
}

pub(crate) fn callback(visit: &Visit) -> Callback {
    Callback {
        state: param(visit, "state"),
        code: Some(Secret::from("the-code")),
        ..Callback::default()
    }
}

async fn a_providers_word_opens_a_session(engine: Engine) {
    let setting = Setting::new(engine).await;
    assert_eq!(
        setting.sso().offered(setting.laptop).await.unwrap(),
        ["acme"]
    );
    let stranger = "192.0.2.1".parse().unwrap();
    assert!(setting.sso().offered(stranger).await.unwrap().is_empty());

    let visit = setting.begin().await;
    assert!(
        visit
            .url
            .starts_with(&format!("{}/auth?", setting.rogue.issuer))
    );
    assert_eq!(param(&visit, "response_type"), "code");
    assert_eq!(param(&visit, "code_challenge_method"), "S256");
    assert_eq!(param(&visit, "prompt"), "login");
    assert_eq!(param(&visit, "max_age"), "0");
    let redirect = "https://login.example.com:8443/login/sso/acme/callback";
    assert_eq!(param(&visit, "redirect_uri"), redirect);
    assert!(
        !visit.url.contains(visit.attempt.as_str()),
        "it is not the provider's to know"
    );

    let token = setting.key.sign(&setting.claims(&visit));
    let session = setting
        .back(&visit, token)
        .await
        .unwrap()
        .session()
        .unwrap();
    assert_eq!(
        (session.user.as_str(), session.level),
        ("alice", Level::Mfa)
    );
    let asked = setting.rogue.asked().pop().unwrap();
    assert!(
        asked.contains("code=the-code") && asked.contains("code_verifier="),
        "{asked}"
    );

    let audit = setting.world.audit().await;
    let begun = audit.iter().find(|record| record.action == "login.begin");
    let detail = &begun.unwrap().detail;
    assert!(
        detail.contains("\"acme\"") && detail.contains("\"sso\""),
        "{detail}"
    );

    let strong = |claims: &mut Value| claims["acr"] = json!("phr");
    assert_eq!(
        setting.session(strong).await.level,
        Level::PhishingResistant
    );
    assert_eq!(setting.alices().await.sso, [format!("acme:{SUBJECT}")]);
}

async fn a_visit_survives_a_restart_and_is_good_once(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    let visit = setting.begin().await;
    setting.world.reopen().await;
    let token = setting.key.sign(&setting.claims(&visit));
    setting.back(&visit, token.clone()).await.unwrap();
    let again = setting.back(&visit, token.clone()).await;
    assert!(matches!(again, Err(SsoError::UnknownVisit)), "{again:?}");

    // Also where the first answer was a wrong one: a code cannot be tried again.
    let visit = setting.begin().await;
    let wrong = setting.back(&visit, setting.key.sign(&json!({}))).await;
    assert!(matches!(wrong, Err(SsoError::Refused)), "{wrong:?}");
    let token = setting.key.sign(&setting.claims(&visit));
    let again = setting.back(&visit, token).await;
    assert!(matches!(again, Err(SsoError::UnknownVisit)), "{again:?}");

    let visit = setting.begin().await;
    setting.world.advance_s(301);
    let late = setting
        .back(&visit, setting.key.sign(&setting.claims(&visit)))
        .await;
    assert!(matches!(late, Err(SsoError::UnknownVisit)), "{late:?}");
}

async fn two_visits_do_not_know_of_each_other(engine: Engine) {
    let setting = Setting::new(engine).await;
    let (one, two) = (setting.begin().await, setting.begin().await);
    // The token of one is none for the other.
    let crossed = setting
        .back(&two, setting.key.sign(&setting.claims(&one)))
        .await;
    assert!(matches!(crossed, Err(SsoError::Refused)), "{crossed:?}");
    let token = setting.key.sign(&setting.claims(&one));
    setting.back(&one, token).await.unwrap().session().unwrap();

    // Another device can neither use a visit nor spend it.
    setting.world.user("bob").await;
    let phone = setting.world.device("phone", "bob").await.device.unwrap();
    let phone: IpAddr = phone.addresses[0].parse().unwrap();
    let visit = setting.begin().await;
    let token = setting.key.sign(&setting.claims(&visit));
    setting.rogue.answer(token.clone());
    let stolen = setting
        .sso()
        .finish(phone, "acme", &callback(&visit), Some(&setting.browser))
        .await;
    assert!(matches!(stolen, Err(SsoError::UnknownVisit)), "{stolen:?}");
    setting.back(&visit, token).await.unwrap();

    // Nor is Alice's account good on Bob's phone.
    let visit = setting
        .sso()
        .begin(phone, "acme", None, &setting.browser)
        .await
        .unwrap();
    setting
        .rogue
        .answer(setting.key.sign(&setting.claims(&visit)));
    let lent = setting
        .sso()
        .finish(phone, "acme", &callback(&visit), Some(&setting.browser))
        .await;
    assert!(matches!(lent, Err(SsoError::Refused)), "{lent:?}");
}

async fn one_factor_there_wants_another_here(engine: Engine) {
    let setting = Setting::new(engine).await;
    let unsaid = |claims: &mut Value| {
        claims.as_object_mut().unwrap().remove("amr");
    };
    let step = setting.log_in(unsaid).await.unwrap();
    let LoginStep::Wants {
        attempt, factors, ..
    } = step
    else {
        panic!("{step:?}");
    };
    assert!(factors.contains(Factor::Totp) && !factors.contains(Factor::Password));
    assert_eq!(setting.live().await, 0);
    let code = setting.alice.code(setting.world.now_ms());
    let logins = setting.world.control.logins();
    let step = logins.totp(setting.laptop, &attempt, &code).await.unwrap();
    assert_eq!(step.session().unwrap().level, Level::Mfa);

    // A second thing that one has is no second factor.
    setting
        .set_factors(&["sso", "totp", "password"], Level::Mfa)
        .await;
    let step = setting
        .log_in(|claims| claims["amr"] = json!(["hwk"]))
        .await;
    assert!(matches!(step, Err(SsoError::Refused)), "{step:?}");

    // Where that is not enough, the word of two factors is not either.
    setting
        .set_factors(&["sso", "passkey"], Level::PhishingResistant)
        .await;
    let step = setting.log_in(|_| {}).await.unwrap();
    assert!(matches!(step, LoginStep::Wants { factors, .. } if factors.names() == ["passkey"]));
    // Where nothing could follow, it leads nowhere.
    setting.set_factors(&["sso"], Level::Mfa).await;
    let step = setting.log_in(unsaid).await;
    assert!(matches!(step, Err(SsoError::Refused)), "{step:?}");
    setting.set_factors(&["password", "totp"], Level::Mfa).await;
    let step = setting
        .sso()
        .begin(setting.laptop, "acme", None, &setting.browser)
        .await;
    assert!(matches!(step, Err(SsoError::NotAllowed)), "{step:?}");
    assert!(
        setting
            .sso()
            .offered(setting.laptop)
            .await
            .unwrap()
            .is_empty()
    );
}

async fn groups_follow_the_provider(engine: Engine) {
    let setting = Setting::new(engine).await;
    let before = *setting.world.control.revisions().borrow();
    let told = json!(["sre", "no group of ours!", "oncall", "sre", 7]);
    setting.session(|claims| claims["groups"] = told).await;
    assert_eq!(setting.alices().await.groups, ["oncall", "sre", "staff"]);
    assert!(*setting.world.control.revisions().borrow() > before);
    // One that an administrator gave stays, whatever the provider says of it.
    setting
        .session(|claims| claims["groups"] = json!("staff"))
        .await;
    assert_eq!(setting.alices().await.groups, ["staff"]);
    setting.session(|_| {}).await;
    assert_eq!(setting.alices().await.groups, ["staff"]);
}

/// A thief with the phone is still signed in at the provider.
async fn a_reset_voids_the_link_and_whoever_is_under_way(engine: Engine) {
    let setting = Setting::new(engine).await;
    let visit = setting.begin().await;
    let request = v1::ResetFactorsRequest {
        name: "alice".into(),
        reason: "phone stolen".into(),
        ..Default::default()
    };
    let admin = setting.world.control.admin();
    admin.reset_factors(Request::new(request)).await.unwrap();
    let token = setting.key.sign(&setting.claims(&visit));
    let step = setting.back(&visit, token).await;
    assert!(matches!(step, Err(SsoError::UnknownVisit)), "{step:?}");
    assert!(setting.alices().await.sso.is_empty());
    let step = setting.log_in(|_| {}).await;
    assert!(matches!(step, Err(SsoError::Refused)), "{step:?}");

    // Disabling forgets who is under way as well, also for when the account comes back.
    setting.link("alice", SUBJECT).await.unwrap();
    let visit = setting.begin().await;
    for disabled in [true, false] {
        let request = v1::SetUserDisabledRequest {
            name: "alice".into(),
            disabled,
        };
        admin
            .set_user_disabled(Request::new(request))
            .await
            .unwrap();
    }
    let token = setting.key.sign(&setting.claims(&visit));
    let step = setting.back(&visit, token).await;
    assert!(matches!(step, Err(SsoError::UnknownVisit)), "{step:?}");
}

/// Otherwise a rule that wants a fresh login would take one of an hour ago.
async fn a_login_is_as_old_as_the_provider_says(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    setting.world.config.sso[0].max_age = Some(std::time::Duration::from_secs(3600));
    setting.world.reopen().await;
    let ago_s = 1800;
    let then_s = setting.world.now_ms() / 1000 - ago_s;
    let session = setting
        .session(|claims| claims["auth_time"] = json!(then_s))
        .await;
    assert_eq!(session.authenticated_at_ms, then_s * 1000);
}

/// Otherwise who has got hold of a weaker login there could change what the stronger one protects.
async fn what_a_provider_has_vouched_for_once_is_needed_from_then_on(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    let levels = [("amr:mfa", "mfa"), ("acr:phr", "phishing-resistant")];
    let levels = levels.map(|(value, level)| (value.to_owned(), level.to_owned()));
    setting.world.config.sso[0].levels = Some(levels.into());
    setting.world.reopen().await;
    let needs = async || {
        let own = setting.world.control.logins().self_service();
        own.factors(setting.laptop).await.unwrap().change_needs
    };
    setting.session(|_| ()).await;
    assert_eq!(needs().await, None);
    let strong = setting.session(|claims| claims["acr"] = json!("phr")).await;
    assert_eq!(strong.level, Level::PhishingResistant);
    assert_eq!(needs().await, None);
    setting.session(|_| ()).await;
    assert_eq!(needs().await, Some(Level::PhishingResistant));
    // An administrator's way out.
    setting.link("alice", "").await.unwrap();
    setting.link("alice", SUBJECT).await.unwrap();
    setting.session(|_| ()).await;
    assert_eq!(needs().await, None);
}

async fn linking(engine: Engine) {
    let setting = Setting::new(engine).await;
    setting
        .session(|claims| claims["groups"] = json!(["sre"]))
        .await;
    setting.world.user("bob").await;
    let taken = setting.link("bob", SUBJECT).await.unwrap_err();
    assert_eq!(taken.code(), Code::FailedPrecondition, "{taken}");
    assert_eq!(setting.live().await, 1);

    let unlinked = setting.link("alice", "").await.unwrap();
    assert_eq!(unlinked.sessions, 1);
    assert_eq!(setting.live().await, 0);
    assert_eq!(setting.alices().await.groups, ["staff"]);
    let step = setting.log_in(|_| {}).await;
    assert!(matches!(step, Err(SsoError::Refused)), "{step:?}");
    assert_eq!(
        setting.link("alice", "").await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    setting.link("bob", SUBJECT).await.unwrap();
    let audit = setting.world.audit().await;
    assert!(audit.iter().any(|record| record.action == "user.sso"));
}

/// One answer for all of them: neither the text nor anything else tells why.
#[tokio::test]
async fn no_other_token_is_taken() {
    let setting = Setting::new(Engine::Sqlite).await;
    let now_s = setting.world.now_ms() / 1000;
    let set = |name: &'static str, value: Value| (name, value);
    let bad = [
        set("nonce", json!("another")),
        set("nonce", Value::Null),
        set("aud", json!("another-client")),
        set("aud", json!([CLIENT, "another-client"])),
        set("aud", Value::Null),
        set("azp", json!("another-client")),
        set("iss", json!("https://accounts.example.com")),
        set("iss", json!(format!("{}/", setting.rogue.issuer))),
        set("auth_time", json!(now_s - 62)),
        set("auth_time", json!(now_s + 62)),
        set("auth_time", Value::Null),
        set("exp", json!(now_s)),
        set("iat", json!(now_s - 62)),
        set("iat", json!(now_s + 62)),
        set("sub", json!("somebody else")),
        set("sub", json!("alice")),
        set("sub", json!("")),
        set("sub", Value::Null),
    ];
    let mut texts = Vec::new();
    for (name, value) in bad {
        let refused = setting
            .log_in(|claims| {
                let claims = claims.as_object_mut().unwrap();
                match &value {
                    Value::Null => claims.remove(name),
                    value => claims.insert(name.into(), value.clone()),
                };
            })
            .await;
        let error = refused.expect_err(&format!("{name} = {value}"));
        assert!(
            matches!(error, SsoError::Refused),
            "{name} = {value}: {error:?}"
        );
        texts.push(error.to_string());
        setting.unlock().await;
    }
    let mac = |secret: &[u8], claims: &Value| {
        let head = part(&json!({ "alg": "HS256", "kid": "first" }));
        let signed = format!("{head}.{}", part(claims));
        let key = openidconnect::core::CoreHmacKey::new(secret.to_vec());
        let algorithm = openidconnect::core::CoreJwsSigningAlgorithm::HmacSha256;
        let signature = key.sign(&algorithm, signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let unsigned = |head: Value, claims: &Value| format!("{}.{}.", part(&head), part(claims));
    let public = setting.key.public()["x"].as_str().unwrap().to_owned();
    type Forgery<'a> = Box<dyn Fn(&Value) -> String + 'a>;
    let forgeries: Vec<Forgery> = vec![
        Box::new(|claims| unsigned(json!({ "alg": "none" }), claims)),
        Box::new(|claims| unsigned(json!({ "alg": "none", "kid": "first" }), claims)),
        Box::new(|claims| unsigned(json!({ "alg": "EdDSA", "kid": "first" }), claims)),
        Box::new(|claims| mac(SECRET.as_bytes(), claims)),
        Box::new(|claims| mac(public.as_bytes(), claims)),
        Box::new(|claims| mac(b"", claims)),
        Box::new(|claims| Key::new("first").sign(claims)),
        Box::new(|claims| Key::new("second").sign(claims)),
        Box::new(|_| "no token".to_owned()),
        Box::new(|_| String::new()),
    ];
    for (index, forge) in forgeries.iter().enumerate() {
        let visit = setting.begin().await;
        let token = forge(&setting.claims(&visit));
        let error = setting.back(&visit, token).await.expect_err("refused");
        assert!(matches!(error, SsoError::Refused), "{index}: {error:?}");
        texts.push(error.to_string());
        setting.unlock().await;
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert_eq!(setting.live().await, 0);
    setting.session(|_| {}).await;

    // Whose user is disabled, has been forgotten.
    let visit = setting.begin().await;
    let request = v1::SetUserDisabledRequest {
        name: "alice".into(),
        disabled: true,
    };
    let admin = setting.world.control.admin();
    admin
        .set_user_disabled(Request::new(request))
        .await
        .unwrap();
    let refused = setting
        .back(&visit, setting.key.sign(&setting.claims(&visit)))
        .await;
    assert!(matches!(refused, Err(SsoError::UnknownVisit)));
    assert_eq!(setting.live().await, 0);
}

#[tokio::test]
async fn refusals_delay_the_device_and_never_the_account() {
    let setting = Setting::new(Engine::Sqlite).await;
    for _ in 0..5 {
        let refused = setting.log_in(|claims| claims["sub"] = json!("x")).await;
        assert!(matches!(refused, Err(SsoError::Refused)), "{refused:?}");
    }
    let delayed = setting.log_in(|_| {}).await.unwrap_err();
    assert!(
        matches!(
            delayed,
            SsoError::Login(portcullis_control::LoginError::Delayed { .. })
        ),
        "{delayed:?}"
    );
    setting.world.advance_s(31);
    setting.session(|_| {}).await;
    for _ in 0..16 {
        setting.begin().await;
    }
    let full = setting
        .sso()
        .begin(setting.laptop, "acme", None, &setting.browser)
        .await;
    assert!(matches!(full, Err(SsoError::Busy { .. })), "{full:?}");
}

/// RFC 9700, 4.4: what one provider gives is of no use at another.
#[tokio::test]
async fn providers_cannot_be_mixed_up() {
    let mut setting = Setting::new(Engine::Sqlite).await;
    let evil = Rogue::start().await;
    let config = evil.config(&setting.world, "evil");
    setting.world.config.sso.push(config);
    setting.world.reopen().await;
    let visit = setting.begin().await;
    let at_evil = setting
        .sso()
        .finish(
            setting.laptop,
            "evil",
            &callback(&visit),
            Some(&setting.browser),
        )
        .await;
    assert!(
        matches!(at_evil, Err(SsoError::UnknownVisit)),
        "{at_evil:?}"
    );
    assert!(
        evil.asked().is_empty(),
        "the code is nothing for the other one"
    );

    let theirs = setting
        .sso()
        .begin(setting.laptop, "evil", Some(443), &setting.browser)
        .await
        .unwrap();
    let redirect = "https://login.example.com/login/sso/evil/callback";
    assert_eq!(param(&theirs, "redirect_uri"), redirect);
    let told = Callback {
        issuer: Some(evil.issuer.clone()),
        ..callback(&visit)
    };
    setting
        .rogue
        .answer(setting.key.sign(&setting.claims(&visit)));
    let refused = setting
        .sso()
        .finish(setting.laptop, "acme", &told, Some(&setting.browser))
        .await;
    assert!(matches!(refused, Err(SsoError::Refused)), "{refused:?}");
    assert!(setting.rogue.asked().is_empty());

    // The subject is one of its issuer, and of no other.
    let key = Key::new("evil");
    evil.publish(&[&key]);
    let visit = setting
        .sso()
        .begin(setting.laptop, "evil", None, &setting.browser)
        .await
        .unwrap();
    let mut claims = setting.claims(&visit);
    claims["iss"] = json!(evil.issuer);
    evil.answer(key.sign(&claims));
    let refused = setting
        .sso()
        .finish(
            setting.laptop,
            "evil",
            &callback(&visit),
            Some(&setting.browser),
        )
        .await;
    assert!(matches!(refused, Err(SsoError::Refused)), "{refused:?}");

    // Nor may two be of one issuer.
    let mut config = setting.world.config.clone();
    config
        .sso
        .push(setting.rogue.config(&setting.world, "again"));
    let opened = portcullis_control::Control::open(config).await;
    let error = opened.unwrap_err();
    assert!(
        matches!(
            error,
            portcullis_control::ControlError::Sso(SsoConfigError::Value { .. })
        ),
        "{error}"
    );
}

#[tokio::test]
async fn new_keys_are_fetched_once_in_a_while() {
    let setting = Setting::new(Engine::Sqlite).await;
    setting.session(|_| {}).await;
    let before = setting.rogue.key_fetches();
    let next = Key::new("next");
    setting.rogue.publish(&[&setting.key, &next]);
    let visit = setting.begin().await;
    let token = next.sign(&setting.claims(&visit));
    setting.back(&visit, token).await.unwrap();
    assert_eq!(setting.rogue.key_fetches(), before + 1);
    for kid in ["a", "b", "c"] {
        let visit = setting.begin().await;
        let token = Key::new(kid).sign(&setting.claims(&visit));
        assert!(setting.back(&visit, token).await.is_err());
    }
    assert_eq!(
        setting.rogue.key_fetches(),
        before + 1,
        "not for each of them"
    );
}

#[tokio::test]
async fn a_provider_that_says_no_or_nothing() {
    let mut setting = Setting::new(Engine::Sqlite).await;
    let visit = setting.begin().await;
    let denied = Callback {
        code: None,
        error: Some("access_denied".into()),
        ..callback(&visit)
    };
    let told = setting
        .sso()
        .finish(setting.laptop, "acme", &denied, Some(&setting.browser))
        .await
        .unwrap_err();
    assert!(
        matches!(told, SsoError::Declined("access was denied there")),
        "{told:?}"
    );
    let visit = setting.begin().await;
    let odd = Callback {
        code: None,
        error: Some("<script>".into()),
        ..callback(&visit)
    };
    let told = setting
        .sso()
        .finish(setting.laptop, "acme", &odd, Some(&setting.browser))
        .await
        .unwrap_err();
    assert!(!told.to_string().contains("script"), "{told}");
    // A code that it refuses, because it was used.
    let visit = setting.begin().await;
    let told = setting.back(&visit, String::new()).await.unwrap_err();
    assert!(matches!(told, SsoError::Refused), "{told:?}");

    setting.rogue.claim_to_be("https://accounts.example.com");
    setting.world.control.close().await;
    setting.world.control = open(&setting.world.config, &setting.world.now).await;
    let none = setting
        .sso()
        .begin(setting.laptop, "acme", None, &setting.browser)
        .await;
    assert!(matches!(none, Err(SsoError::Unavailable)), "{none:?}");
}

#[tokio::test]
async fn invariant_10_secrets_are_sealed_and_not_shown() {
    let setting = Setting::new(Engine::Sqlite).await;
    let visit = setting.begin().await;
    let mut bytes = Vec::new();
    for end in ["", "-wal"] {
        let file = setting.world.dir.path().join(format!("store.db{end}"));
        bytes.extend(std::fs::read(file).unwrap_or_default());
    }
    let bytes = String::from_utf8_lossy(&bytes);
    for secret in [
        param(&visit, "state"),
        param(&visit, "nonce"),
        visit.attempt.as_str().to_owned(),
    ] {
        assert!(!bytes.contains(&secret), "{secret}");
    }
    let shown = format!("{:?} {:?}", setting.sso(), callback(&visit));
    assert!(
        !shown.contains(SECRET) && !shown.contains("the-code"),
        "{shown}"
    );

    // A secret that everybody can read is none.
    use std::os::unix::fs::PermissionsExt as _;
    let file = &setting.world.config.sso[0].client_secret_file;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let opened = portcullis_control::Control::open(setting.world.config.clone()).await;
    let error = opened.unwrap_err().to_string();
    assert!(error.contains("chmod 0600"), "{error}");
}
