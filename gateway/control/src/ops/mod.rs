//! What can be done to users, devices, locations, gateways and sessions. Every change is one
//! transaction with its audit record, and answers in the terms of the wire protocol.

pub(crate) mod accounts;
pub(crate) mod devices;
pub(crate) mod explain;
pub(crate) mod gateways;
pub(crate) mod invites;
pub(crate) mod locations;
pub(crate) mod overview;
pub(crate) mod policy;
pub(crate) mod recovery;
pub(crate) mod renewal;
pub(crate) mod revocation;
pub(crate) mod session_key;
pub(crate) mod sessions;
pub(crate) mod sso;
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

/// Ids that a record lists; beyond them it tells the number alone.
const IDS_LISTED: usize = 1000;

/// Ended sessions as a record tells of them.
pub(crate) fn ended(ids: &[String]) -> Value {
    let listed = &ids[..ids.len().min(IDS_LISTED)];
    serde_json::json!({ "sessions": ids.len(), "ids": listed })
}

/// The same, beside what else the record tells. Both are objects.
pub(crate) fn ended_with(ids: &[String], more: Value) -> Value {
    let mut detail = ended(ids);
    if let (Some(detail), Value::Object(more)) = (detail.as_object_mut(), more) {
        detail.extend(more);
    }
    detail
}

fn count(ids: &[String]) -> u64 {
    u64::try_from(ids.len()).unwrap_or(u64::MAX)
}

pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
