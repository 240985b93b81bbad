//! Single sign-on through the portal, by a real provider. What a real one cannot be made to do is in control's
//! tests.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod oidc;

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use axum::{Extension, Router};
use oidc::{Browser, CLIENT, Provider, SECRET};
use openidconnect::url::Url;
use portcullis_control::{Control, ControlConfig, PortalName, Sso, SsoConfig};
use portcullis_portal::{DeviceAddr, PublicAddr, app, backchannel_app};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

const NAME: &str = "login.example.com";
const HOST: &str = "login.example.com:8443";
const REDIRECT: &str = "https://login.example.com:8443/login/sso/acme/callback";
const REFUSED: &str = "This sign-in was refused";

/// Ada's laptop with her browser, the portal as that laptop sees it, and a provider where she is "ada-1".
struct Fixture {
    control: Control,
    laptop: IpAddr,
    /// The cookie that the portal gave.
    cookie: std::sync::Mutex<String>,
    provider: Provider,
    backchannel: tokio::task::JoinHandle<()>,
    _state: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        Self::with_max_age(None).await
    }

    /// Where a login at the provider may be so old.
    async fn with_max_age(max_age: Option<Duration>) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let at = listener.local_addr().unwrap();
        let url = format!("http://{at}/sso/acme/backchannel");
        let start = move || Provider::start(REDIRECT, &url);
        let provider = tokio::task::spawn_blocking(start).await.unwrap();
        let state = tempfile::tempdir().unwrap();
        let secret = state.path().join("secret");
        std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let config = ControlConfig {
            database: format!("sqlite://{}/portcullis.db", state.path().display()),
            state_dir: state.path().join("state"),
            sso: vec![SsoConfig {
                title: Some("Acme Works".into()),
                name: "acme".into(),
                preset: Default::default(),
                issuer: Some(provider.issuer.clone()),
                client_id: CLIENT.into(),
                client_secret_file: secret,
                levels: None,
                groups_claim: Some("groups".into()),
                groups_lifetime: None,
                max_age,
            }],
            ..ControlConfig::default()
        };
        let control = Control::open(config).await.unwrap();
        let admin = control.admin();
        let location = v1::Location {
            name: "office".into(),
            pools: vec!["10.77.0.0/24".into()],
            endpoint: "vpn.example.org:51820".into(),
            ..Default::default()
        };
        let location = v1::AddLocationRequest {
            location: Some(location),
            ..Default::default()
        };
        admin
            .add_location(tonic::Request::new(location))
            .await
            .unwrap();
        let user = v1::AddUserRequest {
            name: "ada".into(),
            password: "correct horse battery".into(),
            ..Default::default()
        };
        admin.add_user(tonic::Request::new(user)).await.unwrap();
        let link = v1::SetUserSsoRequest {
            name: "ada".into(),
            provider: "acme".into(),
            subject: "ada-1".into(),
            wait_ms: 0,
        };
        admin.set_user_sso(tonic::Request::new(link)).await.unwrap();
        let device = v1::AddDeviceRequest {
            name: "laptop".into(),
            user: "ada".into(),
            public_key: vec![7; 32],
            ..Default::default()
        };
        let added = admin.add_device(tonic::Request::new(device)).await.unwrap();
        let device = added.into_inner().device.unwrap();
        let told =
            backchannel_app(sso(&control)).layer(Extension(PublicAddr([127, 0, 0, 1].into())));
        let backchannel = tokio::spawn(async move { axum::serve(listener, told).await.unwrap() });
        Self {
            laptop: device.addresses[0].parse().unwrap(),
            cookie: Default::default(),
            control,
            provider,
            backchannel,
            _state: state,
        }
    }

    fn portal(&self) -> Router {
        app(self.control.logins(), None, Some(sso(&self.control)))
            .layer(Extension(DeviceAddr(self.laptop)))
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.portal().oneshot(request).await.unwrap()
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        // As a browser sends it that another site has sent here.
        let request = Request::builder()
            .uri(path)
            .header(header::HOST, HOST)
            .header("sec-fetch-site", "cross-site")
            .header(header::COOKIE, self.cookie.lock().unwrap().as_str())
            .body(Body::empty())
            .unwrap();
        let response = self.send(request).await;
        (response.status(), text(response).await)
    }

    /// The address that the portal's page leads on to.
    async fn leave(&self) -> String {
        let mut request = post("/login/sso/acme", HOST);
        let held = self.cookie.lock().unwrap().parse().unwrap();
        request.headers_mut().insert(header::COOKIE, held);
        let response = self.send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
        let (pair, flags) = cookie.split_once("; ").unwrap();
        assert!(pair.starts_with("__Host-"), "{cookie}");
        for flag in ["Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
            assert!(flags.contains(flag), "{cookie}");
        }
        pair.clone_into(&mut self.cookie.lock().unwrap());
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(policy.contains("form-action 'self'"), "{policy}");
        let page = text(response).await;
        let (_, rest) = page.split_once("content=\"0;url=").unwrap();
        let (url, _) = rest.split_once('"').unwrap();
        url.replace("&#38;", "&").replace("&amp;", "&")
    }

    async fn back(&self, url: &Url) -> (StatusCode, String) {
        assert!(url.as_str().starts_with(REDIRECT), "{url}");
        self.get(&format!("{}?{}", url.path(), url.query().unwrap()))
            .await
    }

    async fn session(&self) -> (StatusCode, Value) {
        let (status, body) = self.get("/api/v1/session").await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.backchannel.abort();
    }
}

