//! Trust by fingerprint: how a gateway that enrols and a user who logs in know the CA that they
//! have not met before.
#![forbid(unsafe_code)]

mod fingerprint;
mod pinned;

pub use fingerprint::{Fingerprint, FingerprintError};
pub use pinned::PinnedCa;
