//! Devices, sessions and activity through the portal: the calls, the pages, and what they refuse.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_control::{Control, ControlConfig};
use portcullis_portal::{DeviceAddr, app};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tempfile::TempDir;
use tower::ServiceExt as _;

const HOST: &str = "10.77.0.1:8443";
const ORIGIN: &str = "https://10.77.0.1:8443";

/// Ada's laptop, signed in, and the portal as that laptop sees it.
struct Fixture {
    control: Control,
    laptop: IpAddr,
    _state: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let database = format!("sqlite://{}/portcullis.db", state.path().display());
        let control = Control::open(ControlConfig {
            database: database.clone(),
            state_dir: state.path().join("state"),
            ..ControlConfig::default()
        })
        .await
        .unwrap();
        let admin = control.admin();
        let location = Some(v1::Location {
            name: "office".into(),
            pools: vec!["10.77.0.0/24".into()],
            dns: vec!["10.77.0.1".into()],
            endpoint: "vpn.example.org:51820".into(),
            ..Default::default()
        });
        let location = v1::AddLocationRequest {
            location,
            ..Default::default()
        };
        admin
            .add_location(tonic::Request::new(location))
            .await
            .unwrap();
        for name in ["ada", "bob"] {
            let user = v1::AddUserRequest {
                name: name.into(),
                password: "correct horse battery".into(),
                ..Default::default()
            };
            admin.add_user(tonic::Request::new(user)).await.unwrap();
        }
        control.gateway_token("gw", "office").await.unwrap();
        let mut connection = sqlx::SqliteConnection::connect(&database).await.unwrap();
        let key = STANDARD.encode([5; 32]);
        sqlx::query("UPDATE gateways SET public_key = $1")
            .bind(key)
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        let mut fixture = Self {
            control,
            laptop: IpAddr::from([0, 0, 0, 0]),
            _state: state,
        };
        fixture.laptop = fixture.device("laptop", "ada", 7).await;
        fixture.sign_in("laptop").await;
        fixture
    }

    async fn device(&self, name: &str, user: &str, key: u8) -> IpAddr {
        let device = v1::AddDeviceRequest {
            name: name.into(),
            user: user.into(),
            public_key: vec![key; 32],
            ..Default::default()
        };
        let admin = self.control.admin();
        let added = admin.add_device(tonic::Request::new(device)).await.unwrap();
        let device = added.into_inner().device.unwrap();
        device.addresses[0].parse().unwrap()
    }

    async fn sign_in(&self, device: &str) {
        let session = v1::AddSessionRequest {
            device: device.into(),
            ..Default::default()
        };
        let admin = self.control.admin();
        admin
            .add_session(tonic::Request::new(session))
            .await
            .unwrap();
    }

    fn portal(&self, from: IpAddr) -> Router {
        app(self.control.logins(), None, None).layer(Extension(DeviceAddr(from)))
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        self.call_from(self.laptop, method, path, body).await
    }

    async fn call_from(
        &self,
        from: IpAddr,
        method: Method,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let request = request(method, path, "application/json", &body.to_string());
        let response = self.portal(from).oneshot(request).await.unwrap();
        let status = response.status();
        let text = text(response).await;
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    async fn form(&self, path: &str, body: &str) -> Response<Body> {
        let kind = "application/x-www-form-urlencoded";
        let request = request(Method::POST, path, kind, body);
        self.portal(self.laptop).oneshot(request).await.unwrap()
    }

    async fn page(&self, path: &str) -> String {
        let request = request(Method::GET, path, "text/plain", "");
        text(self.portal(self.laptop).oneshot(request).await.unwrap()).await
    }
}

fn request(method: Method, path: &str, kind: &str, body: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, HOST)
        .header(header::ORIGIN, ORIGIN)
        .header(header::CONTENT_TYPE, kind)
        .body(Body::from(body.to_owned()))
        .unwrap()
}

