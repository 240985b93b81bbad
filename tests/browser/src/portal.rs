//! The real portal on a loopback address, which stands for a device's tunnel address.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_client::{KeyPair, PortalClient};
use portcullis_control::{Approvals, Control, ControlConfig, PortalName, SsoConfig};
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

/// The gateway's WireGuard key.
pub const GATEWAY_KEY: [u8; 32] = [5; 32];

/// The portal, and a control service with the user `ada` and her device.
pub struct Portal {
    control: Control,
    port: u16,
    public: u16,
    database: String,
    totp: Totp,
    serving: JoinHandle<()>,
    enrolling: JoinHandle<()>,
    _state: TempDir,
}

impl Portal {
    /// Starts everything in this process.
    pub async fn start() -> Result<Self> {
        Self::start_on(free_address()?, Vec::new(), tempfile::tempdir()?).await
    }

    /// The same with single sign-on by a provider named `acme`, where Ada is `ada-1`. The provider has to
    /// know the portal's address, and this one the provider's.
    pub async fn start_with_sso(
        provider: impl FnOnce(&str) -> String,
        client_id: &str,
        secret: &str,
    ) -> Result<Self> {
        let address = free_address()?;
        let redirect = format!("https://{NAME}:{}/login/sso/acme/callback", address.port());
        let state = tempfile::tempdir()?;
        let file = state.path().join("secret");
        std::fs::write(&file, secret)?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
        let sso = SsoConfig {
            title: Some("Acme Works".into()),
            name: "acme".into(),
            preset: Default::default(),
            issuer: Some(provider(&redirect)),
            client_id: client_id.into(),
            client_secret_file: file,
            levels: None,
            groups_claim: None,
            groups_lifetime: None,
            max_age: None,
        };
        let portal = Self::start_on(address, vec![sso], state).await?;
        let link = Request::new(v1::SetUserSsoRequest {
            name: "ada".into(),
            provider: "acme".into(),
            subject: "ada-1".into(),
            wait_ms: 0,
        });
        portal.control.admin().set_user_sso(link).await?;
        Ok(portal)
    }

