//! Passkeys through the portal: the calls, the pages, and where they are offered. What is checked of a
//! credential itself is in control's tests.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../control/tests/control/authenticator.rs"]
mod authenticator;

use std::net::IpAddr;

use authenticator::Authenticator;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use axum::{Extension, Router};
use portcullis_control::{Control, ControlConfig, PortalName};
use portcullis_portal::{DeviceAddr, app};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

const NAME: &str = "login.example.com";
const HOST: &str = "login.example.com:8443";
const ORIGIN: &str = "https://login.example.com:8443";
const PASSWORD: &str = "correct horse battery";

/// Ada's laptop, and the portal as that laptop sees it.
struct Fixture {
    control: Control,
    laptop: IpAddr,
    _state: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let config = ControlConfig {
            database: format!("sqlite://{}/portcullis.db", state.path().display()),
            state_dir: state.path().join("state"),
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
        let location = Some(location);
        let location = tonic::Request::new(v1::AddLocationRequest {
            location,
            ..Default::default()
        });
        admin.add_location(location).await.unwrap();
        let user = v1::AddUserRequest {
            name: "ada".into(),
            password: PASSWORD.into(),
            ..Default::default()
        };
        admin.add_user(tonic::Request::new(user)).await.unwrap();
        let device = v1::AddDeviceRequest {
            name: "laptop".into(),
            user: "ada".into(),
            public_key: vec![7; 32],
            ..Default::default()
        };
        let added = admin.add_device(tonic::Request::new(device)).await.unwrap();
        let device = added.into_inner().device.unwrap();
        Self {
            laptop: device.addresses[0].parse().unwrap(),
            control,
            _state: state,
        }
    }

    /// A session at level `mfa`.
    async fn sign_in(&self) {
        let session = v1::AddSessionRequest {
            device: "laptop".into(),
            ..Default::default()
        };
        let admin = self.control.admin();
        admin
            .add_session(tonic::Request::new(session))
            .await
            .unwrap();
    }

    fn portal(&self) -> Router {
        let name = PortalName::parse(NAME).unwrap();
        let passkeys = self.control.passkeys(name, &[8443]).unwrap();
        app(self.control.logins(), Some(passkeys), None).layer(Extension(DeviceAddr(self.laptop)))
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.portal().oneshot(request).await.unwrap()
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let request = from_page(method, path, "application/json", &body.to_string());
        let response = self.send(request).await;
        let status = response.status();
        (status, serde_json::from_str(&text(response).await).unwrap())
    }

    async fn register(&self, key: &mut Authenticator) -> (StatusCode, Value) {
        let begin = "/api/v1/passkeys/register/begin";
        let (status, begun) = self.call(Method::POST, begin, json!({})).await;
        assert_eq!(status, StatusCode::OK, "{begun}");
        let made = json!({
            "ceremony": begun["ceremony"], "name": "Blue key", "credential": key.create(&begun),
        });
        let finish = "/api/v1/passkeys/register/finish";
        self.call(Method::POST, finish, made).await
    }

    async fn log_in(&self, path: &str, key: &mut Authenticator) -> (StatusCode, Value) {
        let begin = format!("{path}/begin");
        let (status, begun) = self.call(Method::POST, &begin, json!({})).await;
        assert_eq!(status, StatusCode::OK, "{begun}");
        let proof = json!({ "ceremony": begun["ceremony"], "credential": key.get(&begun) });
        self.call(Method::POST, &format!("{path}/finish"), proof)
            .await
    }
}

fn from_page(method: Method, path: &str, kind: &str, body: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, HOST)
        .header(header::ORIGIN, ORIGIN)
        .header("sec-fetch-site", "same-origin")
        .header(header::CONTENT_TYPE, kind)
        .body(Body::from(body.to_owned()))
        .unwrap()
}

fn get(path: &str, host: &str) -> Request<Body> {
    let request = Request::builder().uri(path).header(header::HOST, host);
    request.body(Body::empty()).unwrap()
}

