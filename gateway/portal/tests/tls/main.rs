//! The certificate at the portal's name: from files, and by ACME from a real CA program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

/// Runs a test on both engines: `on_both!(name, …)`, each an `async fn(Engine)`.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod on_sqlite {
            $(
                #[tokio::test]
                async fn $name() { super::$name($crate::Engine::Sqlite).await; }
            )*
        }
        mod on_postgres {
            $(
                #[tokio::test]
                async fn $name() { super::$name($crate::Engine::Postgres).await; }
            )*
        }
    };
}
mod acme;
mod files;
mod pebble;
#[path = "../../../control/tests/control/postgres.rs"]
#[expect(dead_code, reason = "control's own tests use more of it")]
mod postgres;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use portcullis_control::{Clock, Control, ControlConfig, PortalName};
use portcullis_portal::Portal;
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Request;

pub(crate) const NAME: &str = "login.example.com";

pub(crate) fn name() -> PortalName {
    PortalName::parse(NAME).unwrap()
}

#[derive(Clone, Copy)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// A control service with a clock that only moves when told to.
pub(crate) struct World {
    pub(crate) control: Control,
    config: ControlConfig,
    pub(crate) now: Arc<AtomicI64>,
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(Engine::Sqlite).await
    }

    pub(crate) async fn on(engine: Engine) -> Self {
        // As the binary does.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let database = match engine {
            Engine::Sqlite => format!("sqlite://{}", dir.path().join("store.db").display()),
            Engine::Postgres => tokio::task::spawn_blocking(|| postgres::server().database())
                .await
                .unwrap(),
        };
        let config = ControlConfig {
            database,
            state_dir: dir.path().join("state"),
            ..ControlConfig::default()
        };
        let now = Arc::new(AtomicI64::new(Clock::system().now_ms()));
        let control = open(&config, &now).await;
        Self {
            control,
            config,
            now,
            dir,
        }
    }

    /// Another control process on the same store, or the same one after a restart.
    pub(crate) async fn another(&self) -> Control {
        open(&self.config, &self.now).await
    }

    pub(crate) fn advance_ms(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.now.load(Ordering::SeqCst)
    }

    pub(crate) async fn told(&self) -> v1::PortalCertificate {
        told(&self.control).await
    }
}

async fn open(config: &ControlConfig, now: &Arc<AtomicI64>) -> Control {
    let clock = Clock::stepped(now.clone());
    Control::open_with_clock(config.clone(), clock)
        .await
        .unwrap()
}

/// What `portcullis status` says.
pub(crate) async fn told(control: &Control) -> v1::PortalCertificate {
    let request = Request::new(v1::StatusRequest {});
    let status = control.admin().status(request).await.unwrap();
    status.into_inner().portal_certificate.unwrap_or_default()
}

/// A portal that speaks to everybody.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn serve(control: &Control) -> Serving {
    serve_as(control, &name())
}

pub(crate) fn serve_as(control: &Control, name: &PortalName) -> Serving {
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let tls = control
        .server_config_for_portal(&[address.ip()], Some(name))
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
    Serving {
        address,
        task: tokio::spawn(portal.serve(std::future::pending())),
    }
}

/// Takes any certificate, to look at it.
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ED25519,
        ]
    }
}

/// The chain that is shown to a client that asks for this name (an address: asks for none).
pub(crate) async fn shown(at: SocketAddr, asked: &str) -> Vec<CertificateDer<'static>> {
    let config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything))
        .with_no_client_auth();
    let tcp = TcpStream::connect(at).await.unwrap();
    let asked = ServerName::try_from(asked.to_owned()).unwrap();
    let tls = TlsConnector::from(Arc::new(config))
        .connect(asked, tcp)
        .await
        .unwrap();
    tls.get_ref().1.peer_certificates().unwrap().to_vec()
}

/// Whether a client that trusts this CA alone accepts what is shown at this name.
pub(crate) async fn accepts(at: SocketAddr, root: &CertificateDer<'_>, asked: &str) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone().into_owned()).unwrap();
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(at).await.unwrap();
    let asked = ServerName::try_from(asked.to_owned()).unwrap();
    let connecting = TlsConnector::from(Arc::new(config));
    connecting.connect(asked, tcp).await.is_ok()
}

/// A CA of the test's.
pub(crate) struct TestCa {
    pub(crate) certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Certificate and key in PEM, good in these years.
    pub(crate) fn give(&self, names: &[&str], years: (i32, i32)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

pub(crate) fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
