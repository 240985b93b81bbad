//! Why something was not done to a device, a session or a factor.

use std::time::Duration;

use portcullis_proto::v1::Level;

use super::last::{NoWay, last_way};
use crate::domain::Invalid;
use crate::error::OperationError;
use crate::fresh::{NotFresh, needed_by, often};
use crate::login::LoginError;
use crate::password::PasswordError;
use crate::store::StoreError;

/// Why what a user asked for was not done. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum SelfServiceError {
    /// Devices and sessions are seen and changed by who is signed in.
    #[error("this device has no session: sign in first")]
    NoSession,
    /// The session is too old, or below the account's highest level.
    #[error("sign in again{}: this change needs a fresh login", needed_by(.needed))]
    Stale { needed: Level },
    /// There is none, or it is someone else's.
    #[error("there is no such device")]
    UnknownDevice,
    /// There is none, it is over, or it is someone else's.
    #[error("there is no such session")]
    UnknownSession,
    #[error("you have {0} devices already: remove one first")]
    TooMany(u32),
    /// No key, not a usable one, or in use; whose it is then is nobody's business.
    #[error("this public key cannot be used: make a new key pair")]
    Key,
    /// The gateway tells its key when it connects for the first time.
    #[error("no gateway of this location has connected yet: try again later")]
    NoGateway,
    /// The account's share of changes is used up for now.
    #[error("{}", often(.retry_after))]
    Often { retry_after: Duration },
    /// The password may not be one; says why.
    #[error(transparent)]
    Password(PasswordError),
    /// None is being set up, or not in this session, or for longer than it may take.
    #[error("no authenticator is being set up, or its time is over: begin again")]
    NoSetup,
    /// Not a code of the new authenticator, now.
    #[error("the code is wrong or too old")]
    Code,
    /// Unknown, too old, used before, or for another user or location.
    #[error("this invitation is unknown, too old, or was used already: ask for another")]
    Invitation,
    #[error("no account at this provider is linked")]
    UnknownProvider,
    /// Without it nobody signs in any more at this location.
    #[error("{}", last_way(.location))]
    LastWay { location: String },
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Login(#[from] LoginError),
}

impl From<NotFresh> for SelfServiceError {
    fn from(error: NotFresh) -> Self {
        match error {
            NotFresh::Often { retry_after } => Self::Often { retry_after },
            NotFresh::NoSession => Self::NoSession,
            NotFresh::Stale { needed } => Self::Stale { needed },
            NotFresh::Login(error) => Self::Login(error),
        }
    }
}

impl From<NoWay> for SelfServiceError {
    fn from(error: NoWay) -> Self {
        match error {
            NoWay::Last { location } => Self::LastWay { location },
            NoWay::Store(error) => error.into(),
        }
    }
}

impl From<OperationError> for SelfServiceError {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::Invalid(invalid) => Self::Invalid(invalid),
            OperationError::Password(
                error @ (PasswordError::Short
                | PasswordError::Long
                | PasswordError::Common
                | PasswordError::Name),
            ) => Self::Password(error),
            error => Self::Login(error.into()),
        }
    }
}

impl From<StoreError> for SelfServiceError {
    fn from(error: StoreError) -> Self {
        Self::Login(error.into())
    }
}
