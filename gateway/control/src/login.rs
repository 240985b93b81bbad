//! Logging in: password, then code, from the device's own tunnel address.
//!
//! Cryptokey routing makes the source address inside the tunnel proof of the device's key. The
//! device says whose account this is; the name typed must agree, and only that user's counters
//! can ever be touched from here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_proto::v1::Level;
use serde_json::json;

use crate::core::Core;
use crate::domain::SessionState;
use crate::error::OperationError;
use crate::ops::sessions::{Grant, grant};
use crate::ops::users::totp_field;
use crate::secrets::{Secret, Token, TokenHash};
use crate::store::attempts::{self, Attempt, Counted, NewAttempt, Reservation};
use crate::store::sessions::{Ending, Selection, SessionRow};
use crate::store::{self, Entry, devices, locations, sessions, to_u64, users};
use crate::totp::Authenticator;

/// How long after the password the code may come.
const CODE_WITHIN_MS: i64 = 5 * 60 * 1000;
/// How long a login waits for its gateways, so that packets pass once it returns.
pub(crate) const GATEWAYS_WITHIN: Duration = Duration::from_secs(3);

/// Runs logins; cheap to clone.
#[derive(Clone, Debug)]
pub struct Logins(pub(crate) Arc<Core>);

/// Names a login whose password was right. Unguessable; the store keeps its hash.
#[derive(Clone)]
pub struct LoginId(String);

/// What a login needs next.
#[derive(Debug)]
pub enum LoginStep {
    /// A code of the user's authenticator.
    Totp {
        attempt: LoginId,
        expires_in: Duration,
    },
}

/// A session as its user sees it.
#[derive(Clone, Debug)]
pub struct SessionView {
    pub id: String,
    pub user: String,
    pub device: String,
    pub location: String,
    pub level: Level,
    pub authenticated_at_ms: i64,
    pub deadline_ms: i64,
    /// 0: none.
    pub idle_timeout_ms: i64,
}

/// A session that its user has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedOut {
    /// Some gateway has not acknowledged the end in time: until it does, or the deadline passes, it
    /// may let packets pass.
    pub pending: bool,
}

/// Why there is no login.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Wrong in some way that is not told: name, password, code, another user's device, disabled.
    #[error("login refused")]
    Refused,
    /// Too many wrong attempts. This one was not evaluated.
    #[error("too many wrong attempts: try again in {} s", .retry_after.as_secs().max(1))]
    Delayed { retry_after: Duration },
    /// The source address is not one of a known device.
    #[error("this address belongs to no device")]
    UnknownDevice,
    /// Unknown, too old, used up, or begun from another device.
    #[error("this login is unknown or over: begin again")]
    UnknownAttempt,
    /// For callers that insist on an acknowledgement; [`Logins::totp`] returns the session instead.
    #[error("the session is granted, but no gateway has acknowledged it yet")]
    GatewayPending,
    #[error("the login could not be processed: {0}")]
    Internal(#[from] OperationError),
}

impl LoginId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for LoginId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for LoginId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LoginId(…)")
    }
}

impl From<store::StoreError> for LoginError {
    fn from(error: store::StoreError) -> Self {
        Self::Internal(error.into())
    }
}

impl Logins {
    /// The first step. `from` is the source address of the connection, inside the tunnel.
    pub async fn begin(
        &self,
        from: IpAddr,
        username: &str,
        password: Secret,
    ) -> Result<LoginStep, LoginError> {
        let core = &self.0;
        let mut read = core.store.read().await?;
        let device = devices::find_by_address(read.sql(), &canonical(from)).await?;
        let user = users::find(read.sql(), username).await?;
        read.end().await?;
        let device = device.ok_or(LoginError::UnknownDevice)?;
        // A name, not an id; the device's own user; not disabled. Otherwise as slow as a real
        // comparison, with the same answer, and counted against the device alone.
        let user = user
            .filter(|user| user.name == username && user.id == device.user_id && !user.disabled);
        let Some(user) = user else {
            self.reserve(Counted::Device(&device.id)).await?;
            self.verify(&password, None).await?;
            return self
                .refuse(&device.id, &device.user, &device.name, "password")
                .await;
        };
        // A delayed device is delayed for every name: the delay tells nobody which one is right.
        if device.delayed_until_ms > core.now_ms() {
            self.reserve(Counted::Device(&device.id)).await?;
        }
        let delayed_until_ms = self.reserve(Counted::User(&user.id)).await?;
        if !self.verify(&password, Some(&user.password)).await? {
            return self
                .refuse(&device.id, &device.user, &device.name, "password")
                .await;
        }
        let token = Token::generate().map_err(OperationError::from)?;
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        attempts::give_back(write.sql(), &user.id, delayed_until_ms).await?;
        attempts::delete_expired(write.sql(), now_ms).await?;
        let id = token.hash();
        let attempt = NewAttempt {
            id: id.as_str(),
            user_id: &user.id,
            password: &user.password,
            device_id: &device.id,
            expires_ms: now_ms + CODE_WITHIN_MS,
        };
        if !attempts::insert(write.sql(), &attempt).await? {
            return Err(LoginError::Refused);
        }
        let actor = format!("user:{}", user.name);
        let subject = format!("device:{}", device.name);
        let detail = json!({ "step": "password" });
        write
            .audit(Entry {
                actor: &actor,
                action: "login.begin",
                subject: &subject,
                detail,
            })
            .await?;
        write.commit().await?;
        let expires_in = Duration::from_millis(to_u64(CODE_WITHIN_MS));
        Ok(LoginStep::Totp {
            attempt: LoginId(token.expose().to_owned()),
            expires_in,
        })
    }