async fn text(response: Response<Body>) -> String {
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn key(byte: u8) -> String {
    STANDARD.encode([byte; 32])
}

#[tokio::test]
async fn devices_through_the_api() {
    let fixture = Fixture::new().await;
    let body = json!({ "name": "Phone", "public_key": key(9), "hours": 8 });
    let (status, added) = fixture.call(Method::POST, "/api/v1/devices", body).await;
    assert_eq!(status, StatusCode::CREATED, "{added}");
    assert_eq!(added["device"]["name"], "Phone");
    assert!(added["device"]["ends_at"].is_string());
    assert_eq!(
        added["tunnel"],
        json!({
            "addresses": ["10.77.0.3/32"], "dns": ["10.77.0.1"], "mtu": added["tunnel"]["mtu"],
            "server_public_key": key(5), "endpoint": "vpn.example.org:51820",
            "allowed_ips": ["10.77.0.0/24"],
            "persistent_keepalive_s": added["tunnel"]["persistent_keepalive_s"],
            "portal_url": "https://10.77.0.1",
        })
    );
    let (_, list) = fixture
        .call(Method::GET, "/api/v1/devices", Value::Null)
        .await;
    assert_eq!(list["devices"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&list["limit"], &list["change_needs"]),
        (&json!(5), &Value::Null)
    );

    let path = format!(
        "/api/v1/devices/{}",
        added["device"]["id"].as_str().unwrap()
    );
    let (status, _) = fixture
        .call(Method::PATCH, &path, json!({ "name": "Old phone" }))
        .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, removed) = fixture.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!(
        (status, removed),
        (
            StatusCode::OK,
            json!({ "ended_sessions": 0, "pending": false })
        )
    );
    let (status, gone) = fixture.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!(
        (status, &gone["code"]),
        (StatusCode::NOT_FOUND, &json!("no_such_device"))
    );
    for (body, code) in [
        (json!({ "name": "x", "public_key": key(7) }), "bad_key"),
        (json!({ "name": "x", "public_key": "?" }), "bad_key"),
        (
            json!({ "name": "x", "public_key": key(8), "hours": 25 }),
            "bad_request",
        ),
        (json!({ "name": "", "public_key": key(8) }), "bad_request"),
        (
            json!({ "name": "x", "public_key": key(8), "private_key": "y" }),
            "bad_request",
        ),
    ] {
        let (status, refused) = fixture.call(Method::POST, "/api/v1/devices", body).await;
        assert!(status.is_client_error());
        assert_eq!(refused["code"], code);
    }
}

#[tokio::test]
async fn another_users_things_are_answered_like_none() {
    let fixture = Fixture::new().await;
    let bobs = fixture.device("bobs", "bob", 11).await;
    fixture.sign_in("bobs").await;
    let (_, list) = fixture
        .call_from(bobs, Method::GET, "/api/v1/devices", Value::Null)
        .await;
    let (_, sessions) = fixture
        .call_from(bobs, Method::GET, "/api/v1/sessions", Value::Null)
        .await;
    let device = list["devices"][0]["id"].as_str().unwrap();
    let session = sessions["sessions"][0]["id"].as_str().unwrap();
    for (kind, theirs) in [("devices", device), ("sessions", session)] {
        let (theirs, none) = (
            format!("/api/v1/{kind}/{theirs}"),
            format!("/api/v1/{kind}/00000000-0000-4000-8000-000000000000"),
        );
        let theirs = fixture.call(Method::DELETE, &theirs, Value::Null).await;
        let none = fixture.call(Method::DELETE, &none, Value::Null).await;
        assert_eq!(theirs, none);
        assert_eq!(theirs.0, StatusCode::NOT_FOUND);
    }
    for path in ["/devices", "/sessions"] {
        let page = fixture.page(path).await;
        assert!(page.contains("laptop") && !page.contains("bob"), "{page}");
    }
}

