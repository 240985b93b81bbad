//! What a gateway keeps on disk: its WireGuard private key, and its enrolment with control.
//! Everything else it knows is in the kernel or comes from control.

mod enrolment;
mod private_key;
mod secret_file;

use std::io;
use std::path::PathBuf;

pub use enrolment::Enrolment;
pub use private_key::load_or_generate;

use crate::keys::KeyError;

/// The identity could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot {action} {path}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{path} can be read by others (mode {mode:o}): make it 0600 and, if others had access, replace it"
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{path} holds no valid private key: {source}")]
    Key { path: PathBuf, source: KeyError },
    #[error("{path} is not a valid enrolment: {reason}")]
    Enrolment { path: PathBuf, reason: String },
    #[error(
        "this gateway is not enrolled ({path} does not exist): run `portcullis gateway enroll` with a token from `portcullis gateway add`"
    )]
    NotEnrolled { path: PathBuf },
    #[error("the operating system gave no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}