    /// The second step: grants a session at level `mfa`, which replaces an earlier one of the
    /// device, and waits a few seconds for a gateway to acknowledge it. With no gateway connected,
    /// or none in time, the session is granted all the same, and packets pass as soon as a gateway
    /// has heard of it.
    pub async fn totp(
        &self,
        from: IpAddr,
        attempt: &LoginId,
        code: &str,
    ) -> Result<SessionView, LoginError> {
        let core = &self.0;
        let id = TokenHash::of(attempt.as_str());
        let address = canonical(from);
        let mut read = core.store.read().await?;
        let found = attempts::find(read.sql(), id.as_str(), &address, core.now_ms()).await?;
        read.end().await?;
        let attempt = found.ok_or(LoginError::UnknownAttempt)?;
        if attempt.disabled {
            return Err(LoginError::Refused);
        }
        self.reserve(Counted::User(&attempt.user_id)).await?;
        let field = totp_field(&attempt.user_id);
        let secret = core
            .vault
            .unseal(field, &attempt.totp_secret)
            .map_err(OperationError::from)?;
        let authenticator =
            Authenticator::new(&secret, &attempt.user).map_err(OperationError::from)?;
        let Some(step) = authenticator.step_of(code, core.now_ms()) else {
            return self.refuse_code(&attempt).await;
        };
        let Some((session, revision)) = self.accept(id.as_str(), &attempt, step).await? else {
            return self.refuse_code(&attempt).await;
        };
        self.until_acknowledged(&session, revision).await?;
        Ok(view(session))
    }

    /// The live session of the device with this address.
    pub async fn current(&self, from: IpAddr) -> Result<Option<SessionView>, LoginError> {
        let mut read = self.0.store.read().await?;
        let address = canonical(from);
        let session = sessions::find_live_by_address(read.sql(), &address, self.0.now_ms()).await?;
        read.end().await?;
        Ok(session.map(view))
    }

    /// Whether any device has this address.
    pub async fn knows(&self, from: IpAddr) -> Result<bool, LoginError> {
        let mut read = self.0.store.read().await?;
        let known = devices::is_address(read.sql(), &canonical(from)).await?;
        read.end().await?;
        Ok(known)
    }

    /// Ends the live session of the device with this address. `None` when it has none.
    pub async fn end(&self, from: IpAddr) -> Result<Option<LoggedOut>, LoginError> {
        if self.current(from).await?.is_none() {
            return Ok(None);
        }
        let core = &self.0;
        let mut write = core.store.change(core.now_ms()).await?;
        let (revision, now_ms) = (write.revision(), write.now_ms());
        let device = devices::find_by_address(write.sql(), &canonical(from)).await?;
        let device = device.ok_or(LoginError::UnknownDevice)?;
        let actor = format!("user:{}", device.user);
        let selection = Selection::Device(device.id);
        let ending = Ending {
            state: SessionState::Revoked,
            by: &actor,
        };
        let ended = sessions::end(write.sql(), &selection, ending, revision, now_ms).await?;
        let subject = format!("device:{}", device.name);
        let detail = crate::ops::ended(&ended);
        write
            .audit(Entry {
                actor: &actor,
                action: "session.logout",
                subject: &subject,
                detail,
            })
            .await?;
        let committed = Instant::now();
        let revision = write.commit().await?;
        let gateways = core
            .acknowledged(&[device.location_id], revision, committed, GATEWAYS_WITHIN)
            .await?;
        let pending = gateways.iter().any(|gateway| !gateway.acknowledged);
        Ok((!ended.is_empty()).then_some(LoggedOut { pending }))
    }

