//! Logins before there is a tunnel by a passkey in a browser of the device's own machine: good for the program alone that has
//! begun it.

use portcullis_control::{
    ApprovalError, BrowserVisit, ConnectProof, ConnectStep, Level, LoginError, PhonePrompt, Secret,
    SsoError,
};
use portcullis_proto::v1::{self, admin_server::Admin as _};
use tonic::Request;

use crate::approvals::{HOME, PAGE, PHONE, Scene};
use crate::connect::{LAPTOP, begin, connect, copy, prove, public, vault};
use crate::fixture::{Account, Engine};
use crate::gateway::{Gateway, Served};
use crate::session_key::newest;

crate::on_both!(
    a_passkey_alone_connects_where_nothing_else_is_enough,
    what_the_browser_has_not_brought_is_nothing,
    an_approval_by_phone_is_none_here,
    a_devices_key_alone_delays_nobody_else,
    where_there_is_no_passkey_nothing_begins,
    what_is_denied_is_over,
    a_session_is_renewed_by_a_passkey,
);

const PORT: u16 = 40_000;

struct Setting {
    scene: Scene,
    alice: Account,
    _served: Served,
    gateway: Gateway,
}

impl Setting {
    async fn new(engine: Engine) -> Self {
        let (world, alice, served, mut gateway) = vault(engine).await;
        world.location("office", &["10.77.0.0/24"]).await.unwrap();
        let key = crate::fixture::key("tablet");
        let tablet = world.try_device("tablet", "alice", "office", &key);
        let device = tablet.await.unwrap().device.unwrap();
        let from = device.addresses[0].parse().unwrap();
        let scene = Scene::of(world, alice.clone(), from).await;
        gateway.follow_to(newest(&scene.world)).await;
        Self {
            scene,
            alice,
            _served: served,
            gateway,
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
        let admin = self.scene.world.control.admin();
        admin.set_location(Request::new(request)).await.unwrap();
    }

    fn proof(&self) -> ConnectProof {
        let connects = self.scene.world.control.connects();
        ConnectProof {
            password: Secret::from(String::new()),
            ..prove(&connects, LAPTOP, "vault", "alice")
        }
    }

    async fn try_begin(&self) -> Result<BrowserVisit, SsoError> {
        let connects = self.scene.world.control.connects();
        connects.begin_passkey(HOME, &self.proof(), PORT).await
    }

    async fn begin(&self) -> BrowserVisit {
        self.try_begin().await.unwrap()
    }

    /// The code that the browser brings after a passkey.
    async fn approve(&mut self, visit: &BrowserVisit) -> String {
        let token = token(visit);
        let signed = self.scene.signed(&token).await;
        let signed = serde_json::from_value(signed).unwrap();
        let approved = self.scene.approvals();
        let then = approved.approve(PHONE, &token, 0, &signed).await.unwrap();
        let then = then.unwrap();
        let at = format!("http://127.0.0.1:{PORT}/{}?code=", visit.path);
        then.expose().strip_prefix(&at).unwrap().to_owned()
    }

    async fn finish(
        &mut self,
        visit: &BrowserVisit,
        code: &str,
    ) -> Result<ConnectStep, LoginError> {
        let next = newest(&self.scene.world) + 1;
        let connects = self.scene.world.control.connects();
        let finished = connects.finish_passkey(HOME, &visit.attempt, code);
        tokio::pin!(finished);
        tokio::select! {
            biased;
            done = &mut finished => done,
            () = self.gateway.follow_to(next) => finished.await,
        }
    }
}

fn token(visit: &BrowserVisit) -> Secret {
    let (page, token) = visit.url.expose().split_once('#').expect("a token");
    assert_eq!(page, PAGE);
    token.into()
}

fn refused<T: std::fmt::Debug>(result: Result<T, LoginError>) {
    assert!(matches!(result, Err(LoginError::Refused)), "{result:?}");
}

async fn a_passkey_alone_connects_where_nothing_else_is_enough(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    setting
        .set_location(&["passkey"], Level::PhishingResistant)
        .await;
    let visit = setting.begin().await;
    assert!(visit.expires_in.as_secs() <= 60);
    let view = setting
        .scene
        .approvals()
        .look(&token(&visit))
        .await
        .unwrap();
    assert!(view.here && !view.in_tunnel);
    assert_eq!(view.device.as_deref(), Some("laptop"));
    let code = setting.approve(&visit).await;
    let over = setting.scene.approvals().look(&token(&visit)).await;
    assert!(matches!(over, Err(ApprovalError::Over)), "{over:?}");
    let step = setting.finish(&visit, &code).await.unwrap();
    let ConnectStep::Connected(connection) = step else {
        panic!("{step:?}");
    };
    assert_eq!(connection.session.level, Level::PhishingResistant);
    assert!(
        setting
            .gateway
            .state
            .peers
            .contains_key(public(LAPTOP).as_slice())
    );
    let again = setting.finish(&visit, &code).await;
    assert!(
        matches!(again, Err(LoginError::UnknownAttempt)),
        "{again:?}"
    );
    let actions: Vec<String> = setting
        .scene
        .world
        .audit()
        .await
        .into_iter()
        .map(|r| r.action)
        .collect();
    for action in ["browser.begin", "browser.approve"] {
        assert!(
            actions.iter().any(|had| had == action),
            "{action} in {actions:?}"
        );
    }
}

async fn what_the_browser_has_not_brought_is_nothing(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    let (one, two) = (setting.begin().await, setting.begin().await);
    let other = setting.approve(&two).await;
    let code = setting.approve(&one).await;
    refused(setting.finish(&one, &other).await);
    let connects = setting.scene.world.control.connects();
    refused(connects.finish_passkey(PHONE, &one.attempt, &code).await);
    // Nor in the way in which a phone's approval is finished.
    refused(connects.finish_phone(HOME, &one.attempt).await);
    assert!(setting.gateway.state.peers.is_empty());
    // The device has to wait a while after so many, and nobody else.
    setting.scene.world.advance_s(31);
    let step = setting.finish(&one, &code).await.unwrap();
    assert!(matches!(step, ConnectStep::Connected(_)), "{step:?}");
    assert_eq!(
        setting.scene.wrong_attempts().await,
        0,
        "it was the device's"
    );
}

async fn an_approval_by_phone_is_none_here(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    let login = begin(&setting.scene.world).await;
    let connects = setting.scene.world.control.connects();
    let prompt: PhonePrompt = connects.ask_phone(HOME, &login).await.unwrap();
    setting.scene.approve(&prompt).await;
    for code in ["", "x"] {
        refused(connects.finish_passkey(HOME, &login, code).await);
    }
    // What a browser is asked for has no number, and no number ends it.
    let visit = setting.begin().await;
    assert!(
        setting
            .scene
            .approvals()
            .look(&token(&visit))
            .await
            .unwrap()
            .here
    );
}

async fn a_devices_key_alone_delays_nobody_else(engine: Engine) {
    let setting = Setting::new(engine).await;
    let delayed = loop {
        match setting.try_begin().await {
            Ok(visit) => {
                let connects = setting.scene.world.control.connects();
                connects
                    .finish_passkey(HOME, &visit.attempt, "x")
                    .await
                    .unwrap_err();
            }
            Err(delayed) => break delayed,
        }
    };
    let is_delay = matches!(delayed, SsoError::Login(LoginError::Delayed { .. }));
    assert!(is_delay, "{delayed:?}");
    assert_eq!(setting.scene.wrong_attempts().await, 0);
    let name = Request::new(v1::NameRequest {
        name: "alice".into(),
    });
    let admin = setting.scene.world.control.admin();
    admin.unlock_user(name).await.unwrap();
    setting.try_begin().await.unwrap();

    // Without the device's key, and with one that was used, nothing begins at all.
    let connects = setting.scene.world.control.connects();
    let strange = prove(&connects, [9; 32], "vault", "alice");
    let stranger = connects.begin_passkey(HOME, &strange, PORT).await;
    let is_refused = matches!(stranger, Err(SsoError::Login(LoginError::Refused)));
    assert!(is_refused, "{stranger:?}");
    let proof = setting.proof();
    let twice = copy(&proof);
    let _ = connects.begin_passkey(HOME, &proof, PORT).await;
    let replayed = connects.begin_passkey(HOME, &twice, PORT).await;
    let is_over = matches!(replayed, Err(SsoError::Login(LoginError::UnknownAttempt)));
    assert!(is_over, "{replayed:?}");
}

async fn where_there_is_no_passkey_nothing_begins(engine: Engine) {
    let setting = Setting::new(engine).await;
    setting
        .set_location(&["password", "totp"], Level::Mfa)
        .await;
    let refused = setting.try_begin().await;
    let is_refused = matches!(refused, Err(SsoError::Login(LoginError::Refused)));
    assert!(is_refused, "{refused:?}");

    let (world, _alice, _served, _gateway) = vault(engine).await;
    world.control.serve_approvals_at(PAGE.into());
    let connects = world.control.connects();
    let proof = prove(&connects, LAPTOP, "vault", "alice");
    let none = connects.begin_passkey(HOME, &proof, PORT).await;
    let is_refused = matches!(none, Err(SsoError::Login(LoginError::Refused)));
    assert!(is_refused, "{none:?}");
}

async fn what_is_denied_is_over(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    let visit = setting.begin().await;
    let approvals = setting.scene.approvals();
    approvals.deny(PHONE, &token(&visit)).await.unwrap();
    refused(setting.finish(&visit, "x").await);
    let visit = setting.begin().await;
    let code = setting.approve(&visit).await;
    setting.scene.world.advance_s(61);
    refused(setting.finish(&visit, &code).await);
}

async fn a_session_is_renewed_by_a_passkey(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    setting.scene.world.advance_s(60);
    let first = connect(&setting.scene.world, &setting.alice, &mut setting.gateway).await;
    setting.scene.world.advance_s(60);
    let connects = setting.scene.world.control.connects();
    let proof = ConnectProof {
        renew: true,
        ..setting.proof()
    };
    let visit = connects.begin_passkey(HOME, &proof, PORT).await.unwrap();
    let code = setting.approve(&visit).await;
    let step = setting.finish(&visit, &code).await.unwrap();
    let ConnectStep::Renewed(renewed) = step else {
        panic!("{step:?}");
    };
    assert_eq!(renewed.session.id, first.session.id);
    assert!(renewed.session.deadline_ms > first.session.deadline_ms);
}
