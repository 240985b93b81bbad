//! The real portal on a loopback address, which stands for a device's tunnel address.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_control::{Control, ControlConfig, PortalName};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use sha2::{Digest as _, Sha256};
use sqlx::Connection as _;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::Request;
use totp_rs::Totp;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The portal's name.
pub const NAME: &str = "login.example.com";
/// The password of `ada`.
pub const PASSWORD: &str = "correct horse battery";

/// The portal, and a control service with the user `ada` and her device.
pub struct Portal {
    control: Control,
    port: u16,
    totp: Totp,
    serving: JoinHandle<()>,
    _state: TempDir,
}

impl Portal {
    /// Starts everything in this process.
    pub async fn start() -> Result<Self> {
        let state = tempfile::tempdir()?;
        let database = format!("sqlite://{}/portcullis.db", state.path().display());
        let control = Control::open(ControlConfig {
            database: database.clone(),
            state_dir: state.path().join("state"),
            ..ControlConfig::default()
        })
        .await?;
        let totp = add_ada(&control).await?;
        // No pool may hold a loopback address.
        let mut connection = sqlx::SqliteConnection::connect(&database).await?;
        sqlx::query("UPDATE device_addresses SET address = '127.0.0.1'")
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        // Origins name the port, so it has to be known before the portal listens.
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let portal = bind(&control, address)?;
        Ok(Self {
            control,
            port: address.port(),
            totp,
            serving: tokio::spawn(portal.serve(std::future::pending())),
            _state: state,
        })
    }

    /// A page's address by the portal's name.
    pub fn url(&self, path: &str) -> String {
        format!("https://{NAME}:{}{path}", self.port)
    }

    /// A page's address by the portal's IP address.
    pub fn url_by_address(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }

    /// The code of Ada's authenticator app, now.
    pub fn code(&self) -> String {
        self.totp.generate_current().to_string()
    }

    /// Base64 of the SHA-256 of the CA's public key, as Chromium names what it shall trust.
    pub fn ca_spki(&self) -> Result<String> {
        let der = self.control.ca_certificate();
        let (_, certificate) = X509Certificate::from_der(&der).context("the CA's certificate")?;
        Ok(STANDARD.encode(Sha256::digest(certificate.public_key().raw)))
    }

    /// What is in the audit, newest first.
    pub async fn audited(&self) -> Result<Vec<String>> {
        let request = Request::new(v1::ListAuditRequest { limit: 0 });
        let records = self.control.admin().list_audit(request).await?.into_inner();
        Ok(records.records.into_iter().map(|r| r.action).collect())
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn bind(control: &Control, address: SocketAddr) -> Result<portcullis_portal::Portal> {
    let name = PortalName::parse(NAME)?;
    let tls = control.server_config_for_portal(&[address.ip()], Some(&name))?;
    let passkeys = control.passkeys(name, &[address.port()])?;
    let logins = control.logins();
    Ok(portcullis_portal::Portal::bind(
        &[address],
        tls,
        logins,
        Some(passkeys),
        None,
    )?)
}

async fn add_ada(control: &Control) -> Result<Totp> {
    let admin = control.admin();
    let location = v1::Location {
        name: "office".into(),
        pools: vec!["10.77.0.0/24".into()],
        endpoint: "vpn.example.org:51820".into(),
        session_lifetime_ms: 12 * 3_600_000,
        idle_timeout_ms: 1_800_000,
        ..Default::default()
    };
    let location = Some(location);
    let location = Request::new(v1::AddLocationRequest {
        location,
        ..Default::default()
    });
    admin.add_location(location).await?;
    let user = Request::new(v1::AddUserRequest {
        name: "ada".into(),
        password: PASSWORD.into(),
        ..Default::default()
    });
    let user = admin.add_user(user).await?.into_inner();
    let device = Request::new(v1::AddDeviceRequest {
        name: "laptop".into(),
        user: "ada".into(),
        public_key: vec![7; 32],
        ..Default::default()
    });
    admin.add_device(device).await?;
    Totp::from_url(&user.totp_uri).map_err(|error| anyhow::anyhow!("{error}"))
}
