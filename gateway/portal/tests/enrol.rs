//! Enrolment over HTTP, as strangers outside of the tunnel see it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use axum::{Extension, Router};
use portcullis_control::{Clock, Control, ControlConfig};
use portcullis_portal::{DeviceAddr, PublicAddr, app, public_app};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use totp_rs::Totp;
use tower::ServiceExt as _;

const HOST: &str = "login.example.com";
const PAGE: &str = "https://login.example.com/enrol";
const START_MS: i64 = 1_800_000_000_000;
const FROM: &str = "198.51.100.7";
const CHOSEN: &str = "a fine new phrase";

struct Fixture {
    control: Control,
    portal: Router,
    now_ms: Arc<AtomicI64>,
    _state: TempDir,
}

/// What a request was answered.
struct Answer {
    status: StatusCode,
    headers: header::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The value of the hidden field that names the enrolment.
    fn enrolment(&self) -> String {
        let (_, rest) = self.text.split_once("name=\"enrolment\" value=\"").unwrap();
        rest.split('"').next().unwrap().to_owned()
    }

    /// The secret that is there to be typed.
    fn secret(&self) -> String {
        let (_, rest) = self.text.split_once("<code id=\"secret\">").unwrap();
        rest.split('<').next().unwrap().replace(' ', "")
    }
}

impl Fixture {
    async fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let config = ControlConfig {
            database: format!("sqlite://{}/portcullis.db", state.path().display()),
            state_dir: state.path().join("state"),
            ..ControlConfig::default()
        };
        let now_ms = Arc::new(AtomicI64::new(START_MS));
        let clock = Clock::stepped(now_ms.clone());
        let control = Control::open_with_clock(config, clock).await.unwrap();
        control.serve_enrolments_at(PAGE.to_owned());
        let user = v1::AddUserRequest {
            name: "ada".to_owned(),
            invite: true,
            ..Default::default()
        };
        let admin = control.admin();
        admin.add_user(tonic::Request::new(user)).await.unwrap();
        Self {
            portal: public_app(control.enrolments(), control.connects(), None, None),
            control,
            now_ms,
            _state: state,
        }
    }

    /// A fresh link's token.
    async fn token(&self) -> String {
        let request = v1::InviteUserRequest {
            name: "ada".to_owned(),
            ..Default::default()
        };
        let admin = self.control.admin();
        let link = admin.invite_user(tonic::Request::new(request)).await;
        let url = link.unwrap().into_inner().url;
        url.strip_prefix(&format!("{PAGE}#")).unwrap().to_owned()
    }

    async fn ask(&self, from: &str, request: Request<Body>) -> Answer {
        let from: IpAddr = from.parse().unwrap();
        let portal = self.portal.clone().layer(Extension(PublicAddr(from)));
        let response = portal.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(
            FROM,
            request(Method::GET, path).body(Body::empty()).unwrap(),
        )
        .await
    }

    async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let fields: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", value.replace(' ', "+").replace('#', "%23")))
            .collect();
        let form = request(Method::POST, path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ORIGIN, "https://login.example.com");
        self.ask(FROM, form.body(Body::from(fields.join("&"))).unwrap())
            .await
    }

    async fn call(&self, path: &str, body: Value) -> Answer {
        let call = request(Method::POST, path).header(header::CONTENT_TYPE, "application/json");
        self.ask(FROM, call.body(Body::from(body.to_string())).unwrap())
            .await
    }

    fn code(&self, secret: &str) -> String {
        let uri = format!("otpauth://totp/Portcullis:ada?secret={secret}&issuer=Portcullis");
        let now_ms = self.now_ms.load(Ordering::SeqCst);
        let totp = Totp::from_url(&uri).unwrap();
        totp.generate(now_ms.unsigned_abs() / 1000).to_string()
    }

    async fn audited(&self, action: &str) -> usize {
        let request = tonic::Request::new(v1::ListAuditRequest { limit: 0 });
        let records = self.control.admin().list_audit(request).await.unwrap();
        let records = records.into_inner().records;
        records.iter().filter(|r| r.action == action).count()
    }
}

fn request(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, HOST)
}

