//! Why a passkey was not registered, changed or accepted.

use std::time::Duration;

use portcullis_proto::v1::Level;
use webauthn_rs::prelude::WebauthnError;

use crate::domain::Invalid;
use crate::error::OperationError;
use crate::fresh::{NotFresh, needed_by, often};
use crate::login::LoginError;
use crate::self_service::last::{NoWay, last_way};
use crate::store::StoreError;

/// Why something about passkeys was not done. Nothing was changed then, but a ceremony that was
/// presented is spent.
#[derive(Debug, thiserror::Error)]
pub enum PasskeyError {
    /// The device's user has none that could be used.
    #[error("no passkey is registered for the user of this device")]
    NoPasskey,
    /// Passkeys are seen and changed by who is signed in.
    #[error("this device has no session: sign in first")]
    NoSession,
    /// The session is too old, or below the account's highest level.
    #[error("sign in again{}: a change of passkeys needs a fresh login", needed_by(.needed))]
    Stale { needed: Level },
    /// Unknown, too old, used before, or begun from another device.
    #[error("this request is unknown or over: begin again")]
    UnknownCeremony,
    /// The authenticator did not ask for PIN, fingerprint or face.
    #[error("the passkey did not verify you: it has to ask for a PIN, a fingerprint or your face")]
    NotVerified,
    /// What the browser sent does not prove the passkey, in some way that is not told.
    #[error("the passkey was not accepted")]
    Refused,
    /// Its counter went backwards.
    #[error(
        "this passkey may have been copied and is blocked: sign in another way, remove it, and tell your administrator"
    )]
    Copied,
    #[error("this passkey is registered already")]
    Taken,
    /// Where only the first one can be added.
    #[error("there is a passkey already: sign in with it to add another")]
    NotFirst,
    #[error("there are {0} passkeys already: remove one first")]
    TooMany(usize),
    #[error("there is no such passkey")]
    UnknownPasskey,
    /// This device has begun many and finished none.
    #[error("too many requests at once: try again in {} s", .retry_after.as_secs().max(1))]
    Busy { retry_after: Duration },
    /// The account's share of changes is used up for now.
    #[error("{}", often(.retry_after))]
    Often { retry_after: Duration },
    /// Without it nobody signs in any more at this location.
    #[error("{}", last_way(.location))]
    LastWay { location: String },
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("a passkey could not be asked for: {0}")]
    Begin(WebauthnError),
}

impl From<NotFresh> for PasskeyError {
    fn from(error: NotFresh) -> Self {
        match error {
            NotFresh::Often { retry_after } => Self::Often { retry_after },
            NotFresh::NoSession => Self::NoSession,
            NotFresh::Stale { needed } => Self::Stale { needed },
            NotFresh::Login(error) => Self::Login(error),
        }
    }
}

impl From<NoWay> for PasskeyError {
    fn from(error: NoWay) -> Self {
        match error {
            NoWay::Last { location } => Self::LastWay { location },
            NoWay::Store(error) => error.into(),
        }
    }
}

impl From<OperationError> for PasskeyError {
    fn from(error: OperationError) -> Self {
        Self::Login(error.into())
    }
}

impl From<StoreError> for PasskeyError {
    fn from(error: StoreError) -> Self {
        Self::Login(error.into())
    }
}
