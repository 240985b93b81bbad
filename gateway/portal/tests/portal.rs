//! The portal in front of a real control service on SQLite: what a device's requests are answered.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use axum::{Extension, Router};
use portcullis_control::{Clock, Control, ControlConfig};
use portcullis_portal::{DeviceAddr, app};
use portcullis_proto::v1::admin_server::Admin as _;
use portcullis_proto::v1::{
    AddDeviceRequest, AddLocationRequest, AddUserRequest, FactorNames, Location, NameRequest,
    ResetFactorsRequest, SetLocationRequest,
};
use tempfile::TempDir;
use totp_rs::Totp;
use tower::ServiceExt as _;

const PASSWORD: &str = "correct horse battery";
const HOST: &str = "10.77.0.1:8443";
const ORIGIN: &str = "https://10.77.0.1:8443";
const START_MS: i64 = 1_800_000_000_000;

/// Ada's laptop at a location without gateways, and the portal as that laptop sees it.
struct Fixture {
    control: Control,
    now_ms: Arc<AtomicI64>,
    laptop: IpAddr,
    totp: Totp,
    _state: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let config = ControlConfig {
            database: format!("sqlite://{}/portcullis.db", state.path().display()),
            state_dir: state.path().join("state"),
            admin_socket: state.path().join("admin.sock"),
            ..ControlConfig::default()
        };
        let now_ms = Arc::new(AtomicI64::new(START_MS));
        let control = Control::open_with_clock(config, Clock::stepped(now_ms.clone()))
            .await
            .unwrap();
        let admin = control.admin();
        let location = Location {
            name: "office".to_owned(),
            pools: vec!["10.77.0.0/24".to_owned()],
            endpoint: "vpn.example.org:51820".to_owned(),
            ..Location::default()
        };
        let location = AddLocationRequest {
            location: Some(location),
            ..Default::default()
        };
        admin
            .add_location(tonic::Request::new(location))
            .await
            .unwrap();
        let user = AddUserRequest {
            name: "ada".to_owned(),
            password: PASSWORD.to_owned(),
            ..AddUserRequest::default()
        };
        let user = admin
            .add_user(tonic::Request::new(user))
            .await
            .unwrap()
            .into_inner();
        let device = AddDeviceRequest {
            name: "laptop".to_owned(),
            user: "ada".to_owned(),
            location: "office".to_owned(),
            public_key: vec![7; 32],
            preshared_key: false,
            for_ms: 0,
        };
        let device = admin
            .add_device(tonic::Request::new(device))
            .await
            .unwrap()
            .into_inner();
        let address = device.device.unwrap().addresses.remove(0);
        let laptop = address.split('/').next().unwrap().parse().unwrap();
        Self {
            control,
            now_ms,
            laptop,
            totp: Totp::from_url(&user.totp_uri).unwrap(),
            _state: state,
        }
    }

    async fn recovery_codes(&self) -> Vec<String> {
        let request = NameRequest {
            name: "ada".to_owned(),
        };
        let admin = self.control.admin();
        let made = admin.new_recovery_codes(tonic::Request::new(request));
        made.await.unwrap().into_inner().codes
    }

    async fn set_factors(&self, names: &[&str]) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let request = SetLocationRequest {
            name: "office".to_owned(),
            factors: Some(FactorNames { names }),
            ..SetLocationRequest::default()
        };
        let admin = self.control.admin();
        let set = admin.set_location(tonic::Request::new(request));
        set.await.unwrap();
    }

    /// The portal as seen from an address.
    fn portal_from(&self, from: IpAddr) -> Router {
        app(self.control.logins(), None, None).layer(Extension(DeviceAddr(from)))
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.portal_from(self.laptop)
            .oneshot(request)
            .await
            .unwrap()
    }

    fn code(&self) -> String {
        let now_s = self.now_ms.load(Ordering::SeqCst) / 1000;
        self.totp.generate(now_s.try_into().unwrap()).to_string()
    }

    async fn begin(&self) -> String {
        let body = format!(r#"{{"username":"ada","password":"{PASSWORD}"}}"#);
        let answer = json(self.send(post_json("/api/v1/login", &body)).await).await;
        assert_eq!(answer["next"], "totp");
        answer["attempt"].as_str().unwrap().to_owned()
    }
}

