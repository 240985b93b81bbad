//! Invitations of devices.

use sqlx::{AnyConnection, Row as _};

use super::StoreError;
use crate::secrets::TokenHash;

/// Whose device is invited, and where.
pub(crate) struct Invite {
    pub(crate) user_id: String,
    pub(crate) user: String,
    pub(crate) location_id: String,
    pub(crate) location: String,
}

pub(crate) async fn insert(
    sql: &mut AnyConnection,
    id: &TokenHash,
    user_id: &str,
    location_id: &str,
    expires_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO device_invites (id, user_id, location_id, expires_ms) VALUES ($1, $2, $3, $4)",
    )
    .bind(id.as_str())
    .bind(user_id)
    .bind(location_id)
    .bind(expires_ms)
    .execute(sql)
    .await?;
    Ok(())
}

/// One that is good now. Call within a write.
pub(crate) async fn find(
    sql: &mut AnyConnection,
    id: &TokenHash,
    now_ms: i64,
) -> Result<Option<Invite>, StoreError> {
    let row = sqlx::query(
        "SELECT i.user_id, u.name AS user_name, i.location_id, l.name AS location
         FROM device_invites i
         JOIN users u ON u.id = i.user_id
         JOIN locations l ON l.id = i.location_id
         WHERE i.id = $1 AND i.expires_ms > $2 AND u.disabled = 0",
    )
    .bind(id.as_str())
    .bind(now_ms)
    .fetch_optional(sql)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Invite {
        user_id: row.try_get("user_id")?,
        user: row.try_get("user_name")?,
        location_id: row.try_get("location_id")?,
        location: row.try_get("location")?,
    }))
}

/// Spends it. False when it was spent before.
pub(crate) async fn spend(sql: &mut AnyConnection, id: &TokenHash) -> Result<bool, StoreError> {
    let spent = sqlx::query("DELETE FROM device_invites WHERE id = $1")
        .bind(id.as_str())
        .execute(sql)
        .await?;
    Ok(spent.rows_affected() == 1)
}

/// Voids those of a user.
pub(crate) async fn delete_of_user(
    sql: &mut AnyConnection,
    user_id: &str,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM device_invites WHERE user_id = $1")
        .bind(user_id)
        .execute(sql)
        .await?;
    Ok(())
}

pub(crate) async fn delete_expired(sql: &mut AnyConnection, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM device_invites WHERE expires_ms <= $1")
        .bind(now_ms)
        .execute(sql)
        .await?;
    Ok(())
}
