//! What every route makes of requests that no page of ours sends. The routes are those that the routers have: a new
//! one is tried as well. On PostgreSQL, which takes less than SQLite does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../control/tests/control/postgres.rs"]
#[expect(dead_code, reason = "control's own tests use more of it")]
mod postgres;

use std::collections::BTreeSet;
use std::net::IpAddr;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::{Extension, Router};
use portcullis_control::{Control, ControlConfig, PortalName};
use portcullis_portal::{DeviceAddr, PublicAddr, app, public_app};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use tempfile::TempDir;
use tower::ServiceExt as _;

const NAME: &str = "login.example.com";
const ORIGIN: &str = "https://login.example.com";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// Changes without a body: whatever is sent is not read.
const WITHOUT_BODY: &[&str] = &[
    "/api/v1/connect/session",
    "/api/v1/devices/{id}",
    "/api/v1/factors/sso/{provider}",
    "/api/v1/factors/totp",
    "/api/v1/login/passkey/begin",
    "/api/v1/login/{attempt}/passkey/begin",
    "/api/v1/passkeys/register/begin",
    "/api/v1/passkeys/{id}",
    "/api/v1/session",
    "/api/v1/sessions/end-others",
    "/api/v1/sessions/{id}",
    "/devices/{id}/remove",
    "/factors/totp",
    "/login/sso/{provider}",
    "/logout",
    "/sessions/end-others",
    "/sessions/{id}/end",
];