fn request(
    method: Method,
    path: &str,
    content_type: Option<&str>,
    origin: Option<&str>,
    body: &str,
) -> Request<Body> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, HOST);
    if let Some(content_type) = content_type {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    if let Some(origin) = origin {
        request = request.header(header::ORIGIN, origin);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

fn post_json(path: &str, body: &str) -> Request<Body> {
    request(Method::POST, path, Some("application/json"), None, body)
}

fn post_form(path: &str, origin: Option<&str>, body: &str) -> Request<Body> {
    request(
        Method::POST,
        path,
        Some("application/x-www-form-urlencoded"),
        origin,
        body,
    )
}

fn get(path: &str) -> Request<Body> {
    request(Method::GET, path, None, None, "")
}

async fn text(response: Response<Body>) -> String {
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn json(response: Response<Body>) -> serde_json::Value {
    serde_json::from_str(&text(response).await).unwrap()
}

#[tokio::test]
async fn a_login_through_the_api_and_its_end() {
    let fixture = Fixture::new().await;
    assert_eq!(
        fixture.send(get("/api/v1/session")).await.status(),
        StatusCode::NOT_FOUND
    );

    let attempt = fixture.begin().await;
    let code = format!(r#"{{"code":"{}"}}"#, fixture.code());
    let response = fixture
        .send(post_json(&format!("/api/v1/login/{attempt}/totp"), &code))
        .await;
    assert_eq!(response.status(), StatusCode::OK);
    let session = json(response).await;
    assert_eq!(
        (&session["user"], &session["device"]),
        (&"ada".into(), &"laptop".into())
    );
    assert_eq!(session["level"], "mfa");
    assert_eq!(session["authenticated_at"], "2027-01-15T08:00:00Z");

    assert_eq!(
        json(fixture.send(get("/api/v1/session")).await).await,
        session
    );
    let end = || request(Method::DELETE, "/api/v1/session", None, None, "");
    assert_eq!(fixture.send(end()).await.status(), StatusCode::OK);
    assert_eq!(fixture.send(end()).await.status(), StatusCode::NOT_FOUND);
}

/// An administrator has voided a factor, which could have been an attacker's doing: its user is told.
#[tokio::test]
async fn the_session_page_tells_of_a_reset_and_escapes_its_reason() {
    let fixture = Fixture::new().await;
    let reset = ResetFactorsRequest {
        name: "ada".to_owned(),
        reason: "list <lost>".to_owned(),
        factors: vec!["recovery-code".to_owned()],
        ..Default::default()
    };
    let admin = fixture.control.admin();
    admin
        .reset_factors(tonic::Request::new(reset))
        .await
        .unwrap();
    const DAY_MS: i64 = 24 * 3600 * 1000;
    // For a week, whoever logs in first.
    for (tells, later_ms) in [(true, DAY_MS), (true, 6 * DAY_MS), (false, 0)] {
        let attempt = fixture.begin().await;
        let code = format!(r#"{{"code":"{}"}}"#, fixture.code());
        let path = format!("/api/v1/login/{attempt}/totp");
        let response = fixture.send(post_json(&path, &code)).await;
        assert_eq!(response.status(), StatusCode::OK);
        let told = &json(response).await["reset"]["reason"];
        assert_eq!(told == "list <lost>", tells, "{told}");
        let page = text(fixture.send(get("/")).await).await;
        assert_eq!(page.contains("An administrator reset"), tells, "{page}");
        assert_eq!(page.contains("list &#60;lost&#62;"), tells, "{page}");
        fixture.now_ms.fetch_add(later_ms, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_login_through_the_pages() {
    let fixture = Fixture::new().await;
    assert!(
        text(fixture.send(get("/")).await)
            .await
            .contains("action=\"/login\"")
    );

    let form = "username=ada&password=correct+horse+battery";
    let page = text(fixture.send(post_form("/login", Some(ORIGIN), form)).await).await;
    let action = page
        .split("action=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let form = format!("code=+{}+", fixture.code());
    let response = fixture.send(post_form(action, Some(ORIGIN), &form)).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(response.headers()[header::LOCATION], "/");
    assert!(
        text(fixture.send(get("/")).await)
            .await
            .contains("You are signed in")
    );

    let response = fixture.send(post_form("/logout", Some(ORIGIN), "")).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert!(text(fixture.send(get("/")).await).await.contains("Sign in"));
}

#[tokio::test]
async fn the_first_step_says_what_would_do_next() {
    let fixture = Fixture::new().await;
    let body = format!(r#"{{"username":"ada","password":"{PASSWORD}"}}"#);
    let answer = json(fixture.send(post_json("/api/v1/login", &body)).await).await;
    assert_eq!(
        (&answer["next"], &answer["expires_in_s"]),
        (&"totp".into(), &300.into())
    );
    let all = ["totp", "recovery-code", "passkey"];
    assert_eq!(answer["factors"], serde_json::json!(all));

    fixture.set_factors(&["passkey", "password"]).await;
    let answer = json(fixture.send(post_json("/api/v1/login", &body)).await).await;
    assert_eq!(answer["next"], "passkey");
    assert_eq!(answer["factors"], serde_json::json!(["passkey"]));
}

#[tokio::test]
async fn a_recovery_code_stands_in_for_the_authenticator() {
    let fixture = Fixture::new().await;
    let codes = fixture.recovery_codes().await;
    let attempt = fixture.begin().await;
    let send = async |code: &str| {
        let body = format!(r#"{{"code":"{code}"}}"#);
        let path = format!("/api/v1/login/{attempt}/recovery");
        fixture.send(post_json(&path, &body)).await
    };
    let wrong = send("AAAA-AAAA-AAAA-AAAA-AAAA-AAAA").await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    let right = send(&codes[0]).await;
    assert_eq!(right.status(), StatusCode::OK);
    assert_eq!(json(right).await["level"], "mfa");

    // The same through the pages, where it is offered only where it is allowed.
    let form = "username=ada&password=correct+horse+battery";
    let page = text(fixture.send(post_form("/login", Some(ORIGIN), form)).await).await;
    let action = page
        .split("action=\"")
        .find(|part| part.contains("/recovery\""))
        .unwrap();
    let action = action.split('"').next().unwrap();
    let spent = format!("code={}", codes[0]);
    let spent = fixture.send(post_form(action, Some(ORIGIN), &spent)).await;
    assert_eq!(spent.status(), StatusCode::UNAUTHORIZED);
    let again = text(spent).await;
    assert!(
        again.contains("role=\"alert\"") && again.contains(action),
        "{again}"
    );
    let good = format!("code={}", codes[1].to_lowercase().replace('-', "+"));
    let done = fixture.send(post_form(action, Some(ORIGIN), &good)).await;
    assert_eq!(done.status(), StatusCode::SEE_OTHER);
    fixture.set_factors(&["password", "totp"]).await;
    let page = text(fixture.send(post_form("/login", Some(ORIGIN), form)).await).await;
    assert!(
        page.contains("/totp\"") && !page.contains("/recovery\""),
        "{page}"
    );
}

#[tokio::test]
async fn wrong_secrets_are_refused_and_then_delayed() {
    let fixture = Fixture::new().await;
    let wrong = r#"{"username":"ada","password":"wrong horse"}"#;
    for _ in 0..5 {
        let response = fixture.send(post_json("/api/v1/login", wrong)).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(json(response).await["code"], "refused");
    }
    let right = format!(r#"{{"username":"ada","password":"{PASSWORD}"}}"#);
    let response = fixture.send(post_json("/api/v1/login", &right)).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    let refusal = json(response).await;
    assert_eq!(refusal["code"], "delayed");
    assert!(refusal["retry_after_s"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn an_attempt_is_bound_to_its_device() {
    let fixture = Fixture::new().await;
    let attempt = fixture.begin().await;
    let code = format!(r#"{{"code":"{}"}}"#, fixture.code());
    let elsewhere = fixture.portal_from("10.77.0.99".parse().unwrap());
    let request = post_json(&format!("/api/v1/login/{attempt}/totp"), &code);
    assert!(
        elsewhere
            .oneshot(request)
            .await
            .unwrap()
            .status()
            .is_client_error()
    );
    let response = fixture
        .send(post_json("/api/v1/login/guess/totp", &code))
        .await;
    assert_eq!(json(response).await["code"], "unknown_attempt");
}

#[tokio::test]
async fn who_asks_is_told_by_the_socket_and_no_header() {
    let fixture = Fixture::new().await;
    let stranger = fixture.portal_from("10.77.0.99".parse().unwrap());
    let mut request = post_json(
        "/api/v1/login",
        &format!(r#"{{"username":"ada","password":"{PASSWORD}"}}"#),
    );
    for name in ["x-forwarded-for", "x-real-ip"] {
        request
            .headers_mut()
            .insert(name, fixture.laptop.to_string().parse().unwrap());
    }
    request.headers_mut().insert(
        "forwarded",
        format!("for={}", fixture.laptop).parse().unwrap(),
    );
    let response = stranger.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(json(response).await["code"], "unknown_device");
}

#[tokio::test]
async fn other_sites_cannot_use_the_browser_of_a_device() {
    let fixture = Fixture::new().await;
    let form = "username=ada&password=correct+horse+battery";
    for origin in [Some("https://evil.example"), Some("null"), None] {
        let response = fixture.send(post_form("/login", origin, form)).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{origin:?}");
    }
    let response = fixture
        .send(post_form("/logout", Some("https://evil.example"), ""))
        .await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let end = request(
        Method::DELETE,
        "/api/v1/session",
        None,
        Some("https://evil.example"),
        "",
    );
    assert_eq!(fixture.send(end).await.status(), StatusCode::FORBIDDEN);
    // What a cross-site form can send as JSON without asking first.
    let body = format!(r#"{{"username":"ada","password":"{PASSWORD}"}}"#);
    let plain = request(
        Method::POST,
        "/api/v1/login",
        Some("text/plain"),
        Some(ORIGIN),
        &body,
    );
    assert_eq!(
        fixture.send(plain).await.status(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
}

#[tokio::test]
async fn malformed_and_oversized_bodies_are_refused_without_repeating_them() {
    let fixture = Fixture::new().await;
    let large = format!(
        r#"{{"username":"ada","password":"{}"}}"#,
        "x".repeat(20_000)
    );
    let response = fixture.send(post_json("/api/v1/login", &large)).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    for body in [
        "",
        "{",
        "[]",
        r#"{"username":"ada"}"#,
        r#"{"username":"ada","password":"sesame","more":1}"#,
    ] {
        let response = fixture.send(post_json("/api/v1/login", body)).await;
        assert!(response.status().is_client_error(), "{body}");
        let text = text(response).await;
        assert!(
            text.contains("bad_request") && !text.contains("sesame"),
            "{text}"
        );
    }
    let large = format!("username=ada&password={}", "x".repeat(20_000));
    let response = fixture
        .send(post_form("/login", Some(ORIGIN), &large))
        .await;
    assert!(response.status().is_client_error());
}

#[tokio::test]
async fn pages_carry_security_headers_and_escape_what_they_show() {
    let fixture = Fixture::new().await;
    let form = "username=%3Cscript%3E&password=wrong+horse";
    let response = fixture.send(post_form("/login", Some(ORIGIN), form)).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let headers = response.headers().clone();
    assert!(
        headers["content-security-policy"]
            .to_str()
            .unwrap()
            .starts_with("default-src 'none'")
    );
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["cache-control"], "no-store");
    let page = text(response).await;
    assert!(
        !page.contains("<script>") && page.contains("script"),
        "{page}"
    );
    // Refusals that come before the pages carry them too.
    let refused = fixture.send(post_form("/login", None, form)).await;
    assert!(refused.headers().contains_key("content-security-policy"));
}
