//! Reading the audit log back. Records are written by [`Write::audit`](super::Write::audit).

use sqlx::AnyConnection;
use sqlx::Row as _;

use super::StoreError;

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
    rows.iter()
        .map(|row| {
            Ok(AuditRow {
                at_ms: row.try_get("at_ms")?,
                actor: row.try_get("actor")?,
                action: row.try_get("action")?,
                subject: row.try_get("subject")?,
                detail: row.try_get("detail")?,
            })
        })
        .collect()
}
