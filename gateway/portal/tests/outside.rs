//! Signing in from outside of the tunnel, over HTTP, as a browser does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../control/tests/control/authenticator.rs"]
mod authenticator;

use std::net::IpAddr;

use authenticator::Authenticator;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::{Extension, Router};
use portcullis_control::{Control, ControlConfig, Passkeys, PortalName};
use portcullis_portal::{DeviceAddr, PublicAddr, public_app};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use totp_rs::Totp;
use tower::ServiceExt as _;

const HOST: &str = "login.example.com";
const ORIGIN: &str = "https://login.example.com";
const FROM: &str = "198.51.100.7";
const PASSWORD: &str = "correct horse battery";
const LOGIN: &str = "__Host-portcullis-login";
const SESSION: &str = "__Host-portcullis-session";

struct Fixture {
    control: Control,
    portal: Router,
    totp: Totp,
    _state: TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    /// `name=value` of a cookie that this sets, and what it is set with.
    fn cookie(&self, name: &str) -> (String, String) {
        let all = self.headers.get_all(header::SET_COOKIE).into_iter();
        let mut all = all.map(|value| value.to_str().unwrap());
        let set = all.find(|set| set.starts_with(name)).unwrap();
        let (pair, flags) = set.split_once("; ").unwrap();
        (pair.to_owned(), flags.to_owned())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The devices to choose from.
    fn devices(&self) -> Vec<String> {
        let mut fields = self.text.split("name=\"device\" value=\"");
        fields.next();
        fields
            .map(|rest| rest.split('"').next().unwrap().to_owned())
            .collect()
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
        let location = v1::Location {
            name: "office".into(),
            pools: vec!["10.77.0.0/24".into()],
            endpoint: "vpn.example.org:51820".into(),
            session_lifetime_ms: 3_600_000,
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
        let mut totp = None;
        for (name, devices) in [("ada", &["laptop", "phone"][..]), ("bob", &["bobs"])] {
            let user = v1::AddUserRequest {
                name: name.into(),
                password: PASSWORD.into(),
                ..Default::default()
            };
            let user = admin.add_user(tonic::Request::new(user)).await.unwrap();
            totp.get_or_insert(user.into_inner().totp_uri);
            for device in devices {
                let device = v1::AddDeviceRequest {
                    name: (*device).into(),
                    user: name.into(),
                    public_key: vec![device.len().try_into().unwrap(); 32],
                    ..Default::default()
                };
                admin.add_device(tonic::Request::new(device)).await.unwrap();
            }
        }
        Self {
            portal: public_app(
                control.enrolments(),
                control.connects(),
                Some(control.outside().with_passkeys(passkeys(&control))),
                Some(control.approvals(passkeys(&control))),
            ),
            control,
            totp: Totp::from_url(totp.unwrap()).unwrap(),
            _state: state,
        }
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        let from: IpAddr = FROM.parse().unwrap();
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

    async fn get(&self, path: &str, cookies: &str) -> Answer {
        let get = Request::builder().uri(path).header(header::HOST, HOST);
        let get = get.header(header::COOKIE, cookies);
        self.ask(get.body(Body::empty()).unwrap()).await
    }

    async fn form(&self, path: &str, cookies: &str, fields: &str) -> Answer {
        self.ask(post(path, cookies, ORIGIN, fields)).await
    }

    /// With the right password: its page, and the cookie.
    async fn begin(&self, cookies: &str) -> (Answer, String) {
        let fields = format!("username=ada&password={}", PASSWORD.replace(' ', "+"));
        let wants = self.form("/login", cookies, &fields).await;
        assert_eq!(wants.status, StatusCode::OK, "{}", wants.text);
        let (cookie, flags) = wants.cookie(LOGIN);
        for flag in ["Path=/", "Secure", "HttpOnly", "SameSite=Strict"] {
            assert!(flags.contains(flag), "{flags}");
        }
        (wants, cookie)
    }

    async fn call(&self, method: Method, path: &str, cookies: &str, body: Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(header::HOST, HOST)
            .header(header::COOKIE, cookies)
            .header(header::CONTENT_TYPE, "application/json");
        let body = Body::from(body.to_string());
        self.ask(request.body(body).unwrap()).await
    }

    /// In JSON: what it answers, and the login's cookie.
    async fn begin_json(&self) -> (Value, String) {
        let body = json!({ "username": "ada", "password": PASSWORD });
        let wants = self.call(Method::POST, "/login", "", body).await;
        assert_eq!(wants.status, StatusCode::OK, "{}", wants.text);
        (wants.json(), wants.cookie(LOGIN).0)
    }

    /// A passkey of Ada's, added through the tunnel.
    async fn register(&self) -> Authenticator {
        let laptop = IpAddr::from([10, 77, 0, 2]);
        let request = tonic::Request::new(v1::AddSessionRequest {
            device: "laptop".into(),
            ..Default::default()
        });
        let admin = self.control.admin();
        let granted = admin.add_session(request).await.unwrap().into_inner();
        let passkeys = passkeys(&self.control);
        let begun = passkeys.begin_registration(laptop).await.unwrap();
        let mut key = Authenticator::new("key", ORIGIN, HOST);
        let options = serde_json::to_value(&begun.options).unwrap();
        let made = serde_json::from_value(key.create(&options)).unwrap();
        passkeys
            .finish_registration(laptop, &begun.ceremony, "key", &made, false)
            .await
            .unwrap();
        let ended = self.control.logins().end(laptop).await.unwrap();
        assert!(ended.is_some(), "{granted:?}");
        key
    }

    fn right_code(&self) -> String {
        format!("code={}", self.totp.generate_current())
    }

    async fn live(&self) -> usize {
        let request = tonic::Request::new(v1::ListSessionsRequest::default());
        let sessions = self.control.admin().list_sessions(request).await.unwrap();
        let sessions = sessions.into_inner().sessions;
        sessions.iter().filter(|s| s.state == "live").count()
    }
}

fn passkeys(control: &Control) -> Passkeys {
    let name = PortalName::parse(HOST).unwrap();
    control.passkeys(name, &[443]).unwrap()
}

fn post(path: &str, cookies: &str, origin: &str, fields: &str) -> Request<Body> {
    Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, HOST)
        .header(header::ORIGIN, origin)
        .header(header::COOKIE, cookies)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(fields.to_owned()))
        .unwrap()
}

#[tokio::test]
async fn a_password_a_code_and_a_device_open_a_session() {
    let fixture = Fixture::new().await;
    let page = fixture.get("/", "").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text.contains("You are outside of the tunnel"));
    assert!(page.text.contains("href=\"/enrol\""), "{}", page.text);
    assert_eq!(page.headers[header::CACHE_CONTROL], "no-store");