    /// Origins name the port, so it has to be known before the portal listens.
    async fn start_on(address: SocketAddr, sso: Vec<SsoConfig>, state: TempDir) -> Result<Self> {
        let database = format!("sqlite://{}/portcullis.db", state.path().display());
        let control = Control::open(ControlConfig {
            database: database.clone(),
            state_dir: state.path().join("state"),
            sso,
            ..ControlConfig::default()
        })
        .await?;
        let totp = add_ada(&control).await?;
        // No pool may hold a loopback address.
        let mut connection = sqlx::SqliteConnection::connect(&database).await?;
        sqlx::query("UPDATE device_addresses SET address = '127.0.0.1'")
            .execute(&mut connection)
            .await?;
        // No gateway runs here; what it would have told when it connected.
        control.gateway_token("gateway", "office").await?;
        sqlx::query("UPDATE gateways SET public_key = $1")
            .bind(STANDARD.encode(GATEWAY_KEY))
            .execute(&mut connection)
            .await?;
        connection.close().await?;
        let portal = bind(&control, address)?;
        let public = free_address()?;
        let enrolment = bind_public(&control, public)?;
        Ok(Self {
            public: public.port(),
            database,
            enrolling: tokio::spawn(enrolment.serve(std::future::pending())),
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

    /// A one-time link by which Ada enrols anew.
    pub async fn invite(&self) -> Result<String> {
        self.invite_to("").await
    }

    /// The same, with which a device may be added at a location.
    pub async fn invite_to(&self, location: &str) -> Result<String> {
        let request = Request::new(v1::InviteUserRequest {
            name: "ada".into(),
            location: location.into(),
            ..Default::default()
        });
        let link = self.control.admin().invite_user(request).await?;
        Ok(link.into_inner().url)
    }

    /// A page's address outside of the tunnel.
    pub fn public_url(&self, path: &str) -> String {
        format!("https://{NAME}:{}{path}", self.public)
    }

    /// Lets the time of every link pass.
    pub async fn expire_links(&self) -> Result<()> {
        self.sql("UPDATE enrolment_links SET expires_ms = 1").await
    }

    /// Lets the minute of every phone's approval pass.
    pub async fn expire_approvals(&self) -> Result<()> {
        self.sql("UPDATE approvals SET expires_ms = 1").await
    }

    /// Lets an hour pass since every login.
    pub async fn age_logins(&self) -> Result<()> {
        self.sql("UPDATE sessions SET authenticated_at_ms = authenticated_at_ms - 3600000")
            .await
    }

    /// Lets the time steps pass whose codes are spent, without waiting for it.
    pub async fn forget_codes(&self) -> Result<()> {
        self.sql("UPDATE users SET totp_last_step = 0").await
    }

    async fn sql(&self, statement: &'static str) -> Result<()> {
        let mut connection = sqlx::SqliteConnection::connect(&self.database).await?;
        sqlx::query(statement).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    /// Forgets Ada's wrong attempts.
    pub async fn unlock(&self) -> Result<()> {
        let name = "ada".into();
        let request = Request::new(v1::NameRequest { name });
        self.control.admin().unlock_user(request).await?;
        Ok(())
    }

    /// New recovery codes of Ada's.
    pub async fn recovery_codes(&self) -> Result<Vec<String>> {
        let name = "ada".into();
        let request = Request::new(v1::NameRequest { name });
        let codes = self.control.admin().new_recovery_codes(request).await?;
        Ok(codes.into_inner().codes)
    }

    /// Every path that the portal answers on, inside of the tunnel and outside. axum shows them in its
    /// debugging output alone.
    pub fn paths(&self) -> BTreeSet<String> {
        let inside = portcullis_portal::app(self.control.logins(), None, None);
        let outside = portcullis_portal::public_app(
            self.control.enrolments(),
            self.control.connects(),
            Some(self.control.outside()),
            self.approvals().ok(),
        );
        let text = format!("{inside:?}{outside:?}");
        let paths = text
            .split('"')
            .filter(|part| part.starts_with('/') && !part.contains("__private"));
        paths.map(str::to_owned).collect()
    }

    /// A session-key location, a device of Ada's there, and the portal outside as that device sees it.
    pub async fn add_vault(&self) -> Result<(KeyPair, PortalClient)> {
        let admin = self.control.admin();
        let location = v1::Location {
            name: "vault".into(),
            mode: "session-key".into(),
            pools: vec!["10.88.0.0/24".into()],
            endpoint: "vpn.example.org:51821".into(),
            ..Default::default()
        };
        let location = v1::AddLocationRequest {
            location: Some(location),
            ..Default::default()
        };
        admin.add_location(Request::new(location)).await?;
        let key = KeyPair::generate()?;
        let device = v1::AddDeviceRequest {
            name: "desktop".into(),
            user: "ada".into(),
            location: "vault".into(),
            public_key: key.public().as_bytes().to_vec(),
            ..Default::default()
        };
        admin.add_device(Request::new(device)).await?;
        let ca = self.control.ca_fingerprint().parse()?;
        let address = format!("https://127.0.0.1:{}", self.public);
        let client = tokio::task::block_in_place(|| PortalClient::connect(&address, ca))?;
        Ok((key, client))
    }

    fn approvals(&self) -> Result<Approvals> {
        let passkeys = self
            .control
            .passkeys(PortalName::parse(NAME)?, &[self.public])?;
        Ok(self.control.approvals(passkeys))
    }

    /// Base64 of the SHA-256 of the CA's public key, as Chromium names what it shall trust.
    pub fn ca_spki(&self) -> Result<String> {
        let der = self.control.ca_certificate();
        let (_, certificate) = X509Certificate::from_der(&der).context("the CA's certificate")?;
        Ok(STANDARD.encode(Sha256::digest(certificate.public_key().raw)))
    }

    /// A session of Ada's device, by an administrator: how long, in milliseconds; 0 for the default.
    pub async fn grant(&self, device: &str, lifetime_ms: u64) -> Result<()> {
        let request = Request::new(v1::AddSessionRequest {
            device: device.into(),
            lifetime_ms,
            ..Default::default()
        });
        self.control.admin().add_session(request).await?;
        Ok(())
    }

    /// Lets Ada in, or out.
    pub async fn set_disabled(&self, disabled: bool) -> Result<()> {
        let name = "ada".into();
        let request = Request::new(v1::SetUserDisabledRequest { name, disabled });
        self.control.admin().set_user_disabled(request).await?;
        Ok(())
    }

    /// From now on the location asks for passkeys.
    pub async fn require_passkeys(&self) -> Result<()> {
        let request = Request::new(v1::SetLocationRequest {
            name: "office".into(),
            require: Some(v1::Level::PhishingResistant.into()),
            ..Default::default()
        });
        self.control.admin().set_location(request).await?;
        Ok(())
    }

    /// Ends all sessions.
    pub async fn revoke(&self) -> Result<()> {
        let target = v1::revoke_sessions_request::Target::Everyone(true);
        let request = Request::new(v1::RevokeSessionsRequest {
            target: Some(target),
            wait_ms: 0,
        });
        self.control.admin().revoke_sessions(request).await?;
        Ok(())
    }

    /// A device of Ada's that an administrator adds.
    pub async fn add_device(&self, name: &str, key: u8) -> Result<()> {
        let device = Request::new(v1::AddDeviceRequest {
            name: name.into(),
            user: "ada".into(),
            public_key: vec![key; 32],
            ..Default::default()
        });
        self.control.admin().add_device(device).await?;
        Ok(())
    }

    /// The public keys of all devices.
    pub async fn keys(&self) -> Result<Vec<Vec<u8>>> {
        let request = Request::new(v1::ListDevicesRequest::default());
        let devices = self.control.admin().list_devices(request).await?;
        let devices = devices.into_inner().devices;
        Ok(devices.into_iter().map(|d| d.public_key).collect())
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
        self.enrolling.abort();
    }
}

fn free_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn bind(control: &Control, address: SocketAddr) -> Result<portcullis_portal::Portal> {
    let name = PortalName::parse(NAME)?;
    let tls = control.server_config_for_portal(&[address.ip()], Some(&name))?;
    let passkeys = control.passkeys(name, &[address.port()])?;
    let sso = control.sso(PortalName::parse(NAME)?, &[address.port()])?;
    let logins = control.logins();
    Ok(portcullis_portal::Portal::bind(
        &[address],
        tls,
        logins,
        Some(passkeys),
        sso,
    )?)
}

fn bind_public(control: &Control, address: SocketAddr) -> Result<portcullis_portal::Portal> {
    let name = PortalName::parse(NAME)?;
    let tls = control.server_config_for_portal(&[address.ip()], Some(&name))?;
    let passkeys = control.passkeys(name, &[address.port()])?;
    let sso = control.sso(PortalName::parse(NAME)?, &[address.port()])?;
    control.serve_enrolments_at(format!("https://{NAME}:{}/enrol", address.port()));
    let portal = portcullis_portal::Portal::bind_public(
        &[address],
        tls,
        control.enrolments().with_passkeys(passkeys.clone()),
        control.connects().with_sso(sso),
        Some(control.outside().with_passkeys(passkeys.clone())),
        Some(control.approvals(passkeys)),
    )?;
    control.serve_approvals_at(format!("https://{NAME}:{}/approve", address.port()));
    Ok(portal)
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
