//! A phone's approval over HTTP: the computer's pages and calls, and the phone's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../control/tests/control/authenticator.rs"]
mod authenticator;

use std::net::IpAddr;

use authenticator::Authenticator;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_client::KeyPair;
use portcullis_control::{Control, ControlConfig, PortalName};
use portcullis_portal::{DeviceAddr, PublicAddr, app, public_app};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use portcullis_trust::Claim;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tempfile::TempDir;
use tower::ServiceExt as _;

const HOST: &str = "login.example.com";
const ORIGIN: &str = "https://login.example.com";
const PASSWORD: &str = "correct horse battery";
const HOME: &str = "198.51.100.7";
const ELSEWHERE: &str = "203.0.113.7";

/// Ada's laptop in its tunnel, her phone outside, and a passkey on it.
struct Fixture {
    control: Control,
    inside: Router,
    outside: Router,
    laptop: IpAddr,
    key: Authenticator,
    _state: TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{}", self.text))
    }

    fn location(&self) -> &str {
        self.headers[header::LOCATION].to_str().unwrap()
    }

    /// Between these two, in the page.
    fn between(&self, before: &str, after: &str) -> String {
        let (_, rest) = self.text.split_once(before).expect(before);
        rest.split_once(after).unwrap().0.to_owned()
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
        let control = Control::open(config).await.unwrap();
        let admin = control.admin();
        let location = v1::AddLocationRequest {
            location: Some(v1::Location {
                name: "office".into(),
                pools: vec!["10.77.0.0/24".into()],
                endpoint: "vpn.example.org:51820".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let location = tonic::Request::new(location);
        admin.add_location(location).await.unwrap();
        let user = tonic::Request::new(v1::AddUserRequest {
            name: "ada".into(),
            password: PASSWORD.into(),
            ..Default::default()
        });
        admin.add_user(user).await.unwrap();
        let device = tonic::Request::new(v1::AddDeviceRequest {
            name: "laptop".into(),
            user: "ada".into(),
            public_key: vec![7; 32],
            ..Default::default()
        });
        let device = admin.add_device(device).await.unwrap().into_inner();
        let laptop: IpAddr = device.device.unwrap().addresses[0].parse().unwrap();

        let passkeys = control
            .passkeys(PortalName::parse(HOST).unwrap(), &[443])
            .unwrap();
        let session = tonic::Request::new(v1::AddSessionRequest {
            device: "laptop".into(),
            ..Default::default()
        });
        admin.add_session(session).await.unwrap();
        let begun = passkeys.begin_registration(laptop).await.unwrap();
        let mut key = Authenticator::new("key", ORIGIN, HOST);
        let options = serde_json::to_value(&begun.options).unwrap();
        let made = serde_json::from_value(key.create(&options)).unwrap();
        passkeys
            .finish_registration(laptop, &begun.ceremony, "Phone", &made, false)
            .await
            .unwrap();
        control.logins().end(laptop).await.unwrap().unwrap();
        control.serve_approvals_at(format!("{ORIGIN}/approve"));
        Self {
            control: control.clone(),
            inside: app(control.logins(), Some(passkeys.clone()), None),
            outside: public_app(
                control.enrolments(),
                control.connects(),
                Some(control.outside().with_passkeys(passkeys.clone())),
                Some(control.approvals(passkeys)),
            ),
            laptop,
            key,
            _state: state,
        }
    }

    async fn send(router: Router, request: Request<Body>) -> Answer {
        let response = router.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// From the laptop, through its tunnel.
    async fn laptop(&self, request: Request<Body>) -> Answer {
        let router = self.inside.clone();
        Self::send(router.layer(Extension(DeviceAddr(self.laptop))), request).await
    }

    async fn stranger(&self, from: &str, request: Request<Body>) -> Answer {
        let from = PublicAddr(from.parse().unwrap());
        Self::send(self.outside.clone().layer(Extension(from)), request).await
    }

    /// A call of the phone.
    async fn phone(&self, call: &str, body: Value) -> Answer {
        let path = format!("/api/v1/approve{call}");
        self.stranger(ELSEWHERE, json_call(&path, "", &body)).await
    }

    /// A login through the tunnel that wants one more factor.
    async fn begin(&self) -> String {
        let login = json!({ "username": "ada", "password": PASSWORD });
        let begun = self.laptop(json_call("/api/v1/login", "", &login)).await;
        let begun = begun.json();
        let factors = begun["factors"].as_array().unwrap();
        assert!(factors.contains(&json!("phone")), "{begun}");
        begun["attempt"].as_str().unwrap().to_owned()
    }

    async fn approve(&mut self, url: &str, number: u64) -> Answer {
        let token = url.strip_prefix("https://login.example.com/approve#");
        let token = token.unwrap();
        let options = self.phone("/begin", json!({ "token": token })).await;
        assert_eq!(options.status, StatusCode::OK, "{}", options.text);
        let credential = self.key.get(&options.json());
        let body = json!({ "token": token, "number": number, "credential": credential });
        self.phone("/finish", body).await
    }
}

fn json_call(path: &str, cookie: &str, body: &Value) -> Request<Body> {
    Request::post(path)
        .header(header::HOST, HOST)
        .header(header::ORIGIN, ORIGIN)
        .header(header::COOKIE, cookie)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

fn form(path: &str, cookie: &str, fields: &'static str) -> Request<Body> {
    Request::post(path)
        .header(header::HOST, HOST)
        .header(header::ORIGIN, ORIGIN)
        .header(header::COOKIE, cookie)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(fields))
        .unwrap()
}

fn get(path: &str, cookie: &str) -> Request<Body> {
    Request::get(path)
        .header(header::HOST, HOST)
        .header(header::COOKIE, cookie)
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn the_calls_through_the_tunnel_ask_wait_and_open_a_session() {
    let mut fixture = Fixture::new().await;
    let attempt = fixture.begin().await;
    let path = format!("/api/v1/login/{attempt}/phone");
    let asked = fixture.laptop(json_call(&path, "", &json!({}))).await;
    assert_eq!(asked.status, StatusCode::OK, "{}", asked.text);
    let asked = asked.json();
    assert!((59..=60).contains(&asked["expires_in_s"].as_u64().unwrap()));
    let url = asked["url"].as_str().unwrap();
    let token = url.split_once('#').unwrap().1;

    let seen = fixture.phone("", json!({ "token": token })).await.json();
    assert_eq!(seen["device"], "laptop");
    assert_eq!(seen["locations"], json!(["office"]));
    assert_eq!(seen["network"], fixture.laptop.to_string());
    assert_eq!(
        (&seen["in_tunnel"], &seen["same_network"]),
        (&json!(true), &json!(null))
    );

    let finish = format!("{path}/finish");
    let waiting = fixture.laptop(json_call(&finish, "", &json!({}))).await;
    assert_eq!(waiting.status, StatusCode::OK);
    assert_eq!(waiting.json()["state"], "waiting");
    let number = asked["number"].as_u64().unwrap();
    let approved = fixture.approve(url, number).await;
    assert_eq!(approved.status, StatusCode::NO_CONTENT, "{}", approved.text);
    let session = fixture.laptop(json_call(&finish, "", &json!({}))).await;
    assert_eq!(session.json()["level"], "mfa", "{}", session.text);
    let replayed = fixture.laptop(json_call(&finish, "", &json!({}))).await;
    assert_eq!(replayed.json()["code"], "unknown_attempt");
}

#[tokio::test]
async fn the_pages_need_no_script_on_the_computer() {
    let mut fixture = Fixture::new().await;
    let login = "username=ada&password=correct+horse+battery";
    let wants = fixture.laptop(form("/login", "", login)).await;
    assert!(wants.text.contains("Approve with your phone"));
    let attempt = wants.between("action=\"/login/", "/phone\"");
    let attempt = attempt.rsplit('/').next().unwrap();
    let path = format!("/login/{attempt}/phone");
    let asked = fixture.laptop(form(&path, "", "")).await;
    assert_eq!(
        (asked.status, asked.location()),
        (StatusCode::SEE_OTHER, &*path)
    );
    let page = fixture.laptop(get(&path, "")).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text.contains("<noscript><meta http-equiv=\"refresh\""));
    assert!(page.text.contains("<svg "));
    let number: u64 = page.between("data-phone-number>", "<").parse().unwrap();
    let url = page.between("<code id=\"address\">", "</code>");
    // The same once more, and too early.
    let again = fixture.laptop(get(&path, "")).await;
    assert_eq!(again.between("<code id=\"address\">", "</code>"), url);
    let finish = format!("{path}/finish");
    let early = fixture.laptop(form(&finish, "", "")).await;
    assert_eq!(early.location(), path);

    let approved = fixture.approve(&url, number).await;
    assert_eq!(approved.status, StatusCode::NO_CONTENT, "{}", approved.text);
    let page = fixture.laptop(get(&path, "")).await;
    assert!(page.text.contains("Your phone has approved this sign-in"));
    assert!(page.text.contains(&format!("action=\"{finish}\"")));
    let done = fixture.laptop(form(&finish, "", "")).await;
    assert_eq!(done.location(), "/");
    let home = fixture.laptop(get("/", "")).await;
    assert!(home.text.contains("two factors") || home.text.contains("You are signed in"));
}

#[tokio::test]
async fn a_wrong_number_is_told_on_both_sides_and_ends_it() {
    let mut fixture = Fixture::new().await;
    let attempt = fixture.begin().await;
    let path = format!("/api/v1/login/{attempt}/phone");
    let asked = fixture
        .laptop(json_call(&path, "", &json!({})))
        .await
        .json();
    let url = asked["url"].as_str().unwrap();
    let wrong = fixture.approve(url, 7).await;
    assert_eq!(wrong.status, StatusCode::FORBIDDEN);
    assert_eq!(wrong.json()["code"], "wrong_number");
    let finish = fixture
        .laptop(json_call(&format!("{path}/finish"), "", &json!({})))
        .await;
    assert_eq!(finish.status, StatusCode::FORBIDDEN);
    assert_eq!(finish.json()["code"], "not_approved");
    let page = fixture
        .laptop(get(&format!("/login/{attempt}/phone"), ""))
        .await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    assert!(page.text.contains("denied on the phone"), "{}", page.text);
    assert!(page.text.contains("Enter your code"), "it may go on");
}

/// Unknown, denied, replaced and used: nobody can tell which.
#[tokio::test]
async fn every_token_that_does_not_wait_is_answered_alike() {
    let mut fixture = Fixture::new().await;
    let attempt = fixture.begin().await;
    let path = format!("/api/v1/login/{attempt}/phone");
    let mut tokens = vec!["x".to_owned(), String::new()];
    let ask = async |fixture: &Fixture| {
        let asked = fixture
            .laptop(json_call(&path, "", &json!({})))
            .await
            .json();
        let url = asked["url"].as_str().unwrap().to_owned();
        (url, asked["number"].as_u64().unwrap())
    };
    let token = |url: &str| url.split_once('#').unwrap().1.to_owned();
    let (replaced, _) = ask(&fixture).await;
    let (denied, _) = ask(&fixture).await;
    let deny = json!({ "token": token(&denied) });
    let answer = fixture.phone("/deny", deny).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let (used, number) = ask(&fixture).await;
    fixture.approve(&used, number).await;
    tokens.extend([replaced, denied, used].iter().map(|url| token(url)));
    let mut answers = Vec::new();
    for token in &tokens {
        for call in ["", "/begin", "/deny"] {
            let answer = fixture.phone(call, json!({ "token": token })).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text);
            answers.push(answer.text);
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    // The page itself is the same for everybody, and names nobody.
    let page = fixture.stranger(ELSEWHERE, get("/approve", "")).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(!page.text.contains("ada"));
}

/// Relayed: what was asked from one network is not taken from another, whatever cookie comes with it.
#[tokio::test]
async fn another_network_finishes_nothing_outside() {
    let mut fixture = Fixture::new().await;
    let login = json!({ "username": "ada", "password": PASSWORD });
    let begun = fixture
        .stranger(HOME, json_call("/api/v1/login", "", &login))
        .await;
    let cookie = begun.headers[header::SET_COOKIE].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let asked = fixture
        .stranger(HOME, json_call("/api/v1/login/phone", &cookie, &json!({})))
        .await
        .json();
    let url = asked["url"].as_str().unwrap();
    let token = json!({ "token": url.split_once('#').unwrap().1 });
    let seen = fixture.phone("", token).await.json();
    assert_eq!(seen["network"], HOME);
    assert_eq!(seen["same_network"], json!(false));
    assert_eq!(seen["device"], json!(null));
    fixture
        .approve(url, asked["number"].as_u64().unwrap())
        .await;

    let finish = || json_call("/api/v1/login/phone/finish", &cookie, &json!({}));
    let relayed = fixture.stranger(ELSEWHERE, finish()).await;
    assert_eq!(relayed.status, StatusCode::UNAUTHORIZED, "{}", relayed.text);
    let page = fixture
        .stranger(ELSEWHERE, get("/login/phone", &cookie))
        .await;
    assert_eq!(page.status, StatusCode::GONE);
    let page = fixture.stranger(HOME, get("/login/phone", &cookie)).await;
    assert!(page.text.contains("Your phone has approved this sign-in"));
    let devices = fixture.stranger(HOME, finish()).await;
    assert_eq!(devices.json()["devices"][0]["name"], "laptop");
    let again = fixture.stranger(HOME, finish()).await;
    assert_ne!(again.status, StatusCode::OK);
}

/// Ada's device at a session-key location, whose gateway is not connected.
async fn vault(fixture: &Fixture) -> KeyPair {
    let admin = fixture.control.admin();
    let location = v1::AddLocationRequest {
        location: Some(v1::Location {
            name: "vault".into(),
            pools: vec!["10.88.0.0/24".into()],
            endpoint: "vpn.example.org:51820".into(),
            mode: "session-key".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let location = tonic::Request::new(location);
    admin.add_location(location).await.unwrap();
    fixture.control.gateway_token("gw", "vault").await.unwrap();
    let url = format!("sqlite://{}/portcullis.db", fixture._state.path().display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("UPDATE gateways SET public_key = $1")
        .bind(STANDARD.encode([5; 32]))
        .execute(&mut connection)
        .await
        .unwrap();
    let key = KeyPair::generate().unwrap();
    let device = tonic::Request::new(v1::AddDeviceRequest {
        name: "build".into(),
        user: "ada".into(),
        location: "vault".into(),
        public_key: key.public().as_bytes().to_vec(),
        ..Default::default()
    });
    admin.add_device(device).await.unwrap();
    key
}

/// A login with the proof of the device's key, and the password.
async fn prove(fixture: &Fixture, key: &KeyPair) -> Value {
    let device = key.public();
    let public_key = STANDARD.encode(device.as_bytes());
    let to = json!({ "location": "vault", "public_key": public_key });
    let asked = json_call("/api/v1/connect/challenge", "", &to);
    let asked = fixture.stranger(HOME, asked).await.json();
    let challenge = asked["challenge"].as_str().unwrap();
    let location_key = asked["location_key"].as_str().unwrap();
    let location_key = STANDARD.decode(location_key).unwrap();
    let claim = Claim {
        challenge,
        location: "vault",
        username: "ada",
        device: device.as_bytes(),
        location_key: location_key.as_slice().try_into().unwrap(),
    };
    let own = STANDARD.decode(key.private_base64().as_bytes()).unwrap();
    let proof = claim.prove(own.as_slice().try_into().unwrap()).unwrap();
    let body = json!({
        "location": "vault", "public_key": public_key, "challenge": challenge,
        "proof": STANDARD.encode(proof.as_slice()), "username": "ada", "password": PASSWORD,
    });
    let begun = json_call("/api/v1/connect", "", &body);
    fixture.stranger(HOME, begun).await.json()
}

/// The connection itself takes a gateway: see control's tests.
#[tokio::test]
async fn the_calls_of_connect_ask_wait_and_go_on_from_where_they_asked() {
    let mut fixture = Fixture::new().await;
    let key = vault(&fixture).await;
    let begun = prove(&fixture, &key).await;
    let factors = begun["factors"].as_array().unwrap();
    assert!(factors.contains(&json!("phone")), "{begun}");
    let attempt = begun["attempt"].as_str().unwrap();
    let path = format!("/api/v1/connect/{attempt}/phone");
    // Without a body.
    let bare = |path: &str| {
        let post = Request::post(path).header(header::HOST, HOST);
        post.body(Body::empty()).unwrap()
    };
    let asked = fixture.stranger(HOME, bare(&path)).await;
    assert_eq!(asked.status, StatusCode::OK, "{}", asked.text);
    let asked = asked.json();
    let names: Vec<&String> = asked.as_object().unwrap().keys().collect();
    assert_eq!(names, ["expires_in_s", "number", "url"]);
    let url = asked["url"].as_str().unwrap();
    let token = json!({ "token": url.split_once('#').unwrap().1 });
    let seen = fixture.phone("", token).await.json();
    assert_eq!(seen["device"], "build");
    assert_eq!(
        (&seen["network"], &seen["in_tunnel"]),
        (&json!(HOME), &json!(false))
    );

    let finish = format!("{path}/finish");
    let waiting = fixture.stranger(HOME, bare(&finish)).await;
    assert_eq!(waiting.status, StatusCode::OK);
    assert_eq!(waiting.json()["state"], "waiting");
    let number = asked["number"].as_u64().unwrap();
    let approved = fixture.approve(url, number).await;
    assert_eq!(approved.status, StatusCode::NO_CONTENT, "{}", approved.text);
    let relayed = fixture.stranger(ELSEWHERE, bare(&finish)).await;
    assert_eq!(relayed.status, StatusCode::UNAUTHORIZED, "{}", relayed.text);
    let taken = fixture.stranger(HOME, bare(&finish)).await;
    assert_eq!(taken.json()["code"], "no_gateway", "{}", taken.text);
    let replayed = fixture.stranger(HOME, bare(&finish)).await;
    assert_eq!(replayed.json()["code"], "unknown_attempt");
}