#[tokio::test]
async fn the_pages_lead_from_the_link_to_recovery_codes() {
    let fixture = Fixture::new().await;
    let token = fixture.token().await;
    // Mail scanners open links, again and again.
    for _ in 0..5 {
        let page = fixture.get("/enrol").await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.text.contains("Set up your account"));
        let policy = page.headers[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"));
        assert_eq!(page.headers[header::CACHE_CONTROL], "no-store");
    }
    assert_eq!(fixture.audited("enrolment.begin").await, 0);
    // Pasted whole, where there is no script.
    let link = format!("{PAGE}#{token}");
    let choose = fixture.form("/enrol", &[("link", &link)]).await;
    assert_eq!(choose.status, StatusCode::OK);
    assert!(choose.text.contains("<strong>ada</strong>"));
    assert!(!choose.text.contains(&token), "the link is not repeated");
    let id = choose.enrolment();
    let send = async |password: &str, again: &str| {
        let fields = [
            ("enrolment", id.as_str()),
            ("password", password),
            ("again", again),
        ];
        fixture.form("/enrol/password", &fields).await
    };
    for (password, again, says) in [
        ("Password1", "Password1", "most common ones"),
        ("short77", "short77", "at least 8 characters"),
        ("the ada way", "the ada way", "contain the user"),
        (CHOSEN, "another phrase", "differ"),
    ] {
        let refused = send(password, again).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.text.contains(says), "{}", refused.text);
        assert!(!refused.text.contains(password), "no password is repeated");
        assert_eq!(refused.enrolment(), id, "it goes on from here");
    }
    let confirm = send(CHOSEN, CHOSEN).await;
    assert_eq!(confirm.status, StatusCode::OK);
    assert!(confirm.text.contains("<svg "), "the QR code is in the page");
    let secret = confirm.secret();
    let finish = async |code: &str| {
        let fields = [("enrolment", id.as_str()), ("code", code)];
        fixture.form("/enrol/totp", &fields).await
    };
    let wrong = finish("12345x").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert!(wrong.text.contains("The code is wrong or too old."));
    assert_eq!(wrong.secret(), secret, "the same authenticator again");
    let done = finish(&fixture.code(&secret)).await;
    assert_eq!(done.status, StatusCode::OK);
    assert_eq!(done.text.matches("<li><code>").count(), 10);
    for used in [
        finish(&fixture.code(&secret)).await,
        send(CHOSEN, CHOSEN).await,
        fixture.form("/enrol", &[("link", &token)]).await,
    ] {
        assert_eq!(used.status, StatusCode::NOT_FOUND);
        assert!(used.text.contains("This link is not good"));
    }
    assert_eq!(fixture.audited("user.enrol").await, 1);
}

