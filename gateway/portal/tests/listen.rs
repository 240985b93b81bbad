//! The portal's sockets, over real TLS.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_control::{Control, ControlConfig, PortalName};
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
    let config = ControlConfig {
        database: format!("sqlite://{}/portcullis.db", state.path().display()),
        state_dir: state.path().join("state"),
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