/// Ada's laptop, with the portal as it is inside of the tunnel and outside.
struct Fixture {
    control: Control,
    laptop: IpAddr,
    _state: TempDir,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Inside,
    Outside,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Fixture {
    async fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let database = tokio::task::spawn_blocking(|| postgres::server().database());
        let config = ControlConfig {
            database: database.await.unwrap(),
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
        let location = tonic::Request::new(v1::AddLocationRequest {
            location: Some(location),
            ..Default::default()
        });
        admin.add_location(location).await.unwrap();
        let user = v1::AddUserRequest {
            name: "ada".into(),
            password: "correct horse battery".into(),
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

    /// A new one each time, so that no limit on requests is met.
    fn router(&self, side: Side) -> Router {
        let name = PortalName::parse(NAME).unwrap();
        let passkeys = self.control.passkeys(name, &[443]).unwrap();
        match side {
            Side::Inside => app(self.control.logins(), Some(passkeys), None)
                .layer(Extension(DeviceAddr(self.laptop))),
            Side::Outside => public_app(
                self.control.enrolments().with_passkeys(passkeys.clone()),
                self.control.connects(),
                Some(self.control.outside().with_passkeys(passkeys)),
            )
            .layer(Extension(PublicAddr([198, 51, 100, 7].into()))),
        }
    }

    /// Their paths. axum shows them in its debugging output alone.
    fn paths(&self, side: Side) -> BTreeSet<String> {
        let text = format!("{:?}", self.router(side));
        let paths = text
            .split('"')
            .filter(|part| part.starts_with('/') && !part.contains("__private"));
        let mut paths: BTreeSet<String> = paths.map(str::to_owned).collect();
        assert!(paths.len() > 10, "{paths:?}");
        // Asks for the portal's end of the connection, which a test of the listener has.
        paths.retain(|path| path != "/captive-portal/api");
        paths
    }

    /// Every change that can be asked for.
    async fn changes(&self) -> Vec<(Side, Method, String)> {
        let mut changes = Vec::new();
        for side in [Side::Inside, Side::Outside] {
            for path in self.paths(side) {
                // No route takes this method: the answer names those that are taken.
                let request = Request::builder().method(Method::TRACE).uri(path.as_str());
                let request = request.header(header::CONTENT_TYPE, JSON);
                let answer = self.send(side, request.body(Body::empty()).unwrap()).await;
                assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
                let allowed = answer.headers[header::ALLOW].to_str().unwrap().to_owned();
                for method in allowed
                    .split(',')
                    .filter(|name| !["GET", "HEAD"].contains(name))
                {
                    changes.push((side, method.parse().unwrap(), path.clone()));
                }
            }
        }
        assert!(changes.len() > 50, "{changes:?}");
        changes
    }

    async fn send(&self, side: Side, request: Request<Body>) -> Answer {
        let response = self.router(side).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    /// As a page of ours would, signed in, with this in place of each parameter of the path.
    async fn ask(
        &self,
        change: &(Side, Method, String),
        fill: &str,
        kind: &str,
        body: &[u8],
    ) -> Answer {
        let (side, method, path) = change;
        self.sign_in().await;
        let request = Request::builder()
            .method(method)
            .uri(filled(path, fill))
            .header(header::HOST, NAME)
            .header(header::ORIGIN, ORIGIN)
            .header("sec-fetch-site", "same-origin")
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body.to_vec()))
            .unwrap();
        self.send(*side, request).await
    }

    /// A session, so that more is looked at than that there is none.
    async fn sign_in(&self) {
        if self
            .control
            .logins()
            .current(self.laptop)
            .await
            .unwrap()
            .is_some()
        {
            return;
        }
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
}

fn filled(path: &str, fill: &str) -> String {
    let mut parts = path.split('{');
    let mut filled = parts.next().unwrap().to_owned();
    for part in parts {
        filled.push_str(fill);
        filled.push_str(part.split_once('}').unwrap().1);
    }
    filled
}

fn kind_of(path: &str) -> &'static str {
    if path.starts_with("/api/") {
        JSON
    } else {
        FORM
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_change_is_made_for_another_site() {
    let fixture = Fixture::new().await;
    for change in fixture.changes().await {
        let (side, method, path) = &change;
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(filled(path, "x"))
                .header(header::HOST, NAME)
                .header(name, value)
                .header(header::CONTENT_TYPE, kind_of(path))
                .body(Body::from("{}"))
                .unwrap();
            let answer = fixture.send(*side, request).await;
            assert_eq!(
                answer.status,
                StatusCode::FORBIDDEN,
                "{change:?} {name}: {value}"
            );
        }
        // A form that nobody says the origin of, such as an old browser's.
        let request = Request::builder()
            .method(method)
            .uri(filled(path, "x"))
            .header(header::HOST, NAME)
            .header(header::CONTENT_TYPE, FORM)
            .body(Body::from("code=1"))
            .unwrap();
        let answer = fixture.send(*side, request).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{change:?}");
        // The same from a page of ours comes further.
        let ours = fixture.ask(&change, "x", kind_of(path), b"").await;
        assert_ne!(
            ours.status,
            StatusCode::FORBIDDEN,
            "{change:?}: {}",
            ours.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large_or_malformed_are_refused() {
    let fixture = Fixture::new().await;
    let large_json = format!("{{\"name\":\"{}\"}}", "x".repeat(40_000));
    let large_form = format!("name={}", "x".repeat(40_000));
    let (mut tried, mut taken) = (BTreeSet::new(), Vec::new());
    for change in fixture.changes().await {
        let path = change.2.as_str();
        let is_json = kind_of(path) == JSON;
        let large = if is_json { &large_json } else { &large_form };
        let bad: &[(&str, &[u8])] = if is_json {
            &[
                (JSON, b"{"),
                (JSON, b"null"),
                (JSON, b"{\"name\":\"\xff\"}"),
                (JSON, b"{\"no such key\":1}"),
                ("text/plain", b"{}"),
            ]
        } else {
            &[
                ("text/plain", b"code=1"),
                ("multipart/form-data; boundary=x", b"--x--"),
            ]
        };
        // A form takes it for something else than letters, and no more.
        let odd = b"code=%ff&username=%ff&password=%&name=%ff&device=%ff";
        let answer = fixture.ask(&change, "x", kind_of(path), odd).await;
        let what = format!("{change:?}: {}", answer.text);
        assert!(!answer.status.is_server_error(), "{} {what}", answer.status);
        let is_read = !WITHOUT_BODY.contains(&path) || change.1 == Method::PATCH;
        tried.insert(path.to_owned());
        // Before anything is done, and whether it would be read or not.
        let answer = fixture.ask(&change, "x", kind_of(path), large.as_bytes()).await;
        let status = answer.status;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{change:?}: {}", answer.text);
        for (kind, body) in bad {
            let answer = fixture.ask(&change, "x", kind, body).await;
            let what = format!("{change:?} {kind} {} bytes: {}", body.len(), answer.text);
            assert!(!answer.status.is_server_error(), "{} {what}", answer.status);
            let refused = [
                StatusCode::BAD_REQUEST,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                StatusCode::UNPROCESSABLE_ENTITY,
            ];
            if is_read && !refused.contains(&answer.status) {
                taken.push(format!("{} {what}", answer.status));
            }
        }
    }
    assert!(taken.is_empty(), "{}", taken.join("\n"));
    for path in WITHOUT_BODY {
        assert!(tried.contains(*path), "{path} is no route any more");
    }
}

/// What a store cannot hold is nobody's name, no code and no id, and no problem of ours.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_store_holds_is_refused_like_anything_wrong() {
    let fixture = Fixture::new().await;
    const FIELDS: &[&str] = &[
        "username",
        "password",
        "code",
        "device",
        "name",
        "enrolment",
        "token",
        "public_key",
        "location",
        "challenge",
        "proof",
        "location_key",
        "ceremony",
    ];
    let form: Vec<String> = FIELDS.iter().map(|field| format!("{field}=%00a")).collect();
    let form = form.join("&");
    for change in fixture.changes().await {
        let path = change.2.clone();
        for fill in [
            "%00",
            "a%00b",
            "%ff",
            "%2e%2e%2f",
            "%27%20OR%201=1--",
            &"x".repeat(9000),
        ] {
            let bodies: Vec<String> = if kind_of(&path) == JSON {
                // Unknown fields are refused: one at a time, and what there is of them.
                let one = |field: &&str| format!("{{\"{field}\":\"\\u0000a\"}}");
                let mut bodies: Vec<String> = FIELDS.iter().map(one).collect();
                bodies.push("{\"username\":\"\\u0000a\",\"password\":\"\\u0000a\"}".into());
                bodies.push("{\"enrolment\":\"\\u0000a\",\"code\":\"\\u0000a\"}".into());
                bodies.push(
                    "{\"enrolment\":\"\\u0000a\",\"password\":\"correct horse battery\"}".into(),
                );
                bodies
            } else {
                vec![form.clone()]
            };
            for body in bodies {
                let answer = fixture
                    .ask(&change, fill, kind_of(&path), body.as_bytes())
                    .await;
                let status = answer.status;
                assert!(
                    !status.is_server_error() || status == StatusCode::SERVICE_UNAVAILABLE,
                    "{status} {change:?} {fill} {body}: {}",
                    answer.text
                );
            }
            if !path.contains('{') {
                break;
            }
        }
    }
}

/// No address leads off the portal, whatever is asked and however it is called.
#[tokio::test(flavor = "multi_thread")]
async fn no_redirect_leads_elsewhere() {
    let fixture = Fixture::new().await;
    let hostile = [
        "//evil.example/",
        "https://evil.example/",
        "/%5cevil.example",
        "%2f%2fevil.example",
        "javascript:alert(1)",
        "%0d%0aLocation:%20https://evil.example",
    ];
    let mut redirects = 0;
    for side in [Side::Inside, Side::Outside] {
        for path in fixture.paths(side) {
            for value in hostile {
                let query = [
                    "next",
                    "return",
                    "return_to",
                    "url",
                    "to",
                    "redirect_uri",
                    "state",
                ];
                let query: Vec<String> =
                    query.iter().map(|name| format!("{name}={value}")).collect();
                for host in [NAME, "evil.example"] {
                    let request = Request::builder()
                        .uri(format!("{}?{}", filled(&path, "x"), query.join("&")))
                        .header(header::HOST, host)
                        .header("x-forwarded-host", "evil.example")
                        .body(Body::empty())
                        .unwrap();
                    let answer = fixture.send(side, request).await;
                    assert!(!answer.status.is_server_error(), "{path}: {}", answer.text);
                    let Some(location) = answer.headers.get(header::LOCATION) else {
                        continue;
                    };
                    let location = location.to_str().unwrap();
                    let is_ours = location.starts_with('/') && !location.starts_with("//")
                        || location.starts_with(&format!("{ORIGIN}/"));
                    assert!(is_ours && !location.contains("evil"), "{path}: {location}");
                    redirects += 1;
                }
            }
        }
    }
    assert!(redirects > 0, "some page does redirect");
}

/// Nobody, somebody else's name with the right password, a wrong password, and a disabled account.
#[tokio::test(flavor = "multi_thread")]
async fn inside_no_answer_tells_of_accounts() {
    let fixture = Fixture::new().await;
    let admin = fixture.control.admin();
    let bob = v1::AddUserRequest {
        name: "bob".into(),
        password: "correct horse battery".into(),
        ..Default::default()
    };
    admin.add_user(tonic::Request::new(bob)).await.unwrap();
    let right = "correct horse battery";
    let mut answers = Vec::new();
    for (who, name, password) in [
        ("nobody", "nobody", right),
        ("another", "bob", right),
        ("wrong", "ada", "wrong"),
        ("disabled", "ada", right),
    ] {
        let disabled = v1::SetUserDisabledRequest {
            name: "ada".into(),
            disabled: who == "disabled",
        };
        let disabled = tonic::Request::new(disabled);
        admin.set_user_disabled(disabled).await.unwrap();
        for (path, kind, body) in [
            (
                "/login",
                FORM,
                format!("username={name}&password={}", password.replace(' ', "+")),
            ),
            ("/api/v1/login", JSON, json(name, password)),
        ] {
            let request = Request::builder()
                .method(Method::POST)
                .uri(path)
                .header(header::HOST, NAME)
                .header(header::ORIGIN, ORIGIN)
                .header(header::CONTENT_TYPE, kind)
                .body(Body::from(body))
                .unwrap();
            let answer = fixture.send(Side::Inside, request).await;
            assert_eq!(
                answer.status,
                StatusCode::UNAUTHORIZED,
                "{who}: {}",
                answer.text
            );
            let text = answer.text.replace(&format!("value=\"{name}\""), "");
            answers.push((who, path, answer.headers, text));
        }
    }
    for (who, path, headers, text) in &answers {
        let nobodys = answers
            .iter()
            .find(|(first, at, ..)| *first == "nobody" && at == path);
        let (_, _, nobodys_headers, nobodys_text) = nobodys.unwrap();
        assert_eq!(
            (headers.len(), text),
            (nobodys_headers.len(), nobodys_text),
            "{who} {path}"
        );
    }
    // The same with what is right goes on.
    let enabled = v1::SetUserDisabledRequest {
        name: "ada".into(),
        disabled: false,
    };
    admin
        .set_user_disabled(tonic::Request::new(enabled))
        .await
        .unwrap();
    let change = (Side::Inside, Method::POST, "/api/v1/login".to_owned());
    let body = json("ada", right);
    let answer = fixture.ask(&change, "", JSON, body.as_bytes()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}

fn json(username: &str, password: &str) -> String {
    format!("{{\"username\":\"{username}\",\"password\":\"{password}\"}}")
}
