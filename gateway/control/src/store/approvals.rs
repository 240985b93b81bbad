//! Logins that wait for their user's phone.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::StoreError;
use crate::secrets::TokenHash;

/// An approval to be written down.
pub(crate) struct NewApproval<'a> {
    pub(crate) id: &'a TokenHash,
    pub(crate) attempt: &'a TokenHash,
    pub(crate) place: &'static str,
    pub(crate) user_id: &'a str,
    pub(crate) seed: &'a str,
    pub(crate) number: i64,
    pub(crate) network: &'a str,
    /// JSON; empty: a phone is asked.
    pub(crate) back_to: &'a str,
    pub(crate) begun_ms: i64,
    pub(crate) expires_ms: i64,
}

/// What its computer is told of.
pub(crate) struct AskedRow {
    pub(crate) seed: String,
    pub(crate) number: i64,
    pub(crate) network: String,
    pub(crate) state: String,
    pub(crate) expires_ms: i64,
}

/// One that a phone may still answer.
pub(crate) struct WaitingRow {
    pub(crate) place: String,
    pub(crate) user_id: String,
    pub(crate) user: String,
    pub(crate) number: i64,
    pub(crate) network: String,
    /// Sealed; empty: no passkey is waited for.
    pub(crate) ceremony: String,
    /// JSON; empty: it is a phone's.
    pub(crate) back_to: String,
    pub(crate) begun_ms: i64,
    pub(crate) expires_ms: i64,
    /// The device, by its id and name, where the login names one.
    pub(crate) device: Option<(String, String)>,
}

/// Writes one down, in place of an older one of the same login.
pub(crate) async fn insert(
    sql: &mut AnyConnection,
    approval: &NewApproval<'_>,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM approvals WHERE attempt_id = $1 OR expires_ms <= $2")
        .bind(approval.attempt.as_str())
        .bind(approval.begun_ms)
        .execute(&mut *sql)
        .await?;
    sqlx::query(
        "INSERT INTO approvals
            (id, attempt_id, place, user_id, seed, number, network, begun_ms, expires_ms, back_to)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(approval.id.as_str())
    .bind(approval.attempt.as_str())
    .bind(approval.place)
    .bind(approval.user_id)
    .bind(approval.seed)
    .bind(approval.number)
    .bind(approval.network)
    .bind(approval.begun_ms)
    .bind(approval.expires_ms)
    .bind(approval.back_to)
    .execute(sql)
    .await?;
    Ok(())
}

/// How many of a user's wait that were asked for in this way, by other logins than this one, and when the first
/// of them ends.
pub(crate) async fn others_waiting(
    sql: &mut AnyConnection,
    user_id: &str,
    place: &str,
    attempt: &TokenHash,
    now_ms: i64,
) -> Result<(i64, Option<i64>), StoreError> {
    let query = "SELECT COUNT(*), MIN(expires_ms) FROM approvals
         WHERE user_id = $1 AND place = $2 AND attempt_id <> $3 AND expires_ms > $4
            AND state = 'waiting'";
    Ok(sqlx::query_as(query)
        .bind(user_id)
        .bind(place)
        .bind(attempt.as_str())
        .bind(now_ms)
        .fetch_one(sql)
        .await?)
}

/// The one of a login, answered or not, if it is not too old.
pub(crate) async fn of_attempt(
    sql: &mut AnyConnection,
    attempt: &TokenHash,
    now_ms: i64,
) -> Result<Option<AskedRow>, StoreError> {
    let query = "SELECT seed, number, network, state, expires_ms FROM approvals
         WHERE attempt_id = $1 AND expires_ms > $2";
    let row = sqlx::query(query)
        .bind(attempt.as_str())
        .bind(now_ms)
        .fetch_optional(sql)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(AskedRow {
        seed: row.try_get("seed")?,
        number: row.try_get("number")?,
        network: row.try_get("network")?,
        state: row.try_get("state")?,
        expires_ms: row.try_get("expires_ms")?,
    }))
}

