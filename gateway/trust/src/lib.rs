//! Trust by fingerprint: how a gateway that enrols and a user who logs in know the CA that they
//! have not met before; and how a device proves its key to a location before there is a tunnel.
#![forbid(unsafe_code)]

mod fingerprint;
mod pinned;
mod proof;

pub use fingerprint::{Fingerprint, FingerprintError};
pub use pinned::PinnedCa;
pub use proof::Claim;
