//! A logout at the provider ends what its logins opened.

use portcullis_control::{LoginError, LoginStep, SsoError};
use serde_json::{Value, json};

use crate::fixture::{Engine, key};
use crate::gateway::{Gateway, Served, enroll};
use crate::rogue::{CLIENT, Key};
use crate::sso::{SUBJECT, Setting};

crate::on_both!(
    a_logout_there_ends_the_session_here,
    a_logout_token_counts_once_whatever_restarts,
    a_logout_of_one_session_there_ends_that_one_here,
    a_logout_reaches_those_who_are_under_way,
    invariant_4_a_logout_reaches_the_gateway_at_once,
);

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

impl Setting {
    pub(crate) fn logout(&self, jti: &str) -> Value {
        let now_s = self.world.now_ms() / 1000;
        json!({
            "iss": self.rogue.issuer, "aud": CLIENT, "iat": now_s, "exp": now_s + 120, "jti": jti,
            "events": { EVENT: {} }, "sub": SUBJECT,
        })
    }

    pub(crate) async fn tell(&self, claims: &Value) -> Result<usize, SsoError> {
        let token = self.key.sign_as("logout+jwt", claims);
        let told = self.sso().log_out("acme", &token).await?;
        Ok(told.sessions)
    }
}

/// A code that was held back until after the logout.
async fn a_logout_reaches_those_who_are_under_way(engine: Engine) {
    let setting = Setting::new(engine).await;
    let late = async |logout: &str, change: fn(&mut Value)| {
        let visit = setting.begin().await;
        let token = setting.key.sign(&setting.claims(&visit));
        setting.world.advance_s(1);
        let mut claims = setting.logout(logout);
        change(&mut claims);
        setting.tell(&claims).await.unwrap();
        setting.back(&visit, token).await
    };
    let all = late("all", |_| {}).await;
    assert!(matches!(all, Err(SsoError::Refused)), "{all:?}");
    let this = late("this", |claims| claims["sid"] = json!("there-1")).await;
    assert!(matches!(this, Err(SsoError::Refused)), "{this:?}");
    assert_eq!(setting.live().await, 0);
    // The provider did not say at the login which session it was: who it was has to do.
    let visit = setting.begin().await;
    let mut claims = setting.claims(&visit);
    claims.as_object_mut().unwrap().remove("sid");
    setting.world.advance_s(1);
    let mut logout = setting.logout("unsaid");
    logout["sid"] = json!("there-3");
    setting.tell(&logout).await.unwrap();
    let unsaid = setting.back(&visit, setting.key.sign(&claims)).await;
    assert!(matches!(unsaid, Err(SsoError::Refused)), "{unsaid:?}");
    let another = late("another", |claims| claims["sid"] = json!("there-2")).await;
    assert!(matches!(another, Ok(LoginStep::Done(_))), "{another:?}");
}

async fn a_logout_there_ends_the_session_here(engine: Engine) {
    let setting = Setting::new(engine).await;
    setting.session(|_| {}).await;
    let now_s = setting.world.now_ms() / 1000;
    let bad = [
        ("iss", json!("https://accounts.example.com")),
        ("iss", Value::Null),
        ("aud", json!("another-client")),
        ("aud", json!(["another-client"])),
        ("aud", Value::Null),
        ("iat", json!(now_s - 400)),
        ("iat", json!(now_s + 62)),
        ("iat", Value::Null),
        ("exp", json!(now_s - 62)),
        ("jti", json!("")),
        ("jti", Value::Null),
        ("events", json!({})),
        ("events", json!({ EVENT: "yes" })),
        ("events", Value::Null),
        ("nonce", json!("n")),
        ("sub", Value::Null),
        ("sub", json!("")),
    ];
    for (name, value) in bad {
        let mut claims = setting.logout("one");
        match &value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims
                .as_object_mut()
                .unwrap()
                .insert(name.into(), value.clone()),
        };
        let told = setting.tell(&claims).await;
        assert!(
            matches!(told, Err(SsoError::Refused)),
            "{name} = {value}: {told:?}"
        );
    }
    let claims = setting.logout("one");
    let forged = [
        Key::new("first").sign(&claims),
        setting.key.sign_as("at+jwt", &claims),
        format!(
            "{}.{}.",
            crate::rogue::part(&json!({ "alg": "none" })),
            crate::rogue::part(&claims)
        ),
        "a.b".to_owned(),
        String::new(),
    ];
    for token in forged {
        let told = setting.sso().log_out("acme", &token).await;
        assert!(matches!(told, Err(SsoError::Refused)), "{token}: {told:?}");
    }
    let nobody = setting.sso().log_out("none", "").await;
    assert!(
        matches!(nobody, Err(SsoError::UnknownProvider)),
        "{nobody:?}"
    );
    assert_eq!(setting.live().await, 1, "not by any of these");

    // An ID token is no logout token.
    let visit = setting.begin().await;
    let told = setting.tell(&setting.claims(&visit)).await;
    assert!(matches!(told, Err(SsoError::Refused)), "{told:?}");

    assert_eq!(setting.tell(&claims).await.unwrap(), 1);
    assert_eq!(setting.live().await, 0);
    let audit = setting.world.audit().await;
    let record = audit.iter().find(|record| record.actor == "provider:acme");
    assert_eq!(record.unwrap().action, "session.logout");
}

