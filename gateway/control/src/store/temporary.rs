//! Devices that are there for some hours only, and the names that users give.

use sqlx::AnyConnection;

use super::StoreError;

/// When the next temporary device ends.
pub(crate) async fn next_end(sql: &mut AnyConnection) -> Result<Option<i64>, StoreError> {
    let query = "SELECT MIN(ends_ms) FROM devices WHERE ends_ms > 0";
    Ok(sqlx::query_scalar(query).fetch_one(sql).await?)
}

/// When a device ends: no session of it may last longer. `None` for one that stays.
pub(crate) async fn end_of(
    sql: &mut AnyConnection,
    device_id: &str,
) -> Result<Option<i64>, StoreError> {
    let query = "SELECT ends_ms FROM devices WHERE id = $1 AND ends_ms > 0";
    Ok(sqlx::query_scalar(query)
        .bind(device_id)
        .fetch_optional(sql)
        .await?)
}

/// Gives a device the name that its user wants. No gateway has to hear of it.
pub(crate) async fn call(
    sql: &mut AnyConnection,
    device_id: &str,
    label: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE devices SET label = $2 WHERE id = $1")
        .bind(device_id)
        .bind(label)
        .execute(sql)
        .await?;
    Ok(())
}
