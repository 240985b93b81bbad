//! Exit codes.

use std::process::ExitCode;

use portcullis_agent::link::LinkError;
use portcullis_client::PortalError;
use thiserror::Error;
use tonic::Code;

use crate::config::ConfigError;
use crate::refused::Refused;
use crate::run::capabilities::Missing;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// A revocation is committed, but not every gateway has acknowledged it in time.
    Pending = 3,
    /// The portal refused or delayed the login.
    Refused = 4,
    /// The portal could not be reached.
    Unreachable = 5,
    /// The kernel did not permit it.
    NotPermitted = 6,
    /// The connection's session was ended by somebody or something else.
    Ended = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What was asked for makes no sense, as found out after parsing the command line.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// The exit code that belongs to an error.
pub(crate) fn of_error(error: &anyhow::Error) -> Exit {
    let refused = |error: &PortalError| {
        if error.is_refusal() {
            Exit::Refused
        } else if error.is_unreachable() {
            Exit::Unreachable
        } else {
            Exit::Failed
        }
    };
    let refused_by_kernel = |error: &LinkError| match error {
        LinkError::NotPermitted { .. } => Exit::NotPermitted,
        _ => Exit::Failed,
    };
    let refused_by_control = |status: &tonic::Status| match status.code() {
        Code::InvalidArgument => Exit::Usage,
        _ => Exit::Failed,
    };
    error
        .chain()
        .find_map(|cause| {
            let usage =
                cause.is::<UsageError>() || cause.is::<ConfigError>() || cause.is::<Refused>();
            usage
                .then_some(Exit::Usage)
                .or_else(|| cause.is::<Missing>().then_some(Exit::NotPermitted))
                .or_else(|| cause.downcast_ref().map(refused))
                .or_else(|| cause.downcast_ref().map(refused_by_kernel))
                .or_else(|| cause.downcast_ref().map(refused_by_control))
        })
        .unwrap_or(Exit::Failed)
}