async fn text(response: Response<Body>) -> String {
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn key() -> Authenticator {
    Authenticator::new("key", ORIGIN, NAME)
}

#[tokio::test]
async fn a_passkey_from_its_registration_to_its_removal() {
    let fixture = Fixture::new().await;
    let mut key = key();
    fixture.sign_in().await;
    let (status, added) = fixture.register(&mut key).await;
    assert_eq!(status, StatusCode::CREATED, "{added}");
    assert_eq!(added["passkey"]["name"], "Blue key");

    let (status, session) = fixture.log_in("/api/v1/login/passkey", &mut key).await;
    assert_eq!(status, StatusCode::OK, "{session}");
    assert_eq!(session["level"], "phishing-resistant");

    let (_, list) = fixture
        .call(Method::GET, "/api/v1/passkeys", json!({}))
        .await;
    assert_eq!(list["change_needs"], Value::Null);
    assert!(list["passkeys"][0]["last_used_at"].is_string());
    let path = format!(
        "/api/v1/passkeys/{}",
        list["passkeys"][0]["id"].as_str().unwrap()
    );
    let (status, renamed) = fixture
        .call(Method::PATCH, &path, json!({ "name": "Green key" }))
        .await;
    assert_eq!(
        (status, &renamed["name"]),
        (StatusCode::OK, &"Green key".into())
    );
    let removal = format!("{path}?end_other_sessions=true");
    let (status, removed) = fixture.call(Method::DELETE, &removal, json!({})).await;
    assert_eq!(status, StatusCode::OK, "{removed}");
    assert_eq!(removed["ended_sessions"], 0);
    let (status, gone) = fixture.call(Method::DELETE, &path, json!({})).await;
    assert_eq!(
        (status, &gone["code"]),
        (StatusCode::NOT_FOUND, &"unknown_passkey".into())
    );
    let begin = "/api/v1/login/passkey/begin";
    let (status, none) = fixture.call(Method::POST, begin, json!({})).await;
    assert_eq!(
        (status, &none["code"]),
        (StatusCode::NOT_FOUND, &"no_passkey".into())
    );
}

#[tokio::test]
async fn a_passkey_is_the_second_step_after_the_password() {
    let fixture = Fixture::new().await;
    let mut key = key();
    fixture.sign_in().await;
    fixture.register(&mut key).await;
    let login = json!({ "username": "ada", "password": PASSWORD });
    let (_, begun) = fixture.call(Method::POST, "/api/v1/login", login).await;
    let path = format!(
        "/api/v1/login/{}/passkey",
        begun["attempt"].as_str().unwrap()
    );
    let (status, session) = fixture.log_in(&path, &mut key).await;
    assert_eq!(status, StatusCode::OK, "{session}");
    assert_eq!(session["level"], "phishing-resistant");
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let fixture = Fixture::new().await;
    let begin = "/api/v1/passkeys/register/begin";
    let (status, refused) = fixture.call(Method::POST, begin, json!({})).await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::UNAUTHORIZED, &"login_required".into())
    );
    fixture.sign_in().await;
    let mut key = key();
    key.verifies = false;
    let (status, refused) = fixture.register(&mut key).await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::UNAUTHORIZED, &"not_verified".into())
    );
    key.verifies = true;
    fixture.register(&mut key).await;
    let (status, refused) = fixture.call(Method::POST, begin, json!({})).await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::FORBIDDEN, &"fresh_login_required".into())
    );
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .contains("with a passkey")
    );
    // What is no credential at all is not repeated.
    for body in [
        json!({}),
        json!({ "ceremony": "sesame", "credential": { "id": "x" } }),
    ] {
        let path = "/api/v1/login/passkey/finish";
        let (status, refused) = fixture.call(Method::POST, path, body).await;
        assert!(status.is_client_error());
        assert_eq!(refused["code"], "bad_request");
        assert!(!refused.to_string().contains("sesame"));
    }
}

#[tokio::test]
async fn without_a_name_passkeys_are_off() {
    let fixture = Fixture::new().await;
    let portal =
        app(fixture.control.logins(), None, None).layer(Extension(DeviceAddr(fixture.laptop)));
    let begin = "/api/v1/login/passkey/begin";
    let request = from_page(Method::POST, begin, "application/json", "{}");
    let response = portal.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let refused: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(refused["code"], "passkeys_off");
    let home = portal.oneshot(get("/", HOST)).await.unwrap();
    let home = text(home).await;
    assert!(!home.contains("asskey"), "{home}");
}

