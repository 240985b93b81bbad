//! What an account is, beside its factors: its role, since when it is enrolled, and what an
//! administrator did to its factors.

use sqlx::AnyConnection;

use super::StoreError;
use crate::domain::Role;

/// What the user of a session is to be told.
pub(crate) struct ResetRow {
    pub(crate) at_ms: i64,
    pub(crate) reason: String,
}

pub(crate) async fn set_role(
    sql: &mut AnyConnection,
    user_id: &str,
    role: Role,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET role = $2 WHERE id = $1")
        .bind(user_id)
        .bind(role.as_str())
        .execute(sql)
        .await?;
    Ok(())
}

/// From now on there is no first admin to enrol.
pub(crate) async fn set_enrolled(
    sql: &mut AnyConnection,
    user_id: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET enrolled_ms = $2 WHERE id = $1")
        .bind(user_id)
        .bind(now_ms)
        .execute(sql)
        .await?;
    Ok(())
}

/// Accounts that have had factors.
pub(crate) async fn enrolled(sql: &mut AnyConnection) -> Result<i64, StoreError> {
    let query = "SELECT COUNT(*) FROM users WHERE enrolled_ms > 0";
    Ok(sqlx::query_scalar(query).fetch_one(sql).await?)
}

/// Voids the authenticator. Codes of an account without one are never right.
pub(crate) async fn void_totp(sql: &mut AnyConnection, user_id: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET totp_secret = '', totp_last_step = 0, totp_ms = 0 WHERE id = $1")
        .bind(user_id)
        .execute(sql)
        .await?;
    Ok(())
}

/// Answers how many there were.
pub(crate) async fn void_passkeys(
    sql: &mut AnyConnection,
    user_id: &str,
) -> Result<u64, StoreError> {
    let voided = sqlx::query("DELETE FROM webauthn_credentials WHERE user_id = $1")
        .bind(user_id)
        .execute(sql)
        .await?;
    Ok(voided.rows_affected())
}

/// Registrations and logins with passkeys that wait for their answers.
pub(crate) async fn void_ceremonies(
    sql: &mut AnyConnection,
    user_id: &str,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM webauthn_ceremonies WHERE user_id = $1")
        .bind(user_id)
        .execute(sql)
        .await?;
    Ok(())
}

/// Notes that an administrator voided factors; the sessions of the week from now tell the user.
pub(crate) async fn note_reset(
    sql: &mut AnyConnection,
    user_id: &str,
    reason: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE users SET reset_ms = $2, reset_reason = $3, reset_told_ms = 0 WHERE id = $1",
    )
    .bind(user_id)
    .bind(now_ms)
    .bind(reason)
    .execute(sql)
    .await?;
    Ok(())
}

/// Notes that the user has been told of a reset. `Some` when the session that is granted now is the first
/// one that tells.
pub(crate) async fn tell_reset(
    sql: &mut AnyConnection,
    user_id: &str,
    now_ms: i64,
) -> Result<Option<ResetRow>, StoreError> {
    let told: Option<(i64, String)> = sqlx::query_as(
        "UPDATE users SET reset_told_ms = $2
         WHERE id = $1 AND reset_ms > 0 AND reset_told_ms = 0 RETURNING reset_ms, reset_reason",
    )
    .bind(user_id)
    .bind(now_ms)
    .fetch_optional(sql)
    .await?;
    Ok(told.map(|(at_ms, reason)| ResetRow { at_ms, reason }))
}
