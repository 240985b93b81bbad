//! Raw input becomes one of these at the edge, and stays one.

mod factor;
mod key;
mod label;
mod mfa;
mod mode;
mod name;
mod pool;
mod role;
mod session;

pub use factor::{Factor, FactorSet};
pub(crate) use key::DeviceKey;
pub(crate) use label::Label;
pub use mfa::level_name;
pub(crate) use mfa::{LONGEST_MS, MfaChange, MfaPolicy, Preset};
pub(crate) use mode::Mode;
pub(crate) use name::Name;
pub(crate) use pool::{Pool, endpoint, route};
pub(crate) use role::Role;
pub(crate) use session::{SessionState, level_from_store};

/// Input that cannot be what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub(crate) String);