    /// Counts an attempt before it is evaluated.
    pub(crate) async fn reserve(&self, counted: Counted<'_>) -> Result<i64, LoginError> {
        let core = &self.0;
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        match attempts::reserve(write.sql(), counted, now_ms).await? {
            Reservation::Granted { delayed_until_ms } => {
                write.commit().await?;
                Ok(delayed_until_ms)
            }
            Reservation::Delayed { until_ms, clamped } => {
                if clamped {
                    write.commit().await?;
                }
                let retry_after = Duration::from_millis(to_u64(until_ms.saturating_sub(now_ms)));
                Err(LoginError::Delayed { retry_after })
            }
        }
    }

    /// Spends the attempt and the code's time step and grants the session, all or nothing. `None`
    /// when another login spent one of them first.
    async fn accept(
        &self,
        id: &str,
        attempt: &Attempt,
        step: i64,
    ) -> Result<Option<(SessionRow, u64)>, LoginError> {
        let core = &self.0;
        let mut write = core.store.change(core.now_ms()).await?;
        if !attempts::complete(write.sql(), id, &attempt.user_id, step).await? {
            return Ok(None);
        }
        attempts::forgive_device(write.sql(), &attempt.device_id).await?;
        let Some(location) = locations::find(write.sql(), &attempt.location_id).await? else {
            return Ok(None);
        };
        let actor = format!("user:{}", attempt.user);
        let grant_of = Grant {
            user_id: &attempt.user_id,
            device_id: &attempt.device_id,
            device: &attempt.device,
            location_id: &attempt.location_id,
            level: Level::Mfa,
            lifetime_ms: location.session_lifetime_ms,
            idle_timeout_ms: location.idle_timeout_ms,
            actor: &actor,
        };
        let session = grant(&mut write, grant_of).await?;
        let Some(session) = sessions::find(write.sql(), &session).await? else {
            return Ok(None);
        };
        let revision = write.commit().await?;
        Ok(Some((session, revision)))
    }

    /// Waits for the connected gateways of the session's location; one that is not connected
    /// cannot be carrying this user's tunnel.
    pub(crate) async fn until_acknowledged(
        &self,
        session: &SessionRow,
        revision: u64,
    ) -> Result<(), LoginError> {
        let committed = Instant::now();
        let location = [session.location_id.clone()];
        let mut changes = self.0.fleet.changes();
        while let Some(left) = GATEWAYS_WITHIN.checked_sub(committed.elapsed()) {
            changes.mark_unchanged();
            let states = self
                .0
                .acknowledged(&location, revision, committed, Duration::ZERO)
                .await?;
            if states
                .iter()
                .all(|state| state.acknowledged || !state.connected || state.removing)
            {
                return Ok(());
            }
            let _ = tokio::time::timeout(left, changes.changed()).await;
        }
        tracing::warn!(
            session = session.id,
            "no acknowledgement of a new session in time"
        );
        Ok(())
    }

    async fn verify(&self, password: &Secret, stored: Option<&str>) -> Result<bool, LoginError> {
        let verified = self.0.passwords.verify(password, stored).await;
        Ok(verified.map_err(OperationError::from)?)
    }

    async fn refuse_code<T>(&self, attempt: &Attempt) -> Result<T, LoginError> {
        self.refuse(&attempt.device_id, &attempt.user, &attempt.device, "totp")
            .await
    }

    /// Counts a refusal for the audit, and refuses.
    pub(crate) async fn refuse<T>(
        &self,
        device_id: &str,
        user: &str,
        device: &str,
        step: &str,
    ) -> Result<T, LoginError> {
        let mut write = self.0.store.record(self.0.now_ms()).await?;
        let now_ms = write.now_ms();
        if let Some(refused) = attempts::refused(write.sql(), device_id, now_ms).await? {
            let actor = format!("user:{user}");
            let subject = format!("device:{device}");
            // Those since the last record, this one included; the step is this one's.
            let detail = json!({ "step": step, "refused": refused });
            write
                .audit(Entry {
                    actor: &actor,
                    action: "login.refuse",
                    subject: &subject,
                    detail,
                })
                .await?;
        }
        write.commit().await?;
        Err(LoginError::Refused)
    }
}

/// As the store writes addresses. A dual-stack socket shows IPv4 peers as mapped addresses.
pub(crate) fn canonical(from: IpAddr) -> String {
    from.to_canonical().to_string()
}

pub(crate) fn view(session: SessionRow) -> SessionView {
    SessionView {
        id: session.id,
        user: session.user,
        device: session.device,
        location: session.location,
        level: session.level,
        authenticated_at_ms: session.authenticated_at_ms,
        deadline_ms: session.deadline_ms,
        idle_timeout_ms: session.idle_timeout_ms,
    }
}
