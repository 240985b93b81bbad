//! Logins before there is a tunnel by a provider's word: it is good for the machine whose browser has brought it.

use std::net::IpAddr;

use openidconnect::url::Url;
use portcullis_control::{
    Browser, BrowserVisit, Callback, ConnectProof, ConnectStep, Connects, Factor, Level,
    LoginError, PortalName, Secret, Sso, SsoError,
};
use portcullis_proto::v1::{self, admin_server::Admin as _};
use serde_json::{Value, json};
use tonic::Request;

use crate::connect::{LAPTOP, connect, copy, prove, public};
use crate::fixture::{Account, Engine, World};
use crate::gateway::{Gateway, Served};
use crate::rogue::{CLIENT, Key, Rogue};
use crate::session_key::{newest, vault_in};

crate::on_both!(
    a_providers_word_opens_a_session_with_a_key,
    an_answer_goes_to_the_machine_of_the_browser,
    only_who_has_begun_it_can_finish_it,
    nothing_begins_without_the_devices_key,
    one_factor_there_wants_another_here,
    a_strong_word_opens_what_wants_one,
    a_session_is_renewed_by_a_providers_word,
    a_visit_survives_a_restart_and_not_a_change_of_the_location,
);

const SUBJECT: &str = "alice at the provider";
const NAME: &str = "login.example.com";
const PORT: u16 = 40_000;
/// The laptop's in the tunnel.
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 88, 0, 2));

/// Alice's laptop at a session-key location, and a provider that knows her.
struct Setting {
    world: World,
    alice: Account,
    served: Option<Served>,
    gateway: Gateway,
    rogue: Rogue,
    key: Key,
}

impl Setting {
    async fn new(engine: Engine) -> Self {
        let mut world = World::new(engine).await;
        let rogue = Rogue::start().await;
        let key = Key::new("first");
        rogue.publish(&[&key]);
        world.config.sso = vec![rogue.config(&world, "acme")];
        world.reopen().await;
        let (alice, served, gateway) = vault_in(&world, public(LAPTOP)).await;
        let request = v1::SetUserSsoRequest {
            name: "alice".into(),
            provider: "acme".into(),
            subject: SUBJECT.into(),
            wait_ms: 0,
        };
        let admin = world.control.admin();
        admin.set_user_sso(Request::new(request)).await.unwrap();
        Self {
            world,
            alice,
            served: Some(served),
            gateway,
            rogue,
            key,
        }
    }

    fn sso(&self) -> Sso {
        let name = PortalName::parse(NAME).unwrap();
        self.world.control.sso(name, &[8443]).unwrap().unwrap()
    }

    fn connects(&self) -> Connects {
        let connects = self.world.control.connects();
        connects.with_sso(Some(self.sso()))
    }

    fn proof(&self) -> ConnectProof {
        let proof = prove(&self.connects(), LAPTOP, "vault", "alice");
        ConnectProof {
            password: Secret::from(String::new()),
            ..proof
        }
    }

    async fn begin(&self) -> BrowserVisit {
        let (connects, proof) = (self.connects(), self.proof());
        connects.begin_sso(&proof, "acme", PORT).await.unwrap()
    }

    fn token(&self, visit: &BrowserVisit, change: impl FnOnce(&mut Value)) -> String {
        let now_s = self.world.now_ms() / 1000;
        let mut claims = json!({
            "iss": self.rogue.issuer, "aud": CLIENT, "sub": SUBJECT, "nonce": param(visit, "nonce"),
            "iat": now_s, "exp": now_s + 300, "auth_time": now_s, "amr": ["pwd", "mfa"],
            "sid": "there-1",
        });
        change(&mut claims);
        self.key.sign(&claims)
    }

    /// Comes back with a code that the provider answers with these claims, while the gateway follows.
    async fn back(
        &mut self,
        visit: &BrowserVisit,
        change: impl FnOnce(&mut Value),
    ) -> Result<ConnectStep, SsoError> {
        self.rogue.answer(self.token(visit, change));
        let (connects, next) = (self.connects(), newest(&self.world) + 1);
        let callback = callback(visit);
        let finished = connects.finish_sso(&visit.attempt, "acme", &callback);
        tokio::pin!(finished);
        tokio::select! {
            biased;
            done = &mut finished => done,
            () = self.gateway.follow_to(next) => finished.await,
        }
    }

