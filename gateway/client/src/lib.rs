//! The user's side: a device's key pair, its WireGuard configuration, and the login at the portal.
#![forbid(unsafe_code)]

pub mod fingerprint;
pub mod keys;
mod pin;
pub mod portal;
pub mod wireguard;

pub use fingerprint::Fingerprint;
pub use keys::{KeyPair, PublicKey};
pub use portal::{PortalClient, PortalError, Session};
