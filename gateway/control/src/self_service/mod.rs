//! What users do with their own devices, sessions and factors, from a device that they are signed in on.
//!
//! Whose they are is told by the device's address alone. Whatever belongs to someone else is
//! answered as if it did not exist.

mod activity;
mod devices;
mod error;
mod factors;
pub(crate) mod last;
mod sessions;
mod tunnel;

use std::sync::Arc;

use crate::core::Core;
use crate::login::Logins;
use crate::store::{Entry, StoreError, Write};

pub use activity::Activity;
pub use devices::{AddedDevice, DeviceList, DeviceRemoval, NewDevice, OwnDevice};
pub(crate) use devices::{Owner, add as add_device};
pub use error::SelfServiceError;
pub use factors::{LinkedProvider, NewRecoveryCodes, OwnFactors, SetSince, TotpSetup};
pub(crate) use last::Without;
pub(crate) use sessions::end_others;
pub use sessions::{EndedSessions, OwnSession};
pub use tunnel::Tunnel;

/// Lists, adds, renames, removes and ends what is a user's own; cheap to clone.
#[derive(Clone, Debug)]
pub struct SelfService(Arc<Core>);

impl Logins {
    /// What users may do with their own devices, sessions and factors.
    pub fn self_service(&self) -> SelfService {
        SelfService(self.0.clone())
    }
}

/// An audit record of what a user does to a device of their own.
async fn note(
    write: &mut Write<'_>,
    user: &str,
    action: &'static str,
    device: &str,
    detail: serde_json::Value,
) -> Result<(), StoreError> {
    let entry = Entry {
        actor: &format!("user:{user}"),
        action,
        subject: &format!("device:{device}"),
        detail,
    };
    write.audit(entry).await
}
