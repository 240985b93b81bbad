//! The desired state, in SQLite or PostgreSQL.
//!
//! Every change first takes the next revision from the single row of `meta`, which also makes
//! writers queue on either engine. What a gateway must know carries the revision of its last
//! change. Readers are told of a revision only after its commit (invariant 5).

pub(crate) mod about;
pub(crate) mod accounts;
pub(crate) mod acme;
pub(crate) mod approvals;
pub(crate) mod attempts;
pub(crate) mod audit;
pub(crate) mod ca;
pub(crate) mod changes;
pub(crate) mod connect;
pub(crate) mod devices;
pub(crate) mod enrolments;
mod error;
pub(crate) mod factors;
pub(crate) mod gateways;
pub(crate) mod invites;
pub(crate) mod limits;
pub(crate) mod locations;
mod maintenance;
pub(crate) mod newcomers;
mod open;
pub(crate) mod outside;
pub(crate) mod outside_limits;
pub(crate) mod policies;
pub(crate) mod provider_groups;
pub(crate) mod recovery;
pub(crate) mod seen;
pub(crate) mod sessions;
pub(crate) mod ssh;
pub(crate) mod sso;
pub(crate) mod successors;
pub(crate) mod temporary;
mod transaction;
pub(crate) mod users;
pub(crate) mod webauthn;

use std::sync::Arc;

use sqlx::AnyPool;
use tokio::sync::{Mutex, watch};

pub use error::StoreError;
pub(crate) use transaction::{Entry, Write};

/// The database behind the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// Whether there can be a row of this name or id. Strangers choose what they ask for, and PostgreSQL has no text
/// that holds the character of code zero: to ask for it would be an error of ours.
fn can_be_named(name_or_id: &str) -> bool {
    !name_or_id.contains('\0')
}

/// A handle on the store; cheap to clone.
#[derive(Clone)]
pub(crate) struct Store(Arc<Inner>);

struct Inner {
    pool: AnyPool,
    engine: Engine,
    place: String,
    store_id: String,
    /// Writers of this process queue here, in order, instead of polling for SQLite's lock.
    writer: Mutex<()>,
    /// The newest revision known to be committed.
    revision: watch::Sender<u64>,
}

impl Store {
    /// Engine and place, without credentials.
    pub(crate) fn place(&self) -> &str {
        &self.0.place
    }

    pub(crate) fn engine(&self) -> Engine {
        self.0.engine
    }

    /// Random, made with the store: revisions of another store mean nothing here.
    pub(crate) fn store_id(&self) -> &str {
        &self.0.store_id
    }

    /// Follows the newest committed revision.
    pub(crate) fn revisions(&self) -> watch::Receiver<u64> {
        self.0.revision.subscribe()
    }

    /// The newest committed revision.
    pub(crate) fn revision(&self) -> u64 {
        *self.0.revision.borrow()
    }

    /// Closes all connections. On SQLite this also folds the write-ahead log into the file.
    pub(crate) async fn close(&self) {
        self.0.pool.close().await;
    }

    fn announce(&self, revision: u64) {
        self.0.announce(revision);
    }
}

impl Inner {
    fn announce(&self, revision: u64) {
        self.revision.send_if_modified(|newest| {
            let newer = revision > *newest;
            *newest = revision.max(*newest);
            newer
        });
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.0.place)
    }
}

/// Bytes that a column cannot express as a number of ours, kept from wrapping.
pub(crate) fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Numbers in the store are never negative.
pub(crate) fn to_u64(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