async fn a_logout_token_counts_once_whatever_restarts(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    setting.session(|_| {}).await;
    let claims = setting.logout("one");
    assert_eq!(setting.tell(&claims).await.unwrap(), 1);
    setting.world.reopen().await;
    setting.session(|_| {}).await;
    let again = setting.tell(&claims).await;
    assert!(matches!(again, Err(SsoError::Refused)), "{again:?}");
    assert_eq!(setting.live().await, 1);
    assert_eq!(setting.tell(&setting.logout("two")).await.unwrap(), 1);
}

async fn a_logout_of_one_session_there_ends_that_one_here(engine: Engine) {
    let setting = Setting::new(engine).await;
    setting.session(|_| {}).await;
    let of = |jti: &str, sid: &str, sub: Option<&str>| {
        let mut claims = setting.logout(jti);
        claims["sid"] = json!(sid);
        match sub {
            Some(sub) => claims["sub"] = json!(sub),
            None => drop(claims.as_object_mut().unwrap().remove("sub")),
        }
        claims
    };
    assert_eq!(setting.tell(&of("1", "there-2", None)).await.unwrap(), 0);
    assert_eq!(
        setting
            .tell(&of("2", "there-2", Some(SUBJECT)))
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        setting.tell(&of("3", "there-1", Some("x"))).await.unwrap(),
        0
    );
    assert_eq!(setting.tell(&of("4", "there-1", None)).await.unwrap(), 1);
    // Where it was not said at the login which one it is, who it is has to do.
    setting
        .session(|claims| drop(claims.as_object_mut().unwrap().remove("sid")))
        .await;
    assert_eq!(setting.tell(&of("5", "there-9", None)).await.unwrap(), 0);
    assert_eq!(
        setting
            .tell(&of("6", "there-9", Some(SUBJECT)))
            .await
            .unwrap(),
        1
    );

    // A session that was opened otherwise is none of the provider's business.
    setting
        .world
        .log_in(setting.laptop, &setting.alice)
        .await
        .unwrap();
    assert_eq!(setting.tell(&setting.logout("7")).await.unwrap(), 0);
    assert_eq!(setting.live().await, 1);

    // Half-way, and after the second factor.
    setting.world.advance_s(60);
    let unsaid = |claims: &mut Value| drop(claims.as_object_mut().unwrap().remove("amr"));
    let half_way = async || match setting.log_in(unsaid).await.unwrap() {
        LoginStep::Wants { attempt, .. } => attempt,
        done => panic!("{done:?}"),
    };
    let logins = setting.world.control.logins();
    let attempt = half_way().await;
    setting.tell(&setting.logout("8")).await.unwrap();
    let code = setting.alice.code(setting.world.now_ms());
    let over = logins.totp(setting.laptop, &attempt, &code).await;
    assert!(matches!(over, Err(LoginError::UnknownAttempt)), "{over:?}");
    let attempt = half_way().await;
    logins.totp(setting.laptop, &attempt, &code).await.unwrap();
    assert_eq!(setting.tell(&setting.logout("9")).await.unwrap(), 1);
    assert_eq!(setting.live().await, 0);
}

async fn invariant_4_a_logout_reaches_the_gateway_at_once(engine: Engine) {
    let setting = Setting::new(engine).await;
    let control = &setting.world.control;
    let served = Served::start(control).await;
    let token = control.gateway_token("gw", "office").await.unwrap();
    let enrolled = enroll(control, served.port, token.expose()).await.unwrap();
    setting.session(|_| {}).await;
    let mut gateway = Gateway::new(enrolled);
    gateway.connect(served.port).await.unwrap();
    let newest = *control.revisions().borrow();
    gateway.follow_to(newest).await;
    let peer = key("laptop");
    assert!(gateway.state.peers[peer.as_slice()].session.is_some());

    let sso = setting.sso();
    let logout = setting.key.sign_as("logout+jwt", &setting.logout("one"));
    let telling = tokio::spawn(async move { sso.log_out("acme", &logout).await });
    gateway.follow_to(newest + 1).await;
    let told = telling.await.unwrap().unwrap();
    assert!(gateway.state.peers[peer.as_slice()].session.is_none());
    assert_eq!(
        (told.sessions, told.pending),
        (1, false),
        "it waited for the gateway"
    );
}
