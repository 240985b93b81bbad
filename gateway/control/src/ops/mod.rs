//! What can be done to users, devices, locations, gateways and sessions. Every change is one
//! transaction with its audit record, and answers in the terms of the wire protocol.

pub(crate) mod devices;
pub(crate) mod explain;
pub(crate) mod gateways;
pub(crate) mod locations;
pub(crate) mod overview;
pub(crate) mod policy;
pub(crate) mod revocation;
pub(crate) mod sessions;
pub(crate) mod top;
pub(crate) mod trace;
pub(crate) mod users;

use std::future::Future;

use serde_json::Value;

use crate::error::OperationError;
use crate::store::{Entry, StoreError};

type Result<T> = std::result::Result<T, OperationError>;

/// The actor of everything that comes over the admin socket.
pub(crate) const ADMIN: &str = "admin";

/// An audit record of an administrator's act.
fn by_admin<'a>(action: &'static str, subject: &'a str, detail: Value) -> Entry<'a> {
    Entry {
        actor: ADMIN,
        action,
        subject,
        detail,
    }
}

/// What was looked up by name, or the error that says that there is no such thing.
async fn found<T>(
    what: &'static str,
    name: &str,
    lookup: impl Future<Output = std::result::Result<Option<T>, StoreError>>,
) -> Result<T> {
    lookup.await?.ok_or_else(|| OperationError::NotFound {
        what,
        name: name.into(),
    })
}

fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
