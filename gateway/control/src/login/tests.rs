//! The seam for passkeys, which no one outside of this crate can reach: what begins without a password
//! and what a verified one is worth.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use portcullis_proto::v1::admin_server::Admin as _;
use portcullis_proto::v1::{self, Level};
use tempfile::TempDir;
use tonic::Request;

use super::machine::Proof;
use super::{LoginError, LoginId, LoginStep, Logins};
use crate::{Clock, Control, ControlConfig};

const PASSWORD: &str = "correct horse battery";
const VERIFIED: Proof = Proof::Passkey {
    user_verified: true,
};
const HELD: Proof = Proof::Passkey {
    user_verified: false,
};

/// Ada's laptop and phone at a location.
struct Fixture {
    control: Control,
    config: ControlConfig,
    now_ms: Arc<AtomicI64>,
    laptop: IpAddr,
    phone: IpAddr,
    _state: TempDir,
}

impl Fixture {
    async fn new(factors: &[&str], require: Level) -> Self {
        let state = tempfile::tempdir().unwrap();
        let config = ControlConfig {
            database: format!("sqlite://{}/portcullis.db", state.path().display()),
            state_dir: state.path().join("state"),
            ..ControlConfig::default()
        };
        let now_ms = Arc::new(AtomicI64::new(1_800_000_000_000));
        let control = open(&config, &now_ms).await;
        let location = v1::Location {
            name: "office".into(),
            pools: vec!["10.77.0.0/24".into()],
            endpoint: "vpn:1".into(),
            require: require.into(),
            factors: factors.iter().map(|name| (*name).into()).collect(),
            ..Default::default()
        };
        let request = v1::AddLocationRequest {
            location: Some(location),
            ..Default::default()
        };
        let admin = control.admin();
        admin.add_location(Request::new(request)).await.unwrap();
        let user = v1::AddUserRequest {
            name: "ada".into(),
            password: PASSWORD.into(),
            ..Default::default()
        };
        admin.add_user(Request::new(user)).await.unwrap();
        let add = async |name: &str, key: u8| -> IpAddr {
            let device = v1::AddDeviceRequest {
                name: name.into(),
                user: "ada".into(),
                public_key: vec![key; 32],
                ..Default::default()
            };
            let added = admin.add_device(Request::new(device)).await.unwrap();
            let device = added.into_inner().device.unwrap();
            device.addresses[0].parse().unwrap()
        };
        let (laptop, phone) = (add("laptop", 7).await, add("phone", 9).await);
        Self {
            control,
            config,
            now_ms,
            laptop,
            phone,
            _state: state,
        }
    }

    fn logins(&self) -> Logins {
        self.control.logins()
    }

    async fn reopen(&mut self) {
        self.control.close().await;
        self.control = open(&self.config, &self.now_ms).await;
    }

