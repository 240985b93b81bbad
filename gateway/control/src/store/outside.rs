//! Logins from outside of the tunnel, half-way, and the browsers that have opened a session there.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{StoreError, outside_limits};
use crate::domain::Factor;
use crate::secrets::TokenHash;

/// A login whose password was right.
pub(crate) struct Attempt {
    pub(crate) user_id: String,
    pub(crate) user: String,
    pub(crate) totp_secret: String,
    /// Once it was right.
    pub(crate) second: Option<Factor>,
    /// Sealed; empty: no passkey is waited for.
    pub(crate) ceremony: String,
    pub(crate) expires_ms: i64,
}

/// A login to be written down.
pub(crate) struct NewAttempt<'a> {
    pub(crate) id: &'a TokenHash,
    pub(crate) user_id: &'a str,
    /// The stored hash that the password was verified against.
    pub(crate) password: &'a str,
    pub(crate) expires_ms: i64,
}

/// False when the user has been disabled or given another password since it was verified.
pub(crate) async fn insert(
    sql: &mut AnyConnection,
    attempt: &NewAttempt<'_>,
) -> Result<bool, StoreError> {
    let inserted = sqlx::query(
        "INSERT INTO outside_attempts (id, user_id, expires_ms)
         SELECT $1, u.id, $3 FROM users u WHERE u.id = $2 AND u.password = $4 AND u.disabled = 0",
    )
    .bind(attempt.id.as_str())
    .bind(attempt.user_id)
    .bind(attempt.expires_ms)
    .bind(attempt.password)
    .execute(sql)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// The login of a browser, if it is not over and its user is not disabled.
pub(crate) async fn find(
    sql: &mut AnyConnection,
    id: &TokenHash,
    now_ms: i64,
) -> Result<Option<Attempt>, StoreError> {
    let row = sqlx::query(
        "SELECT a.user_id, u.name, u.totp_secret, a.second, a.ceremony, a.expires_ms
         FROM outside_attempts a JOIN users u ON u.id = a.user_id
         WHERE a.id = $1 AND a.expires_ms > $2 AND u.disabled = 0",
    )
    .bind(id.as_str())
    .bind(now_ms)
    .fetch_optional(sql)
    .await?;
    row.as_ref().map(parse).transpose()
}

fn parse(row: &AnyRow) -> Result<Attempt, StoreError> {
    let second: String = row.try_get("second")?;
    let factor = |factor: &Factor| factor.as_str() == second;
    Ok(Attempt {
        user_id: row.try_get("user_id")?,
        user: row.try_get("name")?,
        totp_secret: row.try_get("totp_secret")?,
        second: Factor::ALL.into_iter().find(factor),
        ceremony: row.try_get("ceremony")?,
        expires_ms: row.try_get("expires_ms")?,
    })
}

/// Notes the second factor. False when there is one already.
pub(crate) async fn set_second(
    sql: &mut AnyConnection,
    id: &TokenHash,
    factor: Factor,
) -> Result<bool, StoreError> {
    let query = "UPDATE outside_attempts SET second = $2 WHERE id = $1 AND second = ''";
    let set = sqlx::query(query)
        .bind(id.as_str())
        .bind(factor.as_str())
        .execute(sql)
        .await?;
    Ok(set.rows_affected() == 1)
}

/// The challenge that waits now, in place of another one; empty: none.
pub(crate) async fn set_ceremony(
    sql: &mut AnyConnection,
    id: &TokenHash,
    ceremony: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE outside_attempts SET ceremony = $2 WHERE id = $1")
        .bind(id.as_str())
        .bind(ceremony)
        .execute(sql)
        .await?;
    Ok(())
}

/// Spends the login. False when it was spent before.
pub(crate) async fn complete(sql: &mut AnyConnection, id: &TokenHash) -> Result<bool, StoreError> {
    let spent = sqlx::query("DELETE FROM outside_attempts WHERE id = $1")
        .bind(id.as_str())
        .execute(sql)
        .await?;
    Ok(spent.rows_affected() == 1)
}

/// Notes which browser has opened a session.
pub(crate) async fn opened(
    sql: &mut AnyConnection,
    id: &TokenHash,
    session_id: &str,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO outside_browsers (id, session_id) VALUES ($1, $2)")
        .bind(id.as_str())
        .bind(session_id)
        .execute(sql)
        .await?;
    Ok(())
}

/// The id of the session that a browser has opened, live or not.
pub(crate) async fn session_of(
    sql: &mut AnyConnection,
    id: &TokenHash,
) -> Result<Option<String>, StoreError> {
    let query = "SELECT session_id FROM outside_browsers WHERE id = $1";
    Ok(sqlx::query_scalar(query)
        .bind(id.as_str())
        .fetch_optional(sql)
        .await?)
}

/// Forgets what is over.
pub(crate) async fn delete_expired(sql: &mut AnyConnection, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM outside_attempts WHERE expires_ms <= $1")
        .bind(now_ms)
        .execute(&mut *sql)
        .await?;
    sqlx::query(
        "DELETE FROM outside_browsers
         WHERE session_id NOT IN (SELECT id FROM sessions WHERE state = 'live')",
    )
    .execute(&mut *sql)
    .await?;
    outside_limits::delete_expired(sql, now_ms).await
}