#[tokio::test]
async fn devices_and_sessions_through_the_pages() {
    let fixture = Fixture::new().await;
    let form = format!(
        "name=My+phone&public_key={}&temporary=yes&hours=2",
        key(9)
            .replace('=', "%3D")
            .replace('+', "%2B")
            .replace('/', "%2F")
    );
    let added = fixture.form("/devices", &form).await;
    assert_eq!(added.status(), StatusCode::CREATED);
    let page = text(added).await;
    for part in [
        "“My phone” is added",
        "Temporary, until",
        "Address = 10.77.0.3/32\n",
        "Endpoint = vpn.example.org:51820\n",
        "# PrivateKey = ",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let page = fixture.page("/devices").await;
    assert!(
        page.contains("My phone") && page.contains("2 of 5"),
        "{page}"
    );
    let id = page.split("/rename\"").next().unwrap();
    let id = id.rsplit('/').next().unwrap().to_owned();
    let renamed = fixture
        .form(&format!("/devices/{id}/rename"), "name=%3Cb%3E")
        .await;
    assert_eq!(renamed.status(), StatusCode::SEE_OTHER);
    let page = fixture.page("/devices").await;
    assert!(!page.contains("<b>") && page.contains("b&#62;"), "{page}");

    let again = fixture.form("/devices", &form).await;
    assert_eq!(again.status(), StatusCode::BAD_REQUEST);
    assert!(text(again).await.contains("role=\"alert\""));

    fixture.device("tablet", "ada", 12).await;
    fixture.sign_in("tablet").await;
    let page = fixture.page("/sessions").await;
    for part in ["tablet", "End all others", "Device “tablet” was added"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let ended = fixture.form("/sessions/end-others", "").await;
    assert_eq!(ended.headers()[header::LOCATION], "/sessions");
    assert!(!fixture.page("/sessions").await.contains("End all others"));
}

#[tokio::test]
async fn without_a_session_pages_lead_to_signing_in_and_calls_are_refused() {
    let fixture = Fixture::new().await;
    let (status, _) = fixture
        .call(Method::DELETE, "/api/v1/session", Value::Null)
        .await;
    assert_eq!(status, StatusCode::OK);
    for path in ["/devices", "/sessions"] {
        let request = request(Method::GET, path, "text/plain", "");
        let answer = fixture
            .portal(fixture.laptop)
            .oneshot(request)
            .await
            .unwrap();
        assert_eq!(answer.headers()[header::LOCATION], "/");
    }
    for path in ["/api/v1/devices", "/api/v1/sessions", "/api/v1/activity"] {
        let (status, refused) = fixture.call(Method::GET, path, Value::Null).await;
        assert_eq!(
            (status, &refused["code"]),
            (StatusCode::UNAUTHORIZED, &json!("login_required"))
        );
    }
}

#[tokio::test]
async fn other_sites_change_no_devices_and_end_no_sessions() {
    let fixture = Fixture::new().await;
    for path in [
        "/devices",
        "/devices/x/remove",
        "/sessions/end-others",
        "/sessions/x/end",
    ] {
        let kind = "application/x-www-form-urlencoded";
        let mut request = request(Method::POST, path, kind, "");
        let evil = "https://evil.example".parse().unwrap();
        request.headers_mut().insert(header::ORIGIN, evil);
        let answer = fixture
            .portal(fixture.laptop)
            .oneshot(request)
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
    }
}

#[tokio::test]
async fn the_description_is_served_and_scripts_are_files_of_ours() {
    let fixture = Fixture::new().await;
    let (status, described) = fixture
        .call(Method::GET, "/api/v1/openapi.json", Value::Null)
        .await;
    assert_eq!(status, StatusCode::OK);
    let version = described["openapi"].as_str().unwrap();
    assert!(version.starts_with("3."), "{version}");
    assert!(described["paths"]["/api/v1/devices/{id}"]["delete"].is_object());
    for script in ["/devices.js", "/qr.js", "/session.js"] {
        let request = request(Method::GET, script, "text/plain", "");
        let answer = fixture
            .portal(fixture.laptop)
            .oneshot(request)
            .await
            .unwrap();
        let kind = &answer.headers()[header::CONTENT_TYPE];
        assert_eq!(kind, "text/javascript; charset=utf-8");
    }
}
