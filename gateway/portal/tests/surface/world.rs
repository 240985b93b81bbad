//! A control service on either engine, and its three portals with everything switched on.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_client::KeyPair;
use portcullis_control::{Clock, Control, ControlConfig, PortalName, SsoConfig};
use portcullis_portal::{DeviceAddr, PublicAddr, app, backchannel_app, public_app};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use sqlx::{AnyConnection, Connection as _};
use tempfile::TempDir;

use crate::postgres;

pub(crate) const HOST: &str = "login.example.com";
pub(crate) const ORIGIN: &str = "https://login.example.com";
pub(crate) const PASSWORD: &str = "correct horse battery";
const START_MS: i64 = 1_800_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// Which of the portals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// Through the tunnel.
    Inside,
    /// Outside of it.
    Outside,
    /// For what providers of single sign-on tell.
    Provider,
}

/// Ada with her laptop at `office` and her key at `vault`, and accounts that cannot sign in from the laptop.
pub(crate) struct World {
    pub(crate) control: Control,
    /// Of Ada's device at the session-key location `vault`.
    pub(crate) key: KeyPair,
    laptop: IpAddr,
    now_ms: Arc<AtomicI64>,
    strangers: AtomicU32,
    inside: Router,
    outside: Router,
    provider: Router,
    database: AnyConnection,
    engine: Engine,
    _state: TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl World {
    pub(crate) async fn new(engine: Engine) -> Self {
        let state = tempfile::tempdir().unwrap();
        let url = match engine {
            Engine::Sqlite => format!("sqlite://{}/portcullis.db", state.path().display()),
            Engine::Postgres => tokio::task::spawn_blocking(|| postgres::server().database())
                .await
                .unwrap(),
        };
        let secret = state.path().join("secret");
        std::fs::write(&secret, "secret\n").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let config = ControlConfig {
            database: url.clone(),
            state_dir: state.path().join("state"),
            sso: vec![SsoConfig {
                title: None,
                name: "acme".into(),
                preset: Default::default(),
                // Nobody is there.
                issuer: Some("http://127.0.0.1:9".into()),
                client_id: "portal".into(),
                client_secret_file: secret,
                levels: None,
                groups_claim: None,
                groups_lifetime: None,
                max_age: None,
            }],
            ..ControlConfig::default()
        };
        let now_ms = Arc::new(AtomicI64::new(START_MS));
        let clock = Clock::stepped(now_ms.clone());
        let control = Control::open_with_clock(config, clock).await.unwrap();
        control.serve_enrolments_at(format!("{ORIGIN}/enrol"));
        let name = || PortalName::parse(HOST).unwrap();
        let passkeys = control.passkeys(name(), &[443]).unwrap();
        let sso = || control.sso(name(), &[443]).unwrap().unwrap();
        let outside = control.outside().with_passkeys(passkeys.clone());
        let enrolments = control.enrolments().with_passkeys(passkeys.clone());
        let approvals = control.approvals(passkeys.clone());
        control.serve_approvals_at(format!("{ORIGIN}/approve"));
        sqlx::any::install_default_drivers();
        let mut world = Self {
            inside: app(control.logins(), Some(passkeys), Some(sso())),
            outside: public_app(
                enrolments,
                control.connects().with_sso(Some(sso())),
                Some(outside),
                Some(approvals),
            ),
            provider: backchannel_app(sso()),
            database: AnyConnection::connect(&url).await.unwrap(),
            key: KeyPair::generate().unwrap(),
            laptop: Ipv4Addr::UNSPECIFIED.into(),
            strangers: AtomicU32::new(1),
            now_ms,
            control,
            engine,
            _state: state,
        };
        world.people().await;
        world
    }

    async fn people(&mut self) {
        for (name, pool, mode) in [
            ("office", "10.77.0.0/24", ""),
            ("vault", "10.88.0.0/24", "session-key"),
        ] {
            let location = Some(v1::Location {
                name: name.into(),
                pools: vec![pool.into()],
                endpoint: "vpn.example.org:51820".into(),
                session_lifetime_ms: 3_600_000,
                mode: mode.into(),
                ..Default::default()
            });
            let location = tonic::Request::new(v1::AddLocationRequest {
                location,
                ..Default::default()
            });
            self.control.admin().add_location(location).await.unwrap();
            let gateway = format!("gateway-{name}");
            self.control.gateway_token(&gateway, name).await.unwrap();
        }
        sqlx::query("UPDATE gateways SET public_key = $1")
            .bind(STANDARD.encode([5; 32]))
            .execute(&mut self.database)
            .await
            .unwrap();
        for name in ["ada", "bob", "carol", "dave"] {
            let invite = name == "dave";
            let password = if invite { "" } else { PASSWORD };
            let user = v1::AddUserRequest {
                name: name.into(),
                password: password.into(),
                invite,
                ..Default::default()
            };
            let admin = self.control.admin();
            admin.add_user(tonic::Request::new(user)).await.unwrap();
        }
        let own = *self.key.public().as_bytes();
        self.laptop = self.device("laptop", "ada", "office", [7; 32]).await;
        self.device("phone", "ada", "office", [8; 32]).await;
        self.device("carols", "carol", "office", [9; 32]).await;
        self.device("key", "ada", "vault", own).await;
        let disabled = v1::SetUserDisabledRequest {
            name: "carol".into(),
            disabled: true,
        };
        let admin = self.control.admin();
        admin
            .set_user_disabled(tonic::Request::new(disabled))
            .await
            .unwrap();
    }

    async fn device(&self, name: &str, user: &str, location: &str, key: [u8; 32]) -> IpAddr {
        let device = tonic::Request::new(v1::AddDeviceRequest {
            name: name.into(),
            user: user.into(),
            location: location.into(),
            public_key: key.to_vec(),
            ..Default::default()
        });
        let added = self.control.admin().add_device(device).await.unwrap();
        let device = added.into_inner().device.unwrap();
        device.addresses[0].parse().unwrap()
    }

    /// A fresh session of one of Ada's devices at `office`.
    pub(crate) async fn sign_in(&self, device: &str) {
        let session = tonic::Request::new(v1::AddSessionRequest {
            device: device.into(),
            ..Default::default()
        });
        self.control.admin().add_session(session).await.unwrap();
    }

    /// Past every delay after wrong attempts.
    pub(crate) fn a_day_later(&self) {
        self.now_ms.fetch_add(86_400_000, Ordering::SeqCst);
    }

    pub(crate) fn router(&self, side: Side) -> &Router {
        match side {
            Side::Inside => &self.inside,
            Side::Outside => &self.outside,
            Side::Provider => &self.provider,
        }
    }

    /// Inside as the laptop. Outside each time as somebody else, so that nobody is over his share.
    pub(crate) async fn send(&self, side: Side, request: Request<Body>) -> Answer {
        let stranger = 0xc633_0000 + self.strangers.fetch_add(1, Ordering::Relaxed);
        self.send_from(stranger.into(), side, request).await
    }

    /// Outside, as a stranger with this address.
    pub(crate) async fn send_from(
        &self,
        stranger: Ipv4Addr,
        side: Side,
        request: Request<Body>,
    ) -> Answer {
        let portal = self.router(side).clone();
        let portal = match side {
            Side::Inside => portal.layer(Extension(DeviceAddr(self.laptop))),
            _ => portal.layer(Extension(PublicAddr(stranger.into()))),
        };
        let response = tower::ServiceExt::oneshot(portal, request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// A number that is another one after anything is written, whatever it is.
    pub(crate) async fn written(&mut self) -> i64 {
        let query = match self.engine {
            Engine::Sqlite => "PRAGMA data_version",
            Engine::Postgres => "SELECT COUNT(*) FROM audit",
        };
        let number = sqlx::query_scalar(query).fetch_one(&mut self.database);
        number.await.unwrap()
    }
}