#[tokio::test]
async fn programs_enrol_in_json() {
    let fixture = Fixture::new().await;
    let token = fixture.token().await;
    let begun = fixture
        .call("/api/v1/enrol", json!({ "token": token }))
        .await;
    assert_eq!(begun.status, StatusCode::OK, "{}", begun.text);
    let begun = begun.json();
    assert_eq!(
        (&begun["user"], &begun["next"]),
        (&json!("ada"), &json!("password"))
    );
    let enrolment = &begun["enrolment"];
    let weak = json!({ "enrolment": enrolment, "password": "12345678" });
    let weak = fixture.call("/api/v1/enrol/password", weak).await;
    assert_eq!(weak.status, StatusCode::BAD_REQUEST);
    assert_eq!(weak.json()["code"], "weak_password");
    let early = json!({ "enrolment": enrolment, "code": "000000" });
    let early = fixture.call("/api/v1/enrol/totp", early).await;
    assert_eq!(early.json()["code"], "password_first");
    let chosen = json!({ "enrolment": enrolment, "password": CHOSEN });
    let chosen = fixture.call("/api/v1/enrol/password", chosen).await.json();
    assert_eq!(chosen["next"], "totp");
    let code = fixture.code(chosen["totp_secret"].as_str().unwrap());
    let done = json!({ "enrolment": enrolment, "code": code });
    let done = fixture.call("/api/v1/enrol/totp", done).await.json();
    assert_eq!(done["recovery_codes"].as_array().unwrap().len(), 10);
    // The portal of this test has no name, and the link names no location.
    assert_eq!(
        (&done["passkey"], &done["device_at"]),
        (&json!(false), &json!(null))
    );
    let enrolment = &done["enrolment"];
    let device = json!({ "enrolment": enrolment, "name": "x", "public_key": "x" });
    for (path, body, code) in [
        (
            "passkey/begin",
            json!({ "enrolment": enrolment }),
            "too_late",
        ),
        ("device", device, "bad_key"),
    ] {
        let refused = fixture.call(&format!("/api/v1/enrol/{path}"), body).await;
        assert_eq!(refused.json()["code"], code, "{}", refused.text);
    }
    for bad in [
        json!({}),
        json!({ "token": 7 }),
        json!({ "token": "", "more": 1 }),
    ] {
        let refused = fixture.call("/api/v1/enrol", bad).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let huge = json!({ "token": "x".repeat(20_000) });
    let refused = fixture.call("/api/v1/enrol", huge).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_link_that_is_not_good_is_told_from_no_other() {
    let fixture = Fixture::new().await;
    let replaced = fixture.token().await;
    let expired = fixture.token().await;
    fixture.now_ms.fetch_add(25 * 3_600_000, Ordering::SeqCst);
    let unknown = "portcullis_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let mut pages = Vec::new();
    for token in [replaced.as_str(), &expired, unknown, ""] {
        let page = fixture.form("/enrol", &[("link", token)]).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND);
        let call = fixture
            .call("/api/v1/enrol", json!({ "token": token }))
            .await;
        assert_eq!(call.json()["code"], "link_over");
        pages.push((page.text, call.text));
    }
    pages.dedup();
    assert_eq!(pages.len(), 1);
}

/// Outside of the tunnel an address is nobody's.
#[tokio::test]
async fn nothing_but_enrolment_is_served_outside() {
    let fixture = Fixture::new().await;
    let both = fixture
        .portal
        .clone()
        .layer(Extension(DeviceAddr([10, 77, 0, 2].into())));
    let fixture = Fixture {
        portal: both,
        ..fixture
    };
    for path in [
        "/sign-in",
        "/passkeys",
        "/api/v1/session",
        "/api/v1/passkeys",
    ] {
        assert_eq!(
            fixture.get(path).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    for path in ["/login", "/logout"] {
        let answer = fixture
            .form(path, &[("username", "ada"), ("password", "x")])
            .await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    let login = json!({ "username": "ada", "password": "x" });
    let answer = fixture.call("/api/v1/login", login).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    // And inside there is no enrolment.
    let inside = app(fixture.control.logins(), None, None);
    let inside = inside.layer(Extension(DeviceAddr([10, 77, 0, 2].into())));
    let get = request(Method::GET, "/enrol").body(Body::empty()).unwrap();
    let answer = inside.oneshot(get).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn other_sites_cannot_enrol_anybody() {
    let fixture = Fixture::new().await;
    let token = fixture.token().await;
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let form = request(Method::POST, "/enrol")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(name, value);
        let form = form.body(Body::from(format!("link={token}"))).unwrap();
        assert_eq!(fixture.ask(FROM, form).await.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(fixture.audited("enrolment.begin").await, 0);
}

#[tokio::test]
async fn a_network_has_its_share_whatever_its_headers_say() {
    let fixture = Fixture::new().await;
    let ask = async |from: String, path: &str, number: u32| {
        let get = request(Method::GET, path)
            .header("x-forwarded-for", format!("203.0.113.{}", number % 250))
            .header("forwarded", format!("for=203.0.113.{}", number % 250));
        fixture.ask(&from, get.body(Body::empty()).unwrap()).await
    };
    let mut served = 0;
    for number in 0..80 {
        // The whole of one /64.
        let from = format!("2001:db8:1:2::{number:x}");
        let answer = ask(from, "/enrol", number).await;
        match answer.status {
            StatusCode::OK => served += 1,
            status => {
                assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
                assert!(answer.headers.contains_key(header::RETRY_AFTER));
            }
        }
    }
    assert!((60..63).contains(&served), "{served}");
    let call = ask("2001:db8:1:2::1".to_owned(), "/api/v1/enrol", 1).await;
    assert_eq!(call.json()["code"], "delayed");
    let other = ask("2001:db8:1:3::1".to_owned(), "/enrol", 1).await;
    assert_eq!(other.status, StatusCode::OK);
}