    let wrong = "username=ada&password=wrong";
    let refused = fixture.form("/login", "", wrong).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(!refused.headers.contains_key(header::SET_COOKIE));

    let (wants, login) = fixture.begin("").await;
    assert!(wants.text.contains("Enter your code"));
    assert!(!wants.text.contains("laptop"), "no device before the code");
    let refused = fixture.form("/login/totp", &login, "code=x").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.text.contains("Enter your code") && refused.text.contains("wrong"));
    let choose = fixture
        .form("/login/totp", &login, &fixture.right_code())
        .await;
    assert_eq!(choose.status, StatusCode::OK, "{}", choose.text);
    let devices = choose.devices();
    assert_eq!(devices.len(), 2, "{}", choose.text);
    assert!(choose.text.contains("laptop") && !choose.text.contains("bobs"));
    assert_eq!(fixture.live().await, 0);

    let chosen = format!("device={}", devices[0]);
    let opened = fixture.form("/login/device", &login, &chosen).await;
    assert_eq!(opened.status, StatusCode::SEE_OTHER);
    assert_eq!(opened.headers[header::LOCATION], "/");
    let (session, flags) = opened.cookie(SESSION);
    for flag in ["Path=/", "Secure", "HttpOnly", "SameSite=Strict"] {
        assert!(flags.contains(flag), "{flags}");
    }
    assert!(opened.cookie(LOGIN).1.contains("Max-Age=0"), "it is spent");
    assert!(!session.ends_with(login.split_once('=').unwrap().1));
    assert_eq!(fixture.live().await, 1);

    let page = fixture.get("/", &session).await;
    assert!(page.text.contains("is signed in") && page.text.contains("data-left-s="));
    let call = fixture.get("/api/v1/session", &session).await;
    let told: Value = serde_json::from_str(&call.text).unwrap();
    assert_eq!(
        (&told["user"], &told["device"]),
        (&"ada".into(), &"laptop".into())
    );
    // The login's cookie opens nothing any more, and neither shows the session.
    let again = fixture.form("/login/device", &login, &chosen).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    let (_, value) = login.split_once('=').unwrap();
    for stranger in ["", &login, &format!("{SESSION}={value}")] {
        let call = fixture.get("/api/v1/session", stranger).await;
        assert_eq!(call.status, StatusCode::NOT_FOUND, "{stranger}");
        let told: Value = serde_json::from_str(&call.text).unwrap();
        assert_eq!(told["code"], "no_session");
        fixture.form("/logout", stranger, "").await;
        assert_eq!(fixture.live().await, 1);
    }

    let ended = fixture.form("/logout", &session, "").await;
    assert!(ended.cookie(SESSION).1.contains("Max-Age=0"));
    assert_eq!(fixture.live().await, 0);
    let page = fixture.get("/", &session).await;
    assert!(page.text.contains("You are outside of the tunnel"));
}