    async fn set_location(&self, factors: &[&str], require: Level) {
        let request = v1::SetLocationRequest {
            name: "vault".into(),
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

fn param(visit: &BrowserVisit, name: &str) -> String {
    let url = Url::parse(visit.url.expose()).unwrap();
    let mut pairs = url.query_pairs();
    let (_, value) = pairs.find(|(key, _)| key == name).unwrap();
    value.into_owned()
}

fn callback(visit: &BrowserVisit) -> Callback {
    Callback {
        state: param(visit, "state"),
        code: Some(Secret::from("the-code")),
        ..Callback::default()
    }
}

fn as_is(_: &mut Value) {}

fn unsaid(claims: &mut Value) {
    claims.as_object_mut().unwrap().remove("amr");
}

async fn a_providers_word_opens_a_session_with_a_key(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    let visit = setting.begin().await;
    assert_eq!(
        param(&visit, "redirect_uri"),
        "https://login.example.com:8443/connect/sso/acme/callback"
    );
    let url = visit.url.expose();
    assert!(!url.contains(visit.attempt.as_str()) && !url.contains(&visit.path));
    let step = setting.back(&visit, as_is).await.unwrap();
    let ConnectStep::Connected(connection) = step else {
        panic!("{step:?}");
    };
    assert_eq!(
        (connection.session.user.as_str(), connection.session.level),
        ("alice", Level::Mfa)
    );
    assert!(
        setting
            .gateway
            .state
            .peers
            .contains_key(public(LAPTOP).as_slice())
    );
    let again = setting.back(&visit, as_is).await;
    assert!(matches!(again, Err(SsoError::UnknownVisit)), "{again:?}");
    assert_eq!(setting.world.sessions().await.len(), 1);
}

async fn an_answer_goes_to_the_machine_of_the_browser(engine: Engine) {
    let setting = Setting::new(engine).await;
    let (one, two) = (setting.begin().await, setting.begin().await);
    let connects = setting.connects();
    let url = connects.waits_at("acme", &callback(&one)).await.unwrap();
    let at = format!("http://127.0.0.1:{PORT}/{}?state=", one.path);
    assert!(url.expose().starts_with(&at), "{}", url.expose());
    assert_ne!(one.path, two.path);
    // It is good as often as it is asked for: what it leads to is good once.
    connects.waits_at("acme", &callback(&one)).await.unwrap();
    let nobodys = Callback {
        state: one.path.clone(),
        ..callback(&one)
    };
    let nowhere = connects.waits_at("acme", &nobodys).await;
    assert!(
        matches!(nowhere, Err(SsoError::UnknownVisit)),
        "{nowhere:?}"
    );
    for port in [0, 22, 1023] {
        let low = connects.begin_sso(&setting.proof(), "acme", port).await;
        assert!(matches!(low, Err(SsoError::Port)), "{low:?}");
    }
    setting.world.advance_s(301);
    let late = connects.waits_at("acme", &callback(&one)).await;
    assert!(matches!(late, Err(SsoError::UnknownVisit)), "{late:?}");
}

/// Whoever sends a link to somebody else does not hear what that browser brings; whoever hears it has not begun it.
async fn only_who_has_begun_it_can_finish_it(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    let (one, two) = (setting.begin().await, setting.begin().await);
    setting.rogue.answer(setting.token(&one, as_is));
    let connects = setting.connects();
    for other in [two.attempt.as_str(), &one.path, &param(&one, "state"), ""] {
        let other = other.to_owned().into();
        let stolen = connects.finish_sso(&other, "acme", &callback(&one)).await;
        assert!(matches!(stolen, Err(SsoError::UnknownVisit)), "{stolen:?}");
    }
    // Nor through the tunnel, where sessions have no key of their own.
    let browser = Browser::presenting(two.attempt.as_str()).unwrap();
    let inside = setting
        .sso()
        .finish(ADDRESS, "acme", &callback(&two), Some(&browser))
        .await;
    assert!(matches!(inside, Err(SsoError::UnknownVisit)), "{inside:?}");
    let cookie = Browser::new().unwrap();
    let inside = setting.sso().begin(ADDRESS, "acme", None, &cookie).await;
    let refused = matches!(inside, Err(SsoError::Login(LoginError::SessionKey)));
    assert!(refused, "{inside:?}");

    // None of that has spent it. A login that wants a code is no other's either.
    setting.back(&one, as_is).await.unwrap();
    let codes = setting.begin().await;
    let bob = |claims: &mut Value| claims["sub"] = json!("bob at the provider");
    let lent = setting.back(&codes, bob).await;
    assert!(matches!(lent, Err(SsoError::Refused)), "{lent:?}");
}

async fn nothing_begins_without_the_devices_key(engine: Engine) {
    let setting = Setting::new(engine).await;
    let connects = setting.connects();
    let strange = prove(&connects, [9; 32], "vault", "alice");
    let refused = connects.begin_sso(&strange, "acme", PORT).await;
    let is_refused = matches!(refused, Err(SsoError::Login(LoginError::Refused)));
    assert!(is_refused, "{refused:?}");
    let proof = setting.proof();
    let twice = copy(&proof);
    connects.begin_sso(&proof, "acme", PORT).await.unwrap();
    let replayed = connects.begin_sso(&twice, "acme", PORT).await;
    let is_over = matches!(replayed, Err(SsoError::Login(LoginError::UnknownAttempt)));
    assert!(is_over, "{replayed:?}");

    let unknown = connects.begin_sso(&setting.proof(), "evil", PORT).await;
    assert!(
        matches!(unknown, Err(SsoError::UnknownProvider)),
        "{unknown:?}"
    );
    setting
        .set_location(&["password", "totp"], Level::Mfa)
        .await;
    let forbidden = connects.begin_sso(&setting.proof(), "acme", PORT).await;
    assert!(
        matches!(forbidden, Err(SsoError::NotAllowed)),
        "{forbidden:?}"
    );
    let off = setting.world.control.connects();
    let none = off.begin_sso(&setting.proof(), "acme", PORT).await;
    assert!(matches!(none, Err(SsoError::UnknownProvider)), "{none:?}");
}

async fn one_factor_there_wants_another_here(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    let visit = setting.begin().await;
    let step = setting.back(&visit, unsaid).await.unwrap();
    let ConnectStep::Wants {
        attempt, factors, ..
    } = step
    else {
        panic!("{step:?}");
    };
    assert!(factors.contains(Factor::Totp) && !factors.contains(Factor::Password));
    assert!(setting.gateway.state.peers.is_empty());
    let code = setting.alice.code(setting.world.now_ms());
    let (connects, next) = (setting.connects(), newest(&setting.world) + 1);
    let (step, ()) = tokio::join!(
        connects.totp(&attempt, &code),
        setting.gateway.follow_to(next)
    );
    assert!(matches!(step, Ok(ConnectStep::Connected(_))), "{step:?}");
}

async fn a_strong_word_opens_what_wants_one(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    setting
        .set_location(&["sso"], Level::PhishingResistant)
        .await;
    let visit = setting.begin().await;
    let weak = setting.back(&visit, as_is).await;
    assert!(matches!(weak, Err(SsoError::Refused)), "{weak:?}");
    let visit = setting.begin().await;
    let strong = |claims: &mut Value| claims["acr"] = json!("phr");
    let step = setting.back(&visit, strong).await.unwrap();
    let ConnectStep::Connected(connection) = step else {
        panic!("{step:?}");
    };
    assert_eq!(connection.session.level, Level::PhishingResistant);
}

async fn a_session_is_renewed_by_a_providers_word(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    let first = connect(&setting.world, &setting.alice, &mut setting.gateway).await;
    let renewal = |setting: &Setting| ConnectProof {
        renew: true,
        ..setting.proof()
    };
    setting.world.advance_s(60);
    let connects = setting.connects();
    let begun = connects.begin_sso(&renewal(&setting), "acme", PORT).await;
    let step = setting.back(&begun.unwrap(), as_is).await.unwrap();
    let ConnectStep::Renewed(renewed) = step else {
        panic!("{step:?}");
    };
    assert_eq!(renewed.session.id, first.session.id);
    assert!(renewed.session.deadline_ms > first.session.deadline_ms);
    assert_ne!(renewed.preshared_key.expose(), first.preshared_key.expose());

    // It ends while its user is at the provider: nothing is revived.
    let begun = connects.begin_sso(&renewal(&setting), "acme", PORT).await;
    let ended = connects.end(&first.token).await.unwrap().unwrap();
    assert!(ended.pending, "the gateway does not follow here");
    let late = setting.back(&begun.unwrap(), as_is).await;
    let none = matches!(late, Err(SsoError::Login(LoginError::NoSession)));
    assert!(none, "{late:?}");
}

async fn a_visit_survives_a_restart_and_not_a_change_of_the_location(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    let visit = setting.begin().await;
    setting.gateway.disconnect();
    setting.served.take().unwrap().stop().await;
    setting.world.reopen().await;
    let served = Served::start(&setting.world.control).await;
    setting.gateway.connect(served.port).await.unwrap();
    setting.gateway.hear().await.unwrap();
    setting.served = Some(served);
    let step = setting.back(&visit, as_is).await.unwrap();
    assert!(matches!(step, ConnectStep::Connected(_)), "{step:?}");

    let visit = setting.begin().await;
    setting
        .set_location(&["password", "totp"], Level::Mfa)
        .await;
    let refused = setting.back(&visit, as_is).await;
    assert!(matches!(refused, Err(SsoError::Refused)), "{refused:?}");
}
