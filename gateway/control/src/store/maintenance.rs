//! What the store does by itself: it notices what other control processes committed, and keeps
//! SQLite's log short.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Engine, Inner, to_u64};

/// How soon a change made by another process is noticed.
const POLL: Duration = Duration::from_secs(1);
const CHECKPOINT_EVERY: u32 = 5;

/// Runs until the last handle on the store is gone.
pub(super) fn spawn(inner: &Arc<Inner>) {
    let inner = Arc::downgrade(inner);
    tokio::spawn(async move {
        let mut failing = false;
        for turn in 1_u32.. {
            tokio::time::sleep(POLL).await;
            match tick(&inner, turn).await {
                Some(Ok(())) => failing = false,
                Some(Err(error)) if !failing => {
                    failing = true;
                    tracing::warn!(%error, "the store cannot be read");
                }
                Some(Err(_)) => {}
                None => return,
            }
        }
    });
}

/// `None` when the store is closed.
async fn tick(inner: &Weak<Inner>, turn: u32) -> Option<Result<(), sqlx::Error>> {
    let inner = inner.upgrade()?;
    if inner.pool.is_closed() {
        return None;
    }
    let revision = sqlx::query_scalar::<_, i64>("SELECT revision FROM meta").fetch_one(&inner.pool);
    match revision.await {
        Ok(revision) => inner.announce(to_u64(revision)),
        Err(error) => return Some(Err(error)),
    }
    if inner.engine == Engine::Sqlite && turn.is_multiple_of(CHECKPOINT_EVERY) {
        // Passive: neither waits for readers and writers nor makes them wait.
        let checkpoint = sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)")
            .execute(&inner.pool)
            .await;
        return Some(checkpoint.map(|_| ()));
    }
    Some(Ok(()))
}