    fn advance_s(&self, seconds: i64) {
        self.now_ms.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    async fn begin(&self) -> LoginId {
        id(self.logins().begin_passkey(self.laptop).await.unwrap())
    }

    /// As the finish of a ceremony does it.
    async fn prove(
        &self,
        from: IpAddr,
        login: &LoginId,
        proof: Proof,
    ) -> Result<LoginStep, LoginError> {
        let logins = self.logins();
        let open = logins.open(from, login).await?;
        logins.prove(&open, proof).await
    }
}

async fn open(config: &ControlConfig, now_ms: &Arc<AtomicI64>) -> Control {
    let clock = Clock::stepped(now_ms.clone());
    Control::open_with_clock(config.clone(), clock)
        .await
        .unwrap()
}

fn id(step: LoginStep) -> LoginId {
    match step {
        LoginStep::Wants { attempt, .. } => attempt,
        LoginStep::Done(_) => panic!("{step:?}"),
    }
}

#[tokio::test]
async fn a_verified_passkey_alone_is_phishing_resistant_across_a_restart() {
    let mut fixture = Fixture::new(&["passkey"], Level::PhishingResistant).await;
    let login = fixture.begin().await;
    let other = fixture.begin().await;
    fixture.reopen().await;
    let done = fixture.prove(fixture.laptop, &login, VERIFIED).await;
    let session = done.unwrap().session().unwrap();
    assert_eq!(session.level, Level::PhishingResistant);
    // Spent; the other one, begun at the same time, is not.
    let again = fixture.prove(fixture.laptop, &login, VERIFIED).await;
    assert!(matches!(again, Err(LoginError::UnknownAttempt)));
    let done = fixture.prove(fixture.laptop, &other, VERIFIED).await;
    assert!(done.unwrap().session().is_some());
}

#[tokio::test]
async fn a_proof_too_late_or_for_another_device_is_refused() {
    let fixture = Fixture::new(&["passkey"], Level::PhishingResistant).await;
    let login = fixture.begin().await;
    let elsewhere = fixture.prove(fixture.phone, &login, VERIFIED).await;
    assert!(matches!(elsewhere, Err(LoginError::UnknownAttempt)));
    fixture.advance_s(299);
    let logins = fixture.logins();
    let open = logins.open(fixture.laptop, &login).await.unwrap();
    // Looked up in time, proven too late.
    fixture.advance_s(1);
    let late = logins.prove(&open, VERIFIED).await;
    assert!(matches!(late, Err(LoginError::Refused)), "{late:?}");
    let late = fixture.prove(fixture.laptop, &login, VERIFIED).await;
    assert!(matches!(late, Err(LoginError::UnknownAttempt)));
    assert!(logins.current(fixture.laptop).await.unwrap().is_none());
}

#[tokio::test]
async fn without_user_verification_a_passkey_is_one_factor() {
    let strict = Fixture::new(&["password", "passkey"], Level::PhishingResistant).await;
    let login = strict.begin().await;
    let held = strict.prove(strict.laptop, &login, HELD).await;
    assert!(matches!(held, Err(LoginError::Refused)), "{held:?}");

    let fixture = Fixture::new(&["password", "passkey"], Level::Mfa).await;
    let login = fixture.begin().await;
    let step = fixture.prove(fixture.laptop, &login, HELD).await.unwrap();
    let LoginStep::Wants { factors, .. } = step else {
        panic!("{step:?}")
    };
    assert_eq!(factors.names(), ["password", "passkey"]);
    let twice = fixture.prove(fixture.laptop, &login, HELD).await;
    assert!(matches!(twice, Err(LoginError::Refused)));
    let logins = fixture.logins();
    let wrong = logins.password(fixture.laptop, &login, "wrong password".into());
    assert!(matches!(wrong.await, Err(LoginError::Refused)));
    let right = logins.password(fixture.laptop, &login, PASSWORD.into());
    let session = right.await.unwrap().session().unwrap();
    assert_eq!(session.level, Level::Mfa);
}

#[tokio::test]
async fn where_passkeys_are_not_allowed_none_begins_and_none_counts() {
    let fixture = Fixture::new(&["password", "totp"], Level::Mfa).await;
    let begun = fixture.logins().begin_passkey(fixture.laptop).await;
    assert!(matches!(begun, Err(LoginError::Refused)));
    let begun = fixture.logins();
    let begun = begun.begin(fixture.laptop, "ada", PASSWORD.into()).await;
    let login = id(begun.unwrap());
    let refused = fixture.prove(fixture.laptop, &login, VERIFIED).await;
    assert!(matches!(refused, Err(LoginError::Refused)));
}

#[tokio::test]
async fn a_code_is_not_looked_at_before_something_else_is_proven() {
    let fixture = Fixture::new(&[], Level::Mfa).await;
    let login = fixture.begin().await;
    // Whichever code: as refused, and as counted, as a wrong one.
    for code in ["000000", "111111", "222222", "333333", "444444"] {
        let refused = fixture.logins().totp(fixture.laptop, &login, code).await;
        assert!(matches!(refused, Err(LoginError::Refused)));
    }
    let delayed = fixture.prove(fixture.laptop, &login, VERIFIED).await;
    assert!(matches!(delayed, Err(LoginError::Delayed { .. })));
}

#[tokio::test]
async fn a_device_fills_the_store_with_no_logins() {
    let fixture = Fixture::new(&[], Level::Mfa).await;
    for _ in 0..16 {
        fixture.begin().await;
    }
    let more = fixture.logins().begin_passkey(fixture.laptop).await;
    assert!(matches!(more, Err(LoginError::Delayed { .. })));
    // Other devices, and passwords, are not held up by it.
    fixture.logins().begin_passkey(fixture.phone).await.unwrap();
    let logins = fixture.logins();
    let begun = logins.begin(fixture.laptop, "ada", PASSWORD.into()).await;
    begun.unwrap();
    fixture.advance_s(300);
    fixture.begin().await;
    let stranger = "10.77.0.99".parse().unwrap();
    let unknown = fixture.logins().begin_passkey(stranger).await;
    assert!(matches!(unknown, Err(LoginError::UnknownDevice)));
}
