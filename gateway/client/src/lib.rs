//! The user's side: a device's key pair, its WireGuard configuration, and the login at the portal.
#![forbid(unsafe_code)]

mod browser;
pub mod connect;
pub mod device;
pub mod keys;
mod pin;
pub mod portal;
mod record;
pub mod wireguard;

pub use browser::{Brought, BrowserStep, BrowserVisit};
pub use connect::{Connected, Connection, Granted, PhoneAsked, Renewal, Tunnel};
pub use device::{ConnectLock, DeviceError, DeviceState};
pub use keys::{KeyPair, PublicKey};
pub use portal::{PortalClient, PortalError, Reset, Session};
pub use portcullis_trust::Fingerprint;
pub use record::Record;
