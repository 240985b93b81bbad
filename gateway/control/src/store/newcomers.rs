//! Who has just enrolled.

use sqlx::{AnyConnection, Row as _};

use super::StoreError;

/// Somebody who may add a first passkey and a first device.
pub(crate) struct Newcomer {
    /// The hash of a token.
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) user: String,
    /// Empty: no device may be added.
    pub(crate) location_id: String,
    /// Sealed; empty: no passkey is waited for.
    pub(crate) ceremony: String,
}

/// In place of an earlier one of the account.
pub(crate) async fn replace(
    sql: &mut AnyConnection,
    id: &str,
    user_id: &str,
    location_id: &str,
    expires_ms: i64,
) -> Result<(), StoreError> {
    delete_of_user(sql, user_id).await?;
    sqlx::query(
        "INSERT INTO newcomers (id, user_id, location_id, expires_ms) VALUES ($1, $2, $3, $4)",
    )
    .bind(id)
    .bind(user_id)
    .bind(location_id)
    .bind(expires_ms)
    .execute(sql)
    .await?;
    Ok(())
}

/// The newcomer, if it is not too late and the account is not disabled.
pub(crate) async fn find(
    sql: &mut AnyConnection,
    id: &str,
    now_ms: i64,
) -> Result<Option<Newcomer>, StoreError> {
    let row = sqlx::query(
        "SELECT n.id, n.user_id, u.name AS user_name, n.location_id, n.ceremony
         FROM newcomers n JOIN users u ON u.id = n.user_id
         WHERE n.id = $1 AND n.expires_ms > $2 AND u.disabled = 0",
    )
    .bind(id)
    .bind(now_ms)
    .fetch_optional(sql)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Newcomer {
        id: row.try_get("id")?,
        user_id: row.try_get("user_id")?,
        user: row.try_get("user_name")?,
        location_id: row.try_get("location_id")?,
        ceremony: row.try_get("ceremony")?,
    }))
}

/// The challenge that waits now, in place of another one; empty: none.
pub(crate) async fn set_ceremony(
    sql: &mut AnyConnection,
    id: &str,
    ceremony: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE newcomers SET ceremony = $2 WHERE id = $1")
        .bind(id)
        .bind(ceremony)
        .execute(sql)
        .await?;
    Ok(())
}

/// One device, and no more.
pub(crate) async fn spend_device(sql: &mut AnyConnection, id: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE newcomers SET location_id = '' WHERE id = $1")
        .bind(id)
        .execute(sql)
        .await?;
    Ok(())
}

pub(crate) async fn delete_of_user(
    sql: &mut AnyConnection,
    user_id: &str,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM newcomers WHERE user_id = $1")
        .bind(user_id)
        .execute(sql)
        .await?;
    Ok(())
}

pub(crate) async fn delete_expired(sql: &mut AnyConnection, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM newcomers WHERE expires_ms <= $1")
        .bind(now_ms)
        .execute(sql)
        .await?;
    Ok(())
}
