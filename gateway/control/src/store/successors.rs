//! Sessions that take the place of another one as soon as a gateway holds them.

use sqlx::AnyConnection;

use super::StoreError;
use super::sessions::touch;

/// The live session of a device that is about to get another one.
pub(crate) struct Former {
    /// The session that is put back if the other one comes to nothing: itself, or the one whose place it was about
    /// to take.
    id: String,
    /// Sealed.
    key: String,
}

/// What `device_id` has now, if it can be put back.
pub(crate) async fn former(
    sql: &mut AnyConnection,
    device_id: &str,
    now_ms: i64,
) -> Result<Option<Former>, StoreError> {
    let query = "SELECT f.id, f.preshared_key FROM sessions s
         JOIN sessions f ON f.id = CASE WHEN s.replaces = '' THEN s.id ELSE s.replaces END
         WHERE s.device_id = $1 AND s.state = 'live'
            AND f.preshared_key IS NOT NULL AND f.deadline_ms > $2";
    let row: Option<(String, String)> = sqlx::query_as(query)
        .bind(device_id)
        .bind(now_ms)
        .fetch_optional(sql)
        .await?;
    Ok(row.map(|(id, key)| Former { id, key }))
}

/// Keeps the former session's key until it is settled which of the two is good. The successor is live, and the former one
/// has been replaced.
pub(crate) async fn keep(
    sql: &mut AnyConnection,
    successor: &str,
    former: &Former,
    settles_ms: i64,
) -> Result<(), StoreError> {
    // What was about to take its place does so no more.
    sqlx::query("UPDATE sessions SET replaces = '' WHERE replaces = $1")
        .bind(&former.id)
        .execute(&mut *sql)
        .await?;
    sqlx::query("UPDATE sessions SET preshared_key = $2 WHERE id = $1 AND state = 'replaced'")
        .bind(&former.id)
        .bind(&former.key)
        .execute(&mut *sql)
        .await?;
    sqlx::query("UPDATE sessions SET replaces = $2, settles_ms = $3 WHERE id = $1")
        .bind(successor)
        .bind(&former.id)
        .bind(settles_ms)
        .execute(sql)
        .await?;
    Ok(())
}

/// The session whose place this one takes, as long as that is not settled.
pub(crate) async fn replaced_by(
    sql: &mut AnyConnection,
    successor: &str,
) -> Result<Option<String>, StoreError> {
    let query = "SELECT replaces FROM sessions WHERE id = $1 AND replaces <> ''";
    Ok(sqlx::query_scalar(query)
        .bind(successor)
        .fetch_optional(sql)
        .await?)
}

/// Whether a session that was replaced may yet be put back.
pub(crate) async fn is_kept(sql: &mut AnyConnection, id: &str) -> Result<bool, StoreError> {
    let query = "SELECT COUNT(*) FROM sessions
         WHERE id = $1 AND state = 'replaced' AND preshared_key IS NOT NULL";
    let kept: i64 = sqlx::query_scalar(query).bind(id).fetch_one(sql).await?;
    Ok(kept == 1)
}

/// The successor is good, or has ended by somebody's will: the former session's key is wiped.
pub(crate) async fn settle(sql: &mut AnyConnection, successor: &str) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE sessions SET preshared_key = NULL
         WHERE state = 'replaced' AND id = (SELECT replaces FROM sessions WHERE id = $1)",
    )
    .bind(successor)
    .execute(&mut *sql)
    .await?;
    sqlx::query("UPDATE sessions SET replaces = '' WHERE id = $1")
        .bind(successor)
        .execute(sql)
        .await?;
    Ok(())
}

/// Puts a session back whose successor has come to nothing. False when it has been ended meanwhile, or its
/// deadline has passed.
pub(crate) async fn put_back(
    sql: &mut AnyConnection,
    former: &str,
    revision: i64,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let device: Option<String> = sqlx::query_scalar(
        "UPDATE sessions SET state = 'live', ended_ms = 0, ended_by = ''
         WHERE id = $1 AND state = 'replaced' AND preshared_key IS NOT NULL AND deadline_ms > $2
         RETURNING device_id",
    )
    .bind(former)
    .bind(now_ms)
    .fetch_optional(&mut *sql)
    .await?;
    match device {
        Some(device) => touch(sql, &device, revision).await.map(|()| true),
        None => Ok(false),
    }
}

/// Those that this is about are not put back, whatever becomes of their successors.
pub(crate) async fn forget(sql: &mut AnyConnection, id: &str) -> Result<(), StoreError> {
    let query = "UPDATE sessions SET preshared_key = NULL WHERE id = $1 AND state = 'replaced'";
    sqlx::query(query).bind(id).execute(sql).await?;
    Ok(())
}

/// The same for all of a location.
pub(crate) async fn forget_of_location(
    sql: &mut AnyConnection,
    location_id: &str,
) -> Result<(), StoreError> {
    let query = "UPDATE sessions SET preshared_key = NULL
         WHERE location_id = $1 AND state = 'replaced' AND preshared_key IS NOT NULL";
    sqlx::query(query).bind(location_id).execute(sql).await?;
    Ok(())
}

/// When nobody waits any more for the next one that is not settled, and which one that is.
pub(crate) async fn next_unsettled(
    sql: &mut AnyConnection,
) -> Result<Option<(String, i64)>, StoreError> {
    let query = "SELECT id, settles_ms FROM sessions WHERE replaces <> ''
         ORDER BY settles_ms LIMIT 1";
    Ok(sqlx::query_as(query).fetch_optional(sql).await?)
}
