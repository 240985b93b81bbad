//! Errors of the control service.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::ca::CaError;
use crate::domain::Invalid;
use crate::password::PasswordError;
use crate::secrets::{MasterKeyError, RandomError, VaultError};
use crate::sso::SsoConfigError;
use crate::store::StoreError;
use crate::totp::TotpError;

/// Why control could not start or go on serving.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("master key: {0}")]
    MasterKey(#[from] MasterKeyError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("cannot listen on {address} for gateways: {source}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("another process serves {0}: is control running already?")]
    SocketInUse(PathBuf),
    #[error("cannot {call} the socket {path}: {source}")]
    Socket {
        call: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("serving {what} failed: {source}")]
    Serve {
        what: &'static str,
        source: tonic::transport::Error,
    },
    #[error(transparent)]
    Sso(#[from] SsoConfigError),
    #[error(transparent)]
    Operation(#[from] OperationError),
}

/// Why something that was asked of control was not done. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    #[error("there is no {what} {name:?}")]
    NotFound { what: &'static str, name: String },
    #[error("there is a {what} {name:?} already")]
    Exists { what: &'static str, name: String },
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("{0}")]
    Precondition(String),
    #[error("pool {0} has no free address left")]
    PoolExhausted(String),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Totp(#[from] TotpError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl OperationError {
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(Invalid(text.into()))
    }

    /// For `store_result.map_err(OperationError::taken("user", name))`.
    pub(crate) fn taken(what: &'static str, name: &str) -> impl FnOnce(StoreError) -> Self {
        move |error| match error {
            StoreError::Taken(_) => Self::Exists {
                what,
                name: name.into(),
            },
            error => error.into(),
        }
    }
}

impl From<OperationError> for tonic::Status {
    fn from(error: OperationError) -> Self {
        let message = error.to_string();
        match error {
            OperationError::NotFound { .. } => Self::not_found(message),
            OperationError::Exists { .. } => Self::already_exists(message),
            OperationError::Invalid(_)
            | OperationError::Password(
                PasswordError::Short
                | PasswordError::Long
                | PasswordError::Common
                | PasswordError::Name,
            )
            | OperationError::Ca(CaError::Request(_)) => Self::invalid_argument(message),
            OperationError::Precondition(_) => Self::failed_precondition(message),
            OperationError::PoolExhausted(_) | OperationError::Store(StoreError::Full) => {
                Self::resource_exhausted(message)
            }
            OperationError::Store(StoreError::Locked | StoreError::Unreachable { .. }) => {
                Self::unavailable(message)
            }
            _ => Self::internal(message),
        }
    }
}