/// A cookie that somebody else has planted names nothing of what follows.
#[tokio::test]
async fn a_login_gets_a_cookie_of_its_own_whatever_the_browser_had() {
    let fixture = Fixture::new().await;
    let (_, planted) = fixture.begin("").await;
    let (_, mine) = fixture.begin(&planted).await;
    assert_ne!(planted, mine);
    fixture
        .form("/login/totp", &mine, &fixture.right_code())
        .await;
    let theirs = fixture.form("/login/device", &planted, "device=x").await;
    assert_eq!(theirs.status, StatusCode::NOT_FOUND);
    // Two at once: whose they are is not known.
    let both = format!("{mine}; {planted}");
    let refused = fixture.form("/login/device", &both, "device=x").await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn other_sites_change_nothing_and_headers_are_not_asked() {
    let fixture = Fixture::new().await;
    let (_, login) = fixture.begin("").await;
    for path in [
        "/login",
        "/login/totp",
        "/login/recovery",
        "/login/device",
        "/logout",
    ] {
        let foreign = post(path, &login, "https://evil.example", "code=1");
        let refused = fixture.ask(foreign).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
        // No form: nothing is sent by an address alone.
        let get = fixture.get(path, &login).await;
        assert_eq!(get.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    // Whatever a request says of where it comes from, and whatever device has that address.
    let inside: IpAddr = [10, 77, 0, 2].into();
    let portal = fixture.portal.clone().layer(Extension(DeviceAddr(inside)));
    let fixture = Fixture { portal, ..fixture };
    let wrong = "username=ada&password=wrong";
    let mut last = StatusCode::OK;
    for number in 0..6 {
        let mut request = post("/login", "", ORIGIN, wrong);
        let spoofed = format!("203.0.113.{number}").parse().unwrap();
        request.headers_mut().insert("x-forwarded-for", spoofed);
        last = fixture.ask(request).await.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    let call = fixture.get("/api/v1/session", "").await;
    assert_eq!(call.status, StatusCode::NOT_FOUND);
    for path in ["/devices", "/factors", "/passkeys", "/sessions", "/step-up"] {
        let answer = fixture.get(path, "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn no_page_tells_of_accounts() {
    let fixture = Fixture::new().await;
    let mut pages = Vec::new();
    for name in ["ada", "bob", "nobody"] {
        for _ in 0..6 {
            let fields = format!("username={name}&password=wrong");
            let answer = fixture.form("/login", "", &fields).await;
            let mut text = answer.text.replace(&format!("value=\"{name}\""), "");
            // A second may pass in between.
            text.retain(|character| !character.is_ascii_digit());
            pages.push((name, answer.status, text));
        }
    }
    let of = |name: &str| {
        let mine = pages.iter().filter(|(whose, ..)| *whose == name);
        mine.map(|(_, status, text)| (*status, text.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("ada"), of("nobody"));
    assert_eq!(of("bob"), of("nobody"));
    assert_eq!(of("ada")[5].0, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn programs_sign_in_with_the_cookies_that_they_are_given() {
    let fixture = Fixture::new().await;
    let wrong = json!({ "username": "ada", "password": "wrong" });
    let refused = fixture.call(Method::POST, "/login", "", wrong).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.json()["code"], "refused");
    assert!(!refused.headers.contains_key(header::SET_COOKIE));

    let (wants, login) = fixture.begin_json().await;
    assert_eq!(wants["factors"], json!(["totp", "recovery-code"]));
    let code = json!({ "code": fixture.totp.generate_current().to_string() });
    let stranger = fixture.call(Method::POST, "/login/totp", "", code.clone());
    assert_eq!(stranger.await.json()["code"], "unknown_attempt");
    let early = json!({ "device": "any" });
    let early = fixture.call(Method::POST, "/login/device", &login, early);
    assert_eq!(early.await.json()["code"], "unknown_attempt");
    let bad = json!({ "code": "x" });
    for path in ["/login/totp", "/login/recovery"] {
        let bad = fixture.call(Method::POST, path, &login, bad.clone()).await;
        assert_eq!(bad.status, StatusCode::UNAUTHORIZED, "{}", bad.text);
    }
    let choose = fixture.call(Method::POST, "/login/totp", &login, code);
    let devices = choose.await.json()["devices"].clone();
    assert_eq!(devices.as_array().unwrap().len(), 2, "{devices}");
    assert_eq!(devices[0]["name"], "laptop");
    assert_eq!(devices[0]["location"], "office");

    let chosen = json!({ "device": devices[0]["id"] });
    let opened = fixture.call(Method::POST, "/login/device", &login, chosen);
    let opened = opened.await;
    assert_eq!(opened.status, StatusCode::OK, "{}", opened.text);
    assert_eq!(opened.json()["device"], "laptop");
    assert!(opened.cookie(LOGIN).1.contains("Max-Age=0"));
    let (session, _) = opened.cookie(SESSION);
    let ended = |cookies: String| {
        let fixture = &fixture;
        async move {
            let none = Value::Null;
            fixture
                .call(Method::DELETE, "/session", &cookies, none)
                .await
        }
    };
    assert_eq!(ended(login).await.json()["code"], "no_session");
    assert_eq!(fixture.live().await, 1);
    let over = ended(session.clone()).await;
    assert_eq!(over.status, StatusCode::OK, "{}", over.text);
    assert_eq!(over.json()["ended"], true);
    assert!(over.cookie(SESSION).1.contains("Max-Age=0"));
    assert_eq!(fixture.live().await, 0);
    assert_eq!(ended(session).await.json()["code"], "no_session");
}

#[tokio::test]
async fn a_passkey_follows_the_password() {
    let fixture = Fixture::new().await;
    let mut key = fixture.register().await;
    let begin = "/login/passkey/begin";
    let none = fixture.call(Method::POST, begin, "", json!({})).await;
    assert_eq!(none.json()["code"], "unknown_attempt");

    let (wants, login) = fixture.begin_json().await;
    let factors = wants["factors"].as_array().unwrap();
    assert!(factors.contains(&json!("passkey")), "{wants}");
    let page = fixture.get("/", &login).await;
    let offered = "data-begin=\"/api/v1/login/passkey/begin\"";
    assert!(page.text.contains(offered), "{}", page.text);
    let (_, value) = login.split_once('=').unwrap();
    assert!(!page.text.contains(value), "a page does not name the login");

    let options = fixture.call(Method::POST, begin, &login, json!({})).await;
    let mut another = Authenticator::new("another", ORIGIN, HOST);
    let forged = json!({ "credential": another.get(&options.json()) });
    let finish = "/login/passkey/finish";
    let refused = fixture.call(Method::POST, finish, &login, forged).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{}", refused.text);
    let options = fixture.call(Method::POST, begin, &login, json!({})).await;
    let answer = json!({ "credential": key.get(&options.json()) });
    let choose = fixture.call(Method::POST, finish, &login, answer).await;
    assert_eq!(choose.status, StatusCode::OK, "{}", choose.text);
    // Where the page's script leads to.
    let page = fixture.get("/", &login).await;
    let devices = page.devices();
    assert_eq!(devices.len(), 2, "{}", page.text);
    let chosen = format!("device={}", devices[0]);
    let opened = fixture.form("/login/device", &login, &chosen).await;
    assert_eq!(opened.status, StatusCode::SEE_OTHER);
    let (session, _) = opened.cookie(SESSION);
    let none = Value::Null;
    let told = fixture.call(Method::GET, "/session", &session, none).await;
    assert_eq!(told.json()["level"], "phishing-resistant");
}

#[tokio::test]
async fn the_calls_are_described_beside_those_of_enrolment() {
    let fixture = Fixture::new().await;
    let described = fixture.get("/api/v1/openapi.json", "").await;
    let described: Value = serde_json::from_str(&described.text).unwrap();
    let paths = described["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 9, "{paths:?}");
    assert!(paths["/api/v1/session"]["get"].is_object());
    let enrolment = fixture.get("/api/v1/enrol/openapi.json", "").await;
    assert_eq!(enrolment.status, StatusCode::OK);
    assert_eq!(fixture.get("/session.js", "").await.status, StatusCode::OK);
}
