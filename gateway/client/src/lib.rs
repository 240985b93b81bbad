//! The user's side: a device's key pair, its WireGuard configuration, and the login at the portal.
#![forbid(unsafe_code)]

pub mod keys;
mod pin;
pub mod portal;
pub mod wireguard;

pub use keys::{KeyPair, PublicKey};
pub use portal::{PortalClient, PortalError, Reset, Session};
pub use portcullis_trust::Fingerprint;
