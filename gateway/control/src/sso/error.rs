//! Why there is no login by a provider.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::OperationError;
use crate::login::LoginError;
use crate::store::StoreError;

/// Why a provider's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SsoConfigError {
    #[error("[[control.sso]] {provider:?}: {reason}")]
    Value { provider: String, reason: String },
    #[error("[[control.sso]] {provider:?}: cannot read client_secret_file {}: {source}", .path.display())]
    Secret {
        provider: String,
        path: PathBuf,
        source: io::Error,
    },
    #[error("[[control.sso]] {provider:?}: HTTP cannot be set up: {source}")]
    Http {
        provider: String,
        source: reqwest::Error,
    },
}

/// Why a provider's word did not lead to a login.
#[derive(Debug, thiserror::Error)]
pub enum SsoError {
    #[error("there is no sign-in by that name")]
    UnknownProvider,
    #[error("this location does not allow single sign-on")]
    NotAllowed,
    #[error("too many sign-ins are waiting: try again in {} s", .retry_after.as_secs().max(1))]
    Busy { retry_after: Duration },
    #[error("the port to come back to has to be from 1024 to 65535")]
    Port,
    /// Unknown, too old, used up, or begun from another device or with another provider.
    #[error("this sign-in is unknown or over: begin again")]
    UnknownVisit,
    /// The provider's own words are not repeated: it, or whoever wrote the address, could say anything.
    #[error("the provider did not sign you in: {0}")]
    Declined(&'static str),
    #[error("the provider cannot be reached, or gives no usable answer: try again later")]
    Unavailable,
    /// Whatever else is wrong: with the token, with the account, with whose device it is.
    #[error(
        "this sign-in was refused: the account at the provider is not linked to this device's user, or the provider's answer is not good"
    )]
    Refused,
    #[error(transparent)]
    Login(#[from] LoginError),
}

impl From<StoreError> for SsoError {
    fn from(error: StoreError) -> Self {
        Self::Login(error.into())
    }
}

impl From<OperationError> for SsoError {
    fn from(error: OperationError) -> Self {
        Self::Login(error.into())
    }
}
