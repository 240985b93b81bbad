//! Logging in, from the device's own tunnel address: one factor after the other, until the location
//! has what it wants.
//!
//! Cryptokey routing makes the source address inside the tunnel proof of the device's key. The
//! device says whose account this is; the name typed must agree, and only that user's counters
//! can ever be touched from here.
//!
//! Each login has a record of its own in the store, with what it has proven so far: two at once do
//! not know of each other, and a restart loses none. [`machine`] says what is to come.

mod begin;
mod browser;
mod count;
mod machine;
mod phone;
mod prove;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_proto::v1::Level;

use crate::core::Core;
use crate::domain::{FactorSet, Mode, SessionState};
use crate::error::OperationError;
use crate::secrets::Token;
use crate::store::sessions::{Ending, Selection, SessionRow};
use crate::store::{self, Entry, devices, sessions};

pub use browser::Browser;

pub(crate) use begin::{Claimed, WITHIN_MS, at_a_gate, renews_live};
pub(crate) use machine::{Next, Proven, after_sso, next, proven_by_sso, with_passkey};
pub(crate) use prove::{Advance, Granting, Keyed, Life, left, spend_code, totp_step};

/// How long a login, or the end of a session, waits for its gateways, so that it holds once it returns.
pub(crate) const GATEWAYS_WITHIN: Duration = Duration::from_secs(3);

/// Runs logins; cheap to clone.
#[derive(Clone, Debug)]
pub struct Logins(pub(crate) Arc<Core>);

/// Names a login in progress. Unguessable; the store keeps its hash.
#[derive(Clone)]
pub struct LoginId(String);

/// How a login was begun, and has to go on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Begun {
    /// From the tunnel address of its device.
    InTunnel(IpAddr),
    /// Before there is a tunnel, with proof of the device's key (see `crate::connect`).
    WithProof,
}

/// Where a login is.
#[derive(Debug)]
pub enum LoginStep {
    /// It wants one more factor: any of these.
    Wants {
        attempt: LoginId,
        factors: FactorSet,
        expires_in: Duration,
    },
    /// It has opened a session.
    Done(SessionView),
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
    /// What its user has to be told, for a week.
    pub reset: Option<ResetNotice>,
}

/// An administrator voided factors of the account, as its user is told.
#[derive(Clone, Debug)]
pub struct ResetNotice {
    pub at_ms: i64,
    /// In the administrator's words.
    pub reason: String,
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
    /// Sessions of this location begin before there is a tunnel to log in through.
    #[error("sessions of this location begin without its tunnel: connect anew")]
    SessionKey,
    /// Unknown, too old, used up, or begun from another device.
    #[error("this login is unknown or over: begin again")]
    UnknownAttempt,
    /// The user's phone has not approved it: it was denied, or the number was wrong.
    #[error("the sign-in was not approved on the phone")]
    NotApproved,
    /// Nobody approved it in time, or nobody was asked.
    #[error("no phone has approved this in time: begin again")]
    ApprovalOver,
    /// The session's peer could not be brought up: there is no session.
    #[error("no gateway of the location holds the session, so there is none: try again later")]
    NoGateway,
    /// The session that was to be renewed has ended, or never was.
    #[error("there is no session to renew: connect anew")]
    NoSession,
    /// The session goes on as it was.
    #[error(
        "no gateway of the location has acknowledged it, so the session was not renewed: try again later"
    )]
    NotRenewed,
    /// For callers that insist on an acknowledgement; logins return the session instead.
    #[error("the session is granted, but no gateway has acknowledged it yet")]
    GatewayPending,
    #[error("the login could not be processed: {0}")]
    Internal(#[from] OperationError),
}

impl Begun {
    /// Of locations whose logins are begun in this way.
    pub(crate) fn mode(self) -> Mode {
        match self {
            Self::InTunnel(_) => Mode::Gate,
            Self::WithProof => Mode::SessionKey,
        }
    }

    /// That its device has to have, as the store writes addresses.
    pub(crate) fn address(self) -> Option<String> {
        match self {
            Self::InTunnel(from) => Some(canonical(from)),
            Self::WithProof => None,
        }
    }
}

impl LoginStep {
    /// The session, if it has opened one.
    pub fn session(self) -> Option<SessionView> {
        match self {
            Self::Done(session) => Some(session),
            Self::Wants { .. } => None,
        }
    }
}

impl LoginId {
    fn new(token: &Token) -> Self {
        Self(token.expose().to_owned())
    }

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
        let mut read = self.0.store.read().await?;
        let (address, now_ms) = (canonical(from), self.0.now_ms());
        let session = sessions::find_live_by_address(read.sql(), &address, now_ms).await?;
        read.end().await?;
        match session {
            Some(session) => self.log_out(session).await,
            None => Ok(None),
        }
    }

    /// Ends a session in the name of its user. `None` when it is over already.
    pub(crate) async fn log_out(
        &self,
        session: SessionRow,
    ) -> Result<Option<LoggedOut>, LoginError> {
        let core = &self.0;
        let mut write = core.store.change(core.now_ms()).await?;
        let (revision, now_ms) = (write.revision(), write.now_ms());
        let actor = format!("user:{}", session.user);
        let ending = Ending {
            state: SessionState::Revoked,
            by: &actor,
        };
        let selection = Selection::Session(session.id);
        let ended = sessions::end(write.sql(), &selection, ending, revision, now_ms).await?;
        if ended.is_empty() {
            return Ok(None);
        }
        write
            .audit(Entry {
                actor: &actor,
                action: "session.logout",
                subject: &format!("device:{}", session.device),
                detail: crate::ops::ended(&ended),
            })
            .await?;
        let committed = Instant::now();
        let revision = write.commit().await?;
        let pending = pending(core, &[session.location_id], revision, committed).await?;
        Ok(Some(LoggedOut { pending }))
    }
}

/// Whether some gateway of these locations has still to acknowledge a revision after a few seconds.
pub(crate) async fn pending(
    core: &Core,
    locations: &[String],
    revision: u64,
    committed: Instant,
) -> Result<bool, LoginError> {
    let gateways = core
        .acknowledged(locations, revision, committed, GATEWAYS_WITHIN)
        .await?;
    Ok(gateways.iter().any(|gateway| !gateway.acknowledged))
}

/// As the store writes addresses. A dual-stack socket shows IPv4 peers as mapped addresses.
pub(crate) fn canonical(from: IpAddr) -> String {
    from.to_canonical().to_string()
}

pub(crate) fn view(session: SessionRow) -> SessionView {
    let reset = ResetNotice {
        at_ms: session.told_reset_ms,
        reason: session.reset_reason,
    };
    SessionView {
        reset: (reset.at_ms != 0).then_some(reset),
        id: session.id,
        user: session.user,
        device: session.device_called,
        location: session.location,
        level: session.level,
        authenticated_at_ms: session.authenticated_at_ms,
        deadline_ms: session.deadline_ms,
        idle_timeout_ms: session.idle_timeout_ms,
    }
}
