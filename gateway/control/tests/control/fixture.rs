//! A control service on either engine, with a clock that only moves when told to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use portcullis_control::{
    Clock, Control, ControlConfig, LoginError, LoginId, LoginStep, SessionView,
};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use tempfile::TempDir;
use tonic::{Request, Status};

use crate::postgres;

pub(crate) const PASSWORD: &str = "correct horse battery";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// Runs a test on both engines: `on_both!(name, …)`, each an `async fn(Engine)`.
#[macro_export]
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() { super::$name($crate::fixture::Engine::Sqlite).await; }
            )*
        }
        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() { super::$name($crate::fixture::Engine::Postgres).await; }
            )*
        }
    };
}

pub(crate) struct World {
    pub(crate) control: Control,
    pub(crate) config: ControlConfig,
    pub(crate) now: Arc<AtomicI64>,
    pub(crate) dir: TempDir,
}

#[derive(Clone)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) totp: String,
}

impl World {
    pub(crate) async fn new(engine: Engine) -> Self {
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
            admin_socket: dir.path().join("run/admin.sock"),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            ..ControlConfig::default()
        };
        let now = Arc::new(AtomicI64::new(start_ms()));
        let control = open(&config, &now).await;
        Self {
            control,
            config,
            now,
            dir,
        }
    }

    /// As after a restart of the process.
    pub(crate) async fn reopen(&mut self) {
        self.control.close().await;
        self.control = open(&self.config, &self.now).await;
    }

    pub(crate) fn advance_s(&self, seconds: i64) {
        self.now.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.now.load(Ordering::SeqCst)
    }

    pub(crate) async fn location(
        &self,
        name: &str,
        pools: &[&str],
    ) -> Result<v1::Location, Status> {
        let location = v1::Location {
            name: name.into(),
            pools: pools.iter().map(|pool| (*pool).into()).collect(),
            endpoint: "vpn.example.org:51820".into(),
            session_lifetime_ms: 3_600_000,
            idle_timeout_ms: 600_000,
            ..Default::default()
        };
        let request = v1::AddLocationRequest {
            location: Some(location),
            ..Default::default()
        };
        Ok(self
            .control
            .admin()
            .add_location(Request::new(request))
            .await?
            .into_inner())
    }

    pub(crate) async fn user(&self, name: &str) -> Account {
        let request = v1::AddUserRequest {
            name: name.into(),
            groups: vec!["staff".into()],
            password: PASSWORD.into(),
            ..Default::default()
        };
        let added = self
            .control
            .admin()
            .add_user(Request::new(request))
            .await
            .unwrap();
        Account {
            name: name.into(),
            totp: added.into_inner().totp_secret,
        }
    }

    pub(crate) async fn device(&self, name: &str, user: &str) -> v1::AddDeviceResponse {
        self.try_device(name, user, "", &key(name)).await.unwrap()
    }

    pub(crate) async fn try_device(
        &self,
        name: &str,
        user: &str,
        location: &str,
        key: &[u8],
    ) -> Result<v1::AddDeviceResponse, Status> {
        let request = v1::AddDeviceRequest {
            name: name.into(),
            user: user.into(),
            location: location.into(),
            public_key: key.to_vec(),
            preshared_key: true,
            for_ms: 0,
        };
        Ok(self
            .control
            .admin()
            .add_device(Request::new(request))
            .await?
            .into_inner())
    }

    /// One location, one user, one device: what most tests start from.
    pub(crate) async fn with_alice(engine: Engine) -> (Self, Account, IpAddr) {
        let world = Self::new(engine).await;
        world
            .location("office", &["10.77.0.0/24", "fd77::/64"])
            .await
            .unwrap();
        let alice = world.user("alice").await;
        let device = world.device("laptop", "alice").await.device.unwrap();
        let address = device.addresses[0].parse().unwrap();
        (world, alice, address)
    }

    pub(crate) async fn begin(
        &self,
        from: IpAddr,
        user: &str,
        password: &str,
    ) -> Result<LoginId, LoginError> {
        let logins = self.control.logins();
        match logins.begin(from, user, password.into()).await? {
            LoginStep::Wants { attempt, .. } => Ok(attempt),
            step @ LoginStep::Done(_) => panic!("{step:?}"),
        }
    }

    pub(crate) async fn log_in(
        &self,
        from: IpAddr,
        account: &Account,
    ) -> Result<SessionView, LoginError> {
        let attempt = self.begin(from, &account.name, PASSWORD).await?;
        let code = account.code(self.now_ms());
        let logins = self.control.logins();
        let step = logins.totp(from, &attempt, &code).await?;
        Ok(step.session().expect("two factors are enough here"))
    }

    pub(crate) async fn grant(&self, device: &str) -> v1::SessionInfo {
        let request = v1::AddSessionRequest {
            device: device.into(),
            ..Default::default()
        };
        self.control
            .admin()
            .add_session(Request::new(request))
            .await
            .unwrap()
            .into_inner()
            .session
            .unwrap()
    }

    pub(crate) async fn sessions(&self) -> Vec<v1::SessionInfo> {
        let request = v1::ListSessionsRequest {
            all: true,
            ..Default::default()
        };
        self.control
            .admin()
            .list_sessions(Request::new(request))
            .await
            .unwrap()
            .into_inner()
            .sessions
    }

    pub(crate) async fn revoke(
        &self,
        target: v1::revoke_sessions_request::Target,
        wait_ms: u64,
    ) -> v1::RevocationStatus {
        let request = v1::RevokeSessionsRequest {
            target: Some(target),
            wait_ms,
        };
        self.control
            .admin()
            .revoke_sessions(Request::new(request))
            .await
            .unwrap()
            .into_inner()
    }

    pub(crate) async fn audit(&self) -> Vec<v1::AuditRecord> {
        let request = v1::ListAuditRequest { limit: 0 };
        self.control
            .admin()
            .list_audit(Request::new(request))
            .await
            .unwrap()
            .into_inner()
            .records
    }
}

impl Account {
    /// The code as oathtool, which shares no line with us, computes it.
    pub(crate) fn code(&self, at_ms: i64) -> String {
        let output = Command::new("oathtool")
            .args([
                "--totp",
                "--base32",
                "--now",
                &format!("@{}", at_ms / 1000),
                &self.totp,
            ])
            .output()
            .expect("oathtool is missing: apt-get install oathtool");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().into()
    }

    /// A code that is wrong at this time.
    pub(crate) fn wrong_code(&self, at_ms: i64) -> String {
        let right = [-30_000, 0, 30_000].map(|offset| self.code(at_ms + offset));
        let wrong = ["000000", "111111", "222222", "333333"];
        wrong
            .into_iter()
            .find(|code| !right.iter().any(|right| right == code))
            .unwrap()
            .into()
    }
}

/// Now, because certificates are checked by the real clock, but at the start of a time step.
fn start_ms() -> i64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    i64::try_from(now.as_secs() / 30 * 30_000).unwrap()
}

/// A public key for a name, the same each time.
pub(crate) fn key(name: &str) -> [u8; 32] {
    let mut key = [9; 32];
    for (slot, byte) in key.iter_mut().skip(1).zip(name.bytes()) {
        *slot = byte;
    }
    key
}

pub(crate) async fn open(config: &ControlConfig, now: &Arc<AtomicI64>) -> Control {
    Control::open_with_clock(config.clone(), Clock::stepped(now.clone()))
        .await
        .unwrap()
}
