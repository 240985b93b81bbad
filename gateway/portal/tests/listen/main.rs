//! The portal's sockets, over real TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod schemathesis;

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use portcullis_control::{Control, ControlConfig, Passkeys, PortalName, SsoConfig};
use portcullis_portal::Portal;
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use sqlx::Connection as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tonic::Request;

async fn control() -> (Control, TempDir) {
    let state = tempfile::tempdir().unwrap();
    let client_secret_file = state.path().join("secret");
    std::fs::write(&client_secret_file, "secret\n").unwrap();
    std::fs::set_permissions(&client_secret_file, Permissions::from_mode(0o600)).unwrap();
    let config = ControlConfig {
        database: format!("sqlite://{}/portcullis.db", state.path().display()),
        state_dir: state.path().join("state"),
        // A provider that does not answer.
        sso: vec![SsoConfig {
            name: "acme".into(),
            title: None,
            preset: Default::default(),
            issuer: Some("http://127.0.0.1:9".into()),
            client_id: "portcullis".into(),
            client_secret_file,
            levels: None,
            groups_claim: None,
            groups_lifetime: None,
            max_age: None,
        }],
        ..ControlConfig::default()
    };
    (Control::open(config).await.unwrap(), state)
}

fn bind(control: &Control, address: &str) -> Result<Portal, portcullis_portal::BindError> {
    let address: SocketAddr = address.parse().unwrap();
    let tls = control
        .server_config_for_portal(&[address.ip()], None)
        .unwrap();
    Portal::bind(&[address], tls, control.logins(), None, None)
}

/// With all that a name makes possible.
fn bind_named(control: &Control) -> Result<Portal, portcullis_portal::BindError> {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let tls = control
        .server_config_for_portal(&[address.ip()], None)
        .unwrap();
    let sso = control.sso(name(), &[443]).unwrap();
    let passkeys = Some(passkeys(control));
    Portal::bind(&[address], tls, control.logins(), passkeys, sso)
}

fn name() -> PortalName {
    PortalName::parse("login.example.com").unwrap()
}

fn passkeys(control: &Control) -> Passkeys {
    control.passkeys(name(), &[443]).unwrap()
}