fn sso(control: &Control) -> Sso {
    let name = PortalName::parse(NAME).unwrap();
    control.sso(name, &[8443]).unwrap().unwrap()
}

fn post(path: &str, host: &str) -> Request<Body> {
    Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, host)
        .header(header::ORIGIN, format!("https://{host}"))
        .header("sec-fetch-site", "same-origin")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::empty())
        .unwrap()
}

async fn text(response: Response<Body>) -> String {
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn with(url: &Url, name: &str, value: &str) -> Url {
    let mut changed = url.clone();
    let pairs: Vec<(String, String)> = url
        .query_pairs()
        .map(|(key, old)| match key == name {
            true => (key.into_owned(), value.to_owned()),
            false => (key.into_owned(), old.into_owned()),
        })
        .collect();
    changed.query_pairs_mut().clear().extend_pairs(pairs);
    changed
}

fn param(url: &Url, name: &str) -> String {
    let mut pairs = url.query_pairs();
    pairs.find(|(key, _)| key == name).unwrap().1.into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_by_a_real_provider_and_its_logout() {
    let fixture = Fixture::new().await;
    let (_, page) = fixture.get("/").await;
    assert!(page.contains("action=\"/login/sso/acme\""), "{page}");
    let mut ada = Browser::new();
    let back = ada.sign_in(&fixture.leave().await, "ada-1+mfa").await;
    let (status, page) = fixture.back(&back).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
    let (_, session) = fixture.session().await;
    assert_eq!(
        (&session["user"], &session["level"]),
        (&json!("ada"), &json!("mfa"))
    );
    let request = tonic::Request::new(v1::NameRequest { name: "ada".into() });
    let user = fixture.control.admin().get_user(request).await.unwrap();
    assert_eq!(user.into_inner().groups, ["sre"]);

    // The same answer again is none.
    let (status, page) = fixture.back(&back).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(page.contains("unknown or over"), "{page}");

    ada.sign_out(&fixture.provider.issuer).await;
    let over = async {
        while fixture.session().await.0 == StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let within = Duration::from_secs(10);
    tokio::time::timeout(within, over)
        .await
        .expect("the provider told of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_real_provider_says_is_not_taken_for_more_or_twice() {
    let fixture = Fixture::new().await;
    // One factor there: one more here.
    let mut ada = Browser::new();
    let first = ada.sign_in(&fixture.leave().await, "ada-1").await;
    let (status, page) = fixture.back(&first).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        page.contains("Six digits") && !page.contains("type=\"password\""),
        "{page}"
    );
    assert_eq!(fixture.session().await.0, StatusCode::NOT_FOUND);

    // Somebody else there, another nonce, a code that was used, a code that is none: all the same here.
    let mallory = Browser::new()
        .sign_in(&fixture.leave().await, "mallory+mfa")
        .await;
    let url = Url::parse(&fixture.leave().await).unwrap();
    let nonce = with(&url, "nonce", "another");
    let nonce = Browser::new().sign_in(nonce.as_str(), "ada-1+mfa").await;
    let mut answers = vec![mallory, nonce];
    for code in [param(&first, "code"), "none".to_owned()] {
        let fresh = Browser::new()
            .sign_in(&fixture.leave().await, "ada-1+mfa")
            .await;
        answers.push(with(&fresh, "code", &code));
    }
    for answer in answers {
        let (status, page) = fixture.back(&answer).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{answer}");
        assert!(page.contains(REFUSED), "{page}");
    }
    assert_eq!(fixture.session().await.0, StatusCode::NOT_FOUND);
}

/// Signed by the provider itself, and all else about them right.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_another_client_another_issuer_or_an_old_login_are_none() {
    let fixture = Fixture::with_max_age(Some(Duration::from_secs(300))).await;
    for wrong in ["audience", "issuer", "stale"] {
        let login = format!("ada-1+mfa+{wrong}");
        let url = fixture.leave().await;
        let back = Browser::new().sign_in(&url, &login).await;
        let (status, page) = fixture.back(&back).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{wrong}: {page}");
        assert!(page.contains(REFUSED), "{wrong}: {page}");
        assert_eq!(fixture.session().await.0, StatusCode::NOT_FOUND, "{wrong}");
    }
    let back = Browser::new()
        .sign_in(&fixture.leave().await, "ada-1+mfa")
        .await;
    let (status, page) = fixture.back(&back).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
}

/// Where nothing else may follow, a login without a word on its factors opens nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_amr_is_one_factor() {
    let fixture = Fixture::new().await;
    let request = v1::SetLocationRequest {
        name: "office".into(),
        factors: Some(v1::FactorNames {
            names: vec!["sso".into()],
        }),
        ..Default::default()
    };
    let admin = fixture.control.admin();
    admin
        .set_location(tonic::Request::new(request))
        .await
        .unwrap();
    let back = Browser::new()
        .sign_in(&fixture.leave().await, "ada-1")
        .await;
    let (status, page) = fixture.back(&back).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{page}");
    assert_eq!(fixture.session().await.0, StatusCode::NOT_FOUND);
    let back = Browser::new()
        .sign_in(&fixture.leave().await, "ada-1+mfa")
        .await;
    let (status, page) = fixture.back(&back).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_their_mind_is_told_so_and_states_are_the_portals() {
    let fixture = Fixture::new().await;
    let back = Browser::new().cancel(&fixture.leave().await).await;
    let (status, page) = fixture.back(&back).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(page.contains("access was denied there"), "{page}");

    let fresh = Browser::new()
        .sign_in(&fixture.leave().await, "ada-1+mfa")
        .await;
    let (status, _) = fixture.back(&with(&fresh, "state", "another")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = fixture.get("/login/sso/acme/callback?code=x").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = fixture.get("/login/sso/none/callback?code=x&state=y").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, page) = fixture.back(&fresh).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
}

/// What one browser has begun, no other one finishes: an address that somebody sends is worth nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_of_the_browser_that_began_it() {
    let fixture = Fixture::new().await;
    let back = Browser::new()
        .sign_in(&fixture.leave().await, "ada-1+mfa")
        .await;
    let mine = std::mem::take(&mut *fixture.cookie.lock().unwrap());
    let twice = format!("{mine}; {mine}");
    for other in ["", "__Host-portcullis-visitor=x", &twice] {
        other.clone_into(&mut fixture.cookie.lock().unwrap());
        let (status, page) = fixture.back(&back).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{page}");
        assert_eq!(fixture.session().await.0, StatusCode::NOT_FOUND);
    }
    // Two at once in one browser share its cookie.
    mine.clone_into(&mut fixture.cookie.lock().unwrap());
    fixture.leave().await;
    assert_eq!(*fixture.cookie.lock().unwrap(), mine);
    let (status, page) = fixture.back(&back).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_guards_and_the_back_channel() {
    let fixture = Fixture::new().await;
    // Whatever the request says of its host, the provider sends back to the portal's name.
    let response = fixture
        .send(post("/login/sso/acme", "evil.example:9"))
        .await;
    let page = text(response).await;
    assert!(
        page.contains("redirect_uri=https%3A%2F%2Flogin.example.com%3A8443%2F"),
        "{page}"
    );
    assert!(!page.contains("evil"), "{page}");
    // Terminals send their users to a page of ours, which begins nothing by itself.
    let (_, offered) = fixture.get("/api/v1/login/sso").await;
    let offered: Value = serde_json::from_str(&offered).unwrap();
    let page = format!("https://{HOST}/login/sso/acme");
    assert_eq!(offered, json!({ "providers": ["acme"], "pages": [page] }));
    let (status, page) = fixture.get("/login/sso/acme").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        page.contains("method=\"post\" action=\"/login/sso/acme\""),
        "{page}"
    );
    assert!(!page.contains(&fixture.provider.issuer), "{page}");
    let (status, _) = fixture.get("/login/sso/none").await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    // Another site cannot send a user off.
    let mut foreign = post("/login/sso/acme", HOST);
    let evil = header::HeaderValue::from_static("https://evil.example");
    foreign.headers_mut().insert(header::ORIGIN, evil);
    assert_eq!(fixture.send(foreign).await.status(), StatusCode::FORBIDDEN);
    let response = fixture.send(post("/login/sso/none", HOST)).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let off =
        app(fixture.control.logins(), None, None).layer(Extension(DeviceAddr(fixture.laptop)));
    let response = off.oneshot(post("/login/sso/acme", HOST)).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let on_portal = fixture.send(post("/sso/acme/backchannel", HOST)).await;
    assert_eq!(
        on_portal.status(),
        StatusCode::NOT_FOUND,
        "not where devices are"
    );

    let from: IpAddr = [203, 0, 113, 1].into();
    let told = backchannel_app(sso(&fixture.control)).layer(Extension(PublicAddr(from)));
    let tell = async |provider: &str, body: String| {
        let mut request = post(&format!("/sso/{provider}/backchannel"), "203.0.113.5");
        *request.body_mut() = Body::from(body);
        told.clone().oneshot(request).await.unwrap().status()
    };
    assert_eq!(
        tell("acme", "logout_token=a.b.c".into()).await,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        tell("acme", "token=x".into()).await,
        StatusCode::BAD_REQUEST
    );
    let large = format!("logout_token={}", "x".repeat(20_000));
    assert_eq!(tell("acme", large).await, StatusCode::BAD_REQUEST);
    assert_eq!(
        tell("none", "logout_token=x".into()).await,
        StatusCode::NOT_FOUND
    );
    let mut last = StatusCode::OK;
    for _ in 0..400 {
        if last == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
        last = tell("acme", "logout_token=x".into()).await;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}
