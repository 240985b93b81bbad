//! What can go wrong with the store, said so that an administrator knows what to do.

use sqlx::migrate::MigrateError;

/// A failure of the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "the database was written by a newer Portcullis (schema {0}): use that version or a later one"
    )]
    Newer(i64),
    #[error("the database's schema is not ours (migration {0} differs or is incomplete)")]
    Foreign(i64),
    #[error("the disk of the database is full; nothing was changed: free some space")]
    Full,
    #[error("the database is locked by another program; nothing was changed")]
    Locked,
    #[error("the database cannot be written: check its permissions and its file system")]
    ReadOnly,
    #[error("the database is damaged, or not a database: {0}")]
    Damaged(String),
    #[error("cannot reach the database {place}: {reason}")]
    Unreachable { place: String, reason: String },
    /// Holds the scheme alone: the rest may be a password.
    #[error(
        "what begins with {0:?} is no database URL: it is sqlite:///path (without ? and #) or postgres://user@host/name"
    )]
    Url(String),
    #[error(
        "the connection to {place} would not prove whose server it is: add ?sslmode=verify-full to the URL (and &sslrootcert=FILE for a CA of your own), or use a Unix socket or a loopback address"
    )]
    Unverified { place: String },
    /// A unique value is taken; the constraint as the engine names it.
    #[error("already taken ({0})")]
    Taken(String),
    #[error("the store holds an unreadable {0}")]
    Value(&'static str),
    #[error(transparent)]
    Sql(sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => {
                if error.is_unique_violation() {
                    return Self::Taken(error.message().to_owned());
                }
                match error.code().as_deref().and_then(classify) {
                    Some(Kind::Full) => Self::Full,
                    Some(Kind::Locked) => Self::Locked,
                    Some(Kind::ReadOnly) => Self::ReadOnly,
                    Some(Kind::Damaged) => Self::Damaged(error.message().to_owned()),
                    None => Self::Sql(sqlx::Error::Database(error)),
                }
            }
            sqlx::Error::Io(error) => Self::unreachable(&error),
            error @ (sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed) => Self::unreachable(&error),
            error => Self::Sql(error),
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(version) => Self::Newer(version),
            MigrateError::VersionMismatch(version) | MigrateError::Dirty(version) => {
                Self::Foreign(version)
            }
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            other => Self::Sql(sqlx::Error::Migrate(Box::new(other))),
        }
    }
}

impl StoreError {
    fn unreachable(reason: &dyn std::fmt::Display) -> Self {
        Self::Unreachable {
            place: String::new(),
            reason: reason.to_string(),
        }
    }

    /// Names the database where the error itself could not.
    pub(super) fn at(self, place: &str) -> Self {
        match self {
            Self::Unreachable { reason, .. } => Self::Unreachable {
                place: place.into(),
                reason,
            },
            Self::Sql(error) => Self::Unreachable {
                place: place.into(),
                reason: error.to_string(),
            },
            other => other,
        }
    }
}

enum Kind {
    Full,
    Locked,
    ReadOnly,
    Damaged,
}

/// Five-character SQLSTATE of PostgreSQL, or SQLite's (extended) result code in decimal.
fn classify(code: &str) -> Option<Kind> {
    match code {
        "53100" => return Some(Kind::Full),
        "55P03" | "40P01" => return Some(Kind::Locked),
        "25006" | "42501" => return Some(Kind::ReadOnly),
        "XX001" | "XX002" => return Some(Kind::Damaged),
        _ => {}
    }
    if code.len() >= 5 {
        return None;
    }
    match code.parse::<u32>().ok()? & 0xff {
        13 => Some(Kind::Full),
        5 | 6 => Some(Kind::Locked),
        8 | 14 => Some(Kind::ReadOnly),
        11 | 26 => Some(Kind::Damaged),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Executor as _;

    use super::*;
    use crate::store::{Entry, Store, audit};

    #[tokio::test]
    async fn a_full_disk_is_named_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite://{}/store.db", dir.path().display()))
            .await
            .unwrap();
        let mut connections = Vec::new();
        for _ in 0..8 {
            let mut connection = store.0.pool.acquire().await.unwrap();
            // SQLite's own way to pretend that there is no more room.
            connection
                .execute("PRAGMA max_page_count = 1")
                .await
                .unwrap();
            connections.push(connection);
        }
        drop(connections);
        let text = "x".repeat(1_000_000);
        let entry = |subject| Entry {
            actor: "system",
            action: "test",
            subject,
            detail: serde_json::Value::Null,
        };
        let mut write = store.change(0).await.unwrap();
        assert!(matches!(
            write.audit(entry(&text)).await,
            Err(StoreError::Full)
        ));
        drop(write);
        // No connection is left half-way in a transaction.
        for revision in 1..20 {
            let mut write = store.change(0).await.unwrap();
            write.audit(entry("small")).await.unwrap();
            assert_eq!(write.commit().await.unwrap(), revision);
            let mut read = store.read().await.unwrap();
            let newest = audit::newest(read.sql(), 1).await.unwrap();
            assert_eq!(newest[0].subject, "small");
            read.end().await.unwrap();
        }
    }
}