fn connector(control: &Control) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(control.ca_certificate()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// A device whose tunnel address is this machine's loopback address, which no pool may hold.
async fn add_loopback_device(control: &Control, state: &TempDir) {
    let admin = control.admin();
    let location = v1::Location {
        name: "office".into(),
        pools: vec!["10.77.0.0/24".into()],
        endpoint: "vpn.example.org:51820".into(),
        ..Default::default()
    };
    let location = Some(location);
    let location = admin.add_location(Request::new(v1::AddLocationRequest {
        location,
        ..Default::default()
    }));
    location.await.unwrap();
    let user = v1::AddUserRequest {
        name: "ada".into(),
        password: "correct horse battery".into(),
        ..Default::default()
    };
    admin.add_user(Request::new(user)).await.unwrap();
    let device = v1::AddDeviceRequest {
        name: "laptop".into(),
        user: "ada".into(),
        public_key: vec![7; 32],
        ..Default::default()
    };
    admin.add_device(Request::new(device)).await.unwrap();
    let url = format!("sqlite://{}/portcullis.db", state.path().display());
    let mut database = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("UPDATE device_addresses SET address = '127.0.0.1'")
        .execute(&mut database)
        .await
        .unwrap();
}

/// Nobody but devices gets as far as a handshake.
#[tokio::test]
async fn strangers_are_not_spoken_to() {
    let (control, _state) = control().await;
    let portal = bind(&control, "127.0.0.1:0").unwrap();
    let address = portal.addresses()[0];
    let serving = tokio::spawn(portal.serve(std::future::pending()));
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::from(address.ip());
    assert!(connector(&control).connect(name, tcp).await.is_err());
    serving.abort();
}

/// Outside of the tunnel everybody is, so often.
#[tokio::test]
async fn strangers_are_spoken_to_in_public_and_not_without_end() {
    let (control, _state) = control().await;
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let tls = control
        .server_config_for_portal(&[address.ip()], None)
        .unwrap();
    let portal = Portal::bind_public(
        &[address],
        tls,
        control.enrolments(),
        control.connects(),
        None,
        None,
    )
    .unwrap();
    let address = portal.addresses()[0];
    let serving = tokio::spawn(portal.serve(std::future::pending()));
    let connect = async || {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::from(address.ip());
        connector(&control).connect(name, tcp).await
    };
    let mut tls = connect().await.unwrap();
    tls.write_all(b"GET /enrol HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    tls.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let mut refused = 0;
    for _ in 0..50 {
        refused += i32::from(connect().await.is_err());
    }
    assert!(refused > 5, "{refused}");
    serving.abort();
}

/// `public = ["0.0.0.0:443"]`, and the portal at a tunnel address with the same port.
#[tokio::test]
async fn all_addresses_in_public_take_nothing_from_the_one_inside() {
    let (control, _state) = control().await;
    let tls = || control.server_config_for_portal(&[], None).unwrap();
    let everywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let public = Portal::bind_public(
        &[everywhere],
        tls(),
        control.enrolments(),
        control.connects(),
        None,
        None,
    )
    .unwrap();
    let port = public.addresses()[0].port();
    let address = format!("127.0.0.1:{port}");
    assert!(bind(&control, &address).is_err(), "only where it is meant");
    let address: SocketAddr = address.parse().unwrap();
    let inside =
        Portal::bind_beside_public(&[address], tls(), control.logins(), None, None).unwrap();
    let serving = [
        tokio::spawn(public.serve(std::future::pending())),
        tokio::spawn(inside.serve(std::future::pending())),
    ];
    let connector = connector(&control);
    let is_spoken_to = async |address: &str| {
        let tcp = TcpStream::connect((address, port)).await.unwrap();
        let mut hello = connector.connect(ServerName::try_from("x.example").unwrap(), tcp);
        // No certificate is for this name: what counts is whether there was one.
        let error = (&mut hello).await.unwrap_err().to_string();
        error.contains("certificate")
    };
    for _ in 0..10 {
        assert!(!is_spoken_to("127.0.0.1").await, "no device's address");
        assert!(is_spoken_to("127.0.0.2").await, "public");
    }
    for serving in serving {
        serving.abort();
    }
}

#[tokio::test]
async fn serves_over_tls_until_told_to_stop() {
    let (control, state) = control().await;
    add_loopback_device(&control, &state).await;
    let portal = bind(&control, "127.0.0.1:0").unwrap();
    let address = portal.addresses()[0];
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(portal.serve(async {
        let _ = stopped.await;
    }));

    let name = ServerName::from(address.ip());
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut tls = connector(&control).connect(name, tcp).await.unwrap();
    tls.write_all(b"GET /api/v1/session HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    // The peer may close without TLS's own farewell; what came before it counts.
    let _ = tls.read_to_string(&mut answer).await;
    assert!(
        answer.starts_with("HTTP/1.1 404") && answer.contains("no_session"),
        "{answer}"
    );

    stop.send(()).unwrap();
    serving.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_certificate_carries_the_name_beside_the_address() {
    let (control, state) = control().await;
    add_loopback_device(&control, &state).await;
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let name = PortalName::parse("login.example.com").unwrap();
    let tls = control.server_config_for_portal(&[address.ip()], Some(&name));
    let portal = Portal::bind(&[address], tls.unwrap(), control.logins(), None, None).unwrap();
    let address = portal.addresses()[0];
    let serving = tokio::spawn(portal.serve(std::future::pending()));
    for (name, ours) in [
        ("login.example.com", true),
        ("127.0.0.1", true),
        ("other.example.com", false),
    ] {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name).unwrap();
        let connected = connector(&control).connect(name.clone(), tcp).await;
        assert_eq!(connected.is_ok(), ours, "{name:?}");
    }
    serving.abort();
}

#[tokio::test]
async fn an_occupied_port_is_named() {
    let (control, _state) = control().await;
    let first = bind(&control, "127.0.0.1:0").unwrap();
    let address = first.addresses()[0].to_string();
    let error = bind(&control, &address).err().unwrap().to_string();
    assert!(
        error.contains(&address) && error.contains("another program has this port"),
        "{error}"
    );
}

/// The tunnel's addresses come up after the portal.
#[tokio::test]
async fn listens_on_addresses_that_do_not_exist_yet() {
    let (control, _state) = control().await;
    assert!(bind(&control, "192.0.2.77:0").is_ok());
    assert!(bind(&control, "[2001:db8::77]:0").is_ok());
}

/// What the portal says to these bytes, over TLS or in the clear.
async fn ask(control: &Control, address: SocketAddr, tls: bool, request: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let mut answer = String::new();
    if tls {
        let name = ServerName::from(address.ip());
        let mut stream = connector(control).connect(name, tcp).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let _ = stream.read_to_string(&mut answer).await;
    } else {
        tcp.write_all(request.as_bytes()).await.unwrap();
        let _ = tcp.read_to_string(&mut answer).await;
    }
    answer.to_ascii_lowercase()
}

fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
}

async fn log_in(control: &Control) {
    let session = v1::AddSessionRequest {
        device: "laptop".into(),
        lifetime_ms: 3_600_000,
        idle_timeout_ms: 0,
    };
    let admin = control.admin();
    admin.add_session(Request::new(session)).await.unwrap();
}

#[tokio::test]
async fn plain_http_is_told_where_the_pages_are_and_nothing_else() {
    let (control, state) = control().await;
    add_loopback_device(&control, &state).await;
    let portal = bind(&control, "127.0.0.1:0").unwrap();
    let address = portal.addresses()[0];
    let serving = tokio::spawn(portal.serve(std::future::pending()));
    let first = format!("location: https://{address}/\r\n");

    // Before a login everything leads to the first page, calls of the API as well.
    for request in [
        get("/generate_204", "connectivitycheck.example"),
        get("/api/v1/session", &address.to_string()),
        get("/", "evil.example/@x"),
        "POST /login HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nconnection: close\r\n\r\na=b&"
            .to_owned(),
    ] {
        let answer = ask(&control, address, false, &request).await;
        assert!(answer.starts_with("http/1.1 302"), "{request}: {answer}");
        assert!(answer.contains(&first), "{request}: {answer}");
        assert!(!answer.contains("set-cookie") && !answer.contains("laptop"));
    }
    // With a session, to the page that says why it was not enough; for nothing but a host's name.
    log_in(&control).await;
    let step_up = format!("location: https://{address}/step-up?for=intranet.example\r\n");
    let answer = ask(&control, address, false, &get("/x?y", "intranet.example")).await;
    assert!(answer.contains(&step_up), "{answer}");
    for host in ["a\"b", "x/../y", "a%0d%0aset-cookie:b"] {
        let answer = ask(&control, address, false, &get("/", host)).await;
        assert!(answer.contains(&first), "{answer}");
    }
    let page = ask(
        &control,
        address,
        true,
        &get("/step-up?for=intranet.example", "x"),
    )
    .await;
    assert!(page.contains("<strong>intranet.example</strong>"), "{page}");
    let page = ask(
        &control,
        address,
        true,
        &get("/step-up?for=%3Cscript%3E", "x"),
    )
    .await;
    assert!(!page.contains("<script>"), "{page}");
    serving.abort();
}

/// RFC 8908.
#[tokio::test]
async fn the_captive_portal_api_says_whether_a_login_is_wanted() {
    let (control, state) = control().await;
    add_loopback_device(&control, &state).await;
    let portal = bind(&control, "127.0.0.1:0").unwrap();
    let address = portal.addresses()[0];
    let serving = tokio::spawn(portal.serve(std::future::pending()));
    let api = get("/captive-portal/api", "x");

    let answer = ask(&control, address, true, &api).await;
    assert!(answer.contains("content-type: application/captive+json"));
    let url = format!("\"user-portal-url\":\"https://{address}/\"");
    let body = format!("{{\"captive\":true,{url}}}");
    assert!(answer.contains(&body), "{answer}");

    log_in(&control).await;
    let answer = ask(&control, address, true, &api).await;
    let body =
        format!("{{\"captive\":false,{url},\"can-extend-session\":true,\"seconds-remaining\":3");
    assert!(answer.contains(&body), "{answer}");
    serving.abort();
}

/// As over TLS.
#[tokio::test]
async fn strangers_are_told_nothing_in_the_clear_either() {
    let (control, _state) = control().await;
    let portal = bind(&control, "127.0.0.1:0").unwrap();
    let address = portal.addresses()[0];
    let serving = tokio::spawn(portal.serve(std::future::pending()));
    assert_eq!(ask(&control, address, false, &get("/", "x")).await, "");
    serving.abort();
}