#[tokio::test]
async fn passkeys_are_offered_where_browsers_have_them() {
    let fixture = Fixture::new().await;
    let by_name = text(fixture.send(get("/", HOST)).await).await;
    assert!(by_name.contains("data-passkey=\"login\""), "{by_name}");
    let by_address = text(fixture.send(get("/", "10.77.0.1:8443")).await).await;
    assert!(!by_address.contains("data-passkey"), "{by_address}");
    assert!(by_address.contains("href=\"https://login.example.com:8443/\""));
    let form = "username=ada&password=correct+horse+battery";
    let request = from_page(
        Method::POST,
        "/login",
        "application/x-www-form-urlencoded",
        form,
    );
    let code = text(fixture.send(request).await).await;
    assert!(code.contains("/passkey/begin\""), "{code}");
}

#[tokio::test]
async fn the_page_renames_and_removes_without_a_script() {
    let fixture = Fixture::new().await;
    // Without a session there is nothing to see.
    let response = fixture.send(get("/passkeys", HOST)).await;
    assert_eq!(response.headers()[header::LOCATION], "/");
    fixture.sign_in().await;
    let mut key = key();
    let (_, added) = fixture.register(&mut key).await;
    let page = text(fixture.send(get("/passkeys", HOST)).await).await;
    assert!(page.contains("Blue key") && page.contains("sign in again with a passkey"));
    assert!(!page.contains("Remove this passkey"));

    fixture.log_in("/api/v1/login/passkey", &mut key).await;
    let id = added["passkey"]["id"].as_str().unwrap();
    let form = "application/x-www-form-urlencoded";
    let rename = format!("/passkeys/{id}/rename");
    let request = from_page(Method::POST, &rename, form, "name=%3Cb%3EGreen");
    let response = fixture.send(request).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let page = text(fixture.send(get("/passkeys", HOST)).await).await;
    assert!(
        page.contains("Green") && !page.contains("<b>Green"),
        "{page}"
    );
    let request = from_page(Method::POST, &rename, form, "name=+");
    let response = fixture.send(request).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(text(response).await.contains("role=\"alert\""));
    let request = from_page(Method::POST, &format!("/passkeys/{id}/remove"), form, "");
    let response = fixture.send(request).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let page = text(fixture.send(get("/passkeys", HOST)).await).await;
    assert!(page.contains("You have none yet"), "{page}");
}

#[tokio::test]
async fn other_sites_cannot_use_passkeys_here() {
    let fixture = Fixture::new().await;
    fixture.sign_in().await;
    for path in [
        "/api/v1/passkeys/register/begin",
        "/api/v1/login/passkey/begin",
        "/passkeys/x/remove",
    ] {
        let mut request = from_page(Method::POST, path, "application/json", "{}");
        let headers = request.headers_mut();
        headers.insert(header::ORIGIN, "https://evil.example".parse().unwrap());
        headers.insert("sec-fetch-site", "cross-site".parse().unwrap());
        assert_eq!(fixture.send(request).await.status(), StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn the_script_is_a_file_of_ours_and_none_is_inline() {
    let fixture = Fixture::new().await;
    fixture.sign_in().await;
    let script = fixture.send(get("/passkeys.js", HOST)).await;
    assert_eq!(
        script.headers()[header::CONTENT_TYPE],
        "text/javascript; charset=utf-8"
    );
    let script = text(script).await;
    assert!(!script.contains("innerHTML") && !script.contains("eval("));
    for path in ["/", "/sign-in", "/passkeys", "/devices", "/sessions"] {
        let response = fixture.send(get(path, HOST)).await;
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str();
        let policy = policy.unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; connect-src 'self';"));
        assert!(!policy.contains("unsafe"), "{policy}");
        let page = text(response).await;
        for tag in page.split("<script").skip(1) {
            let file = tag.strip_prefix(" src=\"/").unwrap();
            let (name, rest) = file.split_once(".js").unwrap();
            assert!(name.chars().all(|c| c.is_ascii_lowercase()), "{page}");
            assert!(rest.starts_with("\" defer></script>"), "{page}");
        }
        assert!(!page.contains(" onclick=") && !page.contains(" style="));
    }
}