/// The one with this token, if it waits, and its login does, and its user is not disabled.
pub(crate) async fn waiting(
    sql: &mut AnyConnection,
    id: &TokenHash,
    now_ms: i64,
) -> Result<Option<WaitingRow>, StoreError> {
    let row = sqlx::query(
        "SELECT a.place, a.user_id, u.name AS user_name, a.number, a.network, a.ceremony,
                a.back_to, a.begun_ms, a.expires_ms, d.id AS device_id, d.name AS device
         FROM approvals a
         JOIN users u ON u.id = a.user_id
         LEFT JOIN login_attempts l ON l.id = a.attempt_id AND l.user_id = a.user_id
         LEFT JOIN devices d ON d.id = l.device_id AND d.user_id = a.user_id
         LEFT JOIN outside_attempts o
            ON o.id = a.attempt_id AND o.user_id = a.user_id AND o.second = ''
         WHERE a.id = $1 AND a.state = 'waiting' AND a.expires_ms > $2 AND u.disabled = 0
            AND ((a.place <> 'outside' AND l.expires_ms > $2 AND d.id IS NOT NULL)
                OR (a.place = 'outside' AND o.expires_ms > $2))",
    )
    .bind(id.as_str())
    .bind(now_ms)
    .fetch_optional(sql)
    .await?;
    row.as_ref().map(parse).transpose()
}

fn parse(row: &AnyRow) -> Result<WaitingRow, StoreError> {
    let device_id: Option<String> = row.try_get("device_id")?;
    let device: Option<String> = row.try_get("device")?;
    Ok(WaitingRow {
        place: row.try_get("place")?,
        user_id: row.try_get("user_id")?,
        user: row.try_get("user_name")?,
        number: row.try_get("number")?,
        network: row.try_get("network")?,
        ceremony: row.try_get("ceremony")?,
        back_to: row.try_get("back_to")?,
        begun_ms: row.try_get("begun_ms")?,
        expires_ms: row.try_get("expires_ms")?,
        device: device_id.zip(device),
    })
}

/// The challenge that waits now, in place of another one; empty: none.
pub(crate) async fn set_ceremony(
    sql: &mut AnyConnection,
    id: &TokenHash,
    ceremony: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE approvals SET ceremony = $2 WHERE id = $1")
        .bind(id.as_str())
        .bind(ceremony)
        .execute(sql)
        .await?;
    Ok(())
}

/// Writes the answer down, with the hash of what has to be presented for it. False when there was one before, or
/// it comes too late.
pub(crate) async fn answer(
    sql: &mut AnyConnection,
    id: &TokenHash,
    state: &str,
    code: Option<&TokenHash>,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let query = "UPDATE approvals SET state = $2, ceremony = '', code = $4
         WHERE id = $1 AND state = 'waiting' AND expires_ms > $3";
    let answered = sqlx::query(query)
        .bind(id.as_str())
        .bind(state)
        .bind(now_ms)
        .bind(code.map_or("", TokenHash::as_str))
        .execute(sql)
        .await?;
    Ok(answered.rows_affected() == 1)
}

/// Spends what was approved: by a phone, or by the browser that has brought this code. False when it was not, or not
/// what was asked for from this network, or somebody has spent it.
pub(crate) async fn take(
    sql: &mut AnyConnection,
    attempt: &TokenHash,
    network: &str,
    code: Option<&TokenHash>,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let query = "DELETE FROM approvals
         WHERE attempt_id = $1 AND network = $2 AND state = 'approved' AND expires_ms > $3
            AND code = $4";
    let taken = sqlx::query(query)
        .bind(attempt.as_str())
        .bind(network)
        .bind(now_ms)
        .bind(code.map_or("", TokenHash::as_str))
        .execute(sql)
        .await?;
    Ok(taken.rows_affected() == 1)
}

pub(crate) async fn delete_expired(sql: &mut AnyConnection, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM approvals WHERE expires_ms <= $1")
        .bind(now_ms)
        .execute(sql)
        .await?;
    Ok(())
}
