//! Sessions that are held by an SSH connection.

use sqlx::AnyConnection;

use super::StoreError;

pub(crate) async fn insert(
    sql: &mut AnyConnection,
    session_id: &str,
    holder: &str,
    lease_ms: i64,
) -> Result<(), StoreError> {
    let query = "INSERT INTO ssh_sessions (session_id, holder, lease_ms) VALUES ($1, $2, $3)";
    sqlx::query(query)
        .bind(session_id)
        .bind(holder)
        .bind(lease_ms)
        .execute(sql)
        .await?;
    Ok(())
}

/// False when somebody else holds it, or nobody may any more.
pub(crate) async fn renew(
    sql: &mut AnyConnection,
    session_id: &str,
    holder: &str,
    lease_ms: i64,
) -> Result<bool, StoreError> {
    let query = "UPDATE ssh_sessions SET lease_ms = $3 WHERE session_id = $1 AND holder = $2";
    let renewed = sqlx::query(query)
        .bind(session_id)
        .bind(holder)
        .bind(lease_ms)
        .execute(sql)
        .await?;
    Ok(renewed.rows_affected() == 1)
}

/// Holds a session on. False when it is none of this user's that was held.
pub(crate) async fn take_over(
    sql: &mut AnyConnection,
    session_id: &str,
    user_id: &str,
    holder: &str,
    lease_ms: i64,
) -> Result<bool, StoreError> {
    let query = "UPDATE ssh_sessions SET holder = $3, lease_ms = $4 WHERE session_id = $1
         AND session_id IN (SELECT id FROM sessions WHERE user_id = $2 AND state = 'live')";
    let taken = sqlx::query(query)
        .bind(session_id)
        .bind(user_id)
        .bind(holder)
        .bind(lease_ms)
        .execute(sql)
        .await?;
    Ok(taken.rows_affected() == 1)
}

/// Live sessions whose lease has run out.
pub(crate) async fn lapsed(
    sql: &mut AnyConnection,
    now_ms: i64,
) -> Result<Vec<String>, StoreError> {
    let query = "SELECT h.session_id FROM ssh_sessions h JOIN sessions s ON s.id = h.session_id
         WHERE s.state = 'live' AND h.lease_ms <= $1";
    Ok(sqlx::query_scalar(query)
        .bind(now_ms)
        .fetch_all(sql)
        .await?)
}

/// When the next lease runs out.
pub(crate) async fn next_lapse(sql: &mut AnyConnection) -> Result<Option<i64>, StoreError> {
    let query = "SELECT MIN(h.lease_ms) FROM ssh_sessions h JOIN sessions s ON s.id = h.session_id
         WHERE s.state = 'live'";
    Ok(sqlx::query_scalar(query).fetch_one(sql).await?)
}

/// No lease runs out before this time.
pub(crate) async fn extend_all(sql: &mut AnyConnection, until_ms: i64) -> Result<(), StoreError> {
    sqlx::query("UPDATE ssh_sessions SET lease_ms = $1 WHERE lease_ms < $1")
        .bind(until_ms)
        .execute(sql)
        .await?;
    Ok(())
}
