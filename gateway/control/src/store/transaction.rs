//! The two kinds of transaction: a consistent read, and a write that queues behind others.

use serde_json::Value;
use sqlx::{Any, AnyConnection, Transaction};
use tokio::sync::MutexGuard;

use super::{Engine, Store, StoreError, about, to_u64};

/// Sees one state of the store, however many queries it takes.
pub(crate) struct Read(Transaction<'static, Any>);

/// A write. Dropped without [`commit`](Self::commit) it changes nothing.
pub(crate) struct Write<'s> {
    tx: Transaction<'static, Any>,
    store: &'s Store,
    now_ms: i64,
    revision: i64,
    audit: i64,
    /// Audit records written so far.
    audited: i64,
    changes_desired_state: bool,
    // Declared last: the next writer starts after the transaction is over.
    _queue: MutexGuard<'s, ()>,
}

/// An audit record to be.
pub(crate) struct Entry<'a> {
    /// `admin`, `system`, `gateway:NAME` or `user:NAME`.
    pub(crate) actor: &'a str,
    pub(crate) action: &'static str,
    pub(crate) subject: &'a str,
    pub(crate) detail: Value,
}

impl Store {
    pub(crate) async fn read(&self) -> Result<Read, StoreError> {
        let begin = match self.0.engine {
            Engine::Sqlite => "BEGIN",
            Engine::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        Ok(Read(self.0.pool.begin_with(begin).await?))
    }

    /// A change of what gateways enforce or of who may ask for it: takes a new revision.
    pub(crate) async fn change(&self, now_ms: i64) -> Result<Write<'_>, StoreError> {
        self.write(now_ms, true).await
    }

    /// A write that no gateway has to hear of, such as a login's attempt counter.
    pub(crate) async fn record(&self, now_ms: i64) -> Result<Write<'_>, StoreError> {
        self.write(now_ms, false).await
    }

    async fn write(&self, now_ms: i64, change: bool) -> Result<Write<'_>, StoreError> {
        let queue = self.0.writer.lock().await;
        let begin = match self.0.engine {
            Engine::Sqlite => "BEGIN IMMEDIATE",
            Engine::Postgres => "BEGIN",
        };
        let mut tx = self.0.pool.begin_with(begin).await?;
        // Always the first statement: every writer locks this row before any other.
        let (revision, audit): (i64, i64) = sqlx::query_as(
            "UPDATE meta SET revision = revision + $1, audit = audit + 1 RETURNING revision, audit",
        )
        .bind(i64::from(change))
        .fetch_one(&mut *tx)
        .await?;
        Ok(Write {
            tx,
            store: self,
            now_ms,
            revision,
            audit,
            audited: 0,
            changes_desired_state: change,
            _queue: queue,
        })
    }
}

impl Read {
    pub(crate) fn sql(&mut self) -> &mut AnyConnection {
        &mut self.0
    }

    /// Ends the read. Nothing is written either way.
    pub(crate) async fn end(self) -> Result<(), StoreError> {
        Ok(self.0.commit().await?)
    }
}

impl Write<'_> {
    pub(crate) fn sql(&mut self) -> &mut AnyConnection {
        &mut self.tx
    }

    /// The revision of this change.
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Notes that the live policy, or whom its rules mean, changes with this.
    pub(crate) async fn mark_policy(&mut self) -> Result<(), StoreError> {
        sqlx::query("UPDATE meta SET policy_revision = $1")
            .bind(self.revision)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Adds an audit record; it stands or falls with the change.
    pub(crate) async fn audit(&mut self, entry: Entry<'_>) -> Result<(), StoreError> {
        let number = self.audit + self.audited;
        if self.audited > 0 {
            // The first number came with the transaction; each further record takes another.
            sqlx::query("UPDATE meta SET audit = $1")
                .bind(number)
                .execute(&mut *self.tx)
                .await?;
        }
        self.audited += 1;
        sqlx::query(
            "INSERT INTO audit (number, at_ms, revision, actor, action, subject, detail)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(number)
        .bind(self.now_ms)
        .bind(self.revision)
        .bind(entry.actor)
        .bind(entry.action)
        .bind(entry.subject)
        .bind(entry.detail.to_string())
        .execute(&mut *self.tx)
        .await?;
        about::note(&mut self.tx, number, &entry).await
    }

    /// Commits, then tells those who follow the revision. Answers the revision.
    pub(crate) async fn commit(self) -> Result<u64, StoreError> {
        let revision = to_u64(self.revision);
        self.tx.commit().await?;
        if self.changes_desired_state {
            self.store.announce(revision);
        }
        Ok(revision)
    }
}
