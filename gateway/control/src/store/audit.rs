//! Reading the audit log back. Records are written by [`Write::audit`](super::Write::audit).

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::StoreError;

/// Records removed at a time, so that no other writer waits for long.
const PRUNED_AT_ONCE: i64 = 5_000;

/// Removes some of the records made before a time, oldest first. Answers how many; 0 when none is
/// left.
pub(crate) async fn prune(sql: &mut AnyConnection, before_ms: i64) -> Result<u64, StoreError> {
    sqlx::query(
        "DELETE FROM audit_about WHERE number IN (SELECT number FROM audit WHERE at_ms < $1
            AND number < (SELECT MIN(number) FROM audit) + $2)",
    )
    .bind(before_ms)
    .bind(PRUNED_AT_ONCE)
    .execute(&mut *sql)
    .await?;
    let removed = sqlx::query(
        "DELETE FROM audit WHERE at_ms < $1
            AND number < (SELECT MIN(number) FROM audit) + $2",
    )
    .bind(before_ms)
    .bind(PRUNED_AT_ONCE)
    .execute(sql)
    .await?;
    Ok(removed.rows_affected())
}

pub(crate) struct AuditRow {
    pub(crate) at_ms: i64,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) subject: String,
    pub(crate) detail: String,
}

/// The newest records, newest first.
pub(crate) async fn newest(
    sql: &mut AnyConnection,
    limit: u32,
) -> Result<Vec<AuditRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT at_ms, actor, action, subject, detail FROM audit ORDER BY number DESC LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(sql)
    .await?;
    rows.iter().map(parse).collect()
}

/// The newest records about an account, newest first.
pub(crate) async fn newest_about(
    sql: &mut AnyConnection,
    user_id: &str,
    limit: u32,
) -> Result<Vec<AuditRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT a.at_ms, a.actor, a.action, a.subject, a.detail
         FROM audit_about b JOIN audit a ON a.number = b.number
         WHERE b.user_id = $1 ORDER BY b.number DESC LIMIT $2",
    )
    .bind(user_id)
    .bind(i64::from(limit))
    .fetch_all(sql)
    .await?;
    rows.iter().map(parse).collect()
}

fn parse(row: &AnyRow) -> Result<AuditRow, StoreError> {
    Ok(AuditRow {
        at_ms: row.try_get("at_ms")?,
        actor: row.try_get("actor")?,
        action: row.try_get("action")?,
        subject: row.try_get("subject")?,
        detail: row.try_get("detail")?,
    })
}
