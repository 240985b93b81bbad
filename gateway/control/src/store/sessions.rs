//! Sessions.

use std::borrow::Cow;

use portcullis_proto::v1::Level;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{StoreError, successors};
use crate::domain::{DeviceKey, SessionState, level_from_store};
use crate::secrets::TokenHash;

pub(crate) struct SessionRow {
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) device_id: String,
    pub(crate) device: String,
    /// As its user knows it.
    pub(crate) device_called: String,
    pub(crate) location_id: String,
    pub(crate) location: String,
    pub(crate) level: Level,
    pub(crate) state: String,
    pub(crate) authenticated_at_ms: i64,
    pub(crate) deadline_ms: i64,
    pub(crate) idle_timeout_ms: i64,
    pub(crate) last_activity_ms: i64,
    pub(crate) ended_ms: i64,
    pub(crate) ended_by: String,
    /// When an administrator voided factors of the account, on the sessions of the week since: whoever
    /// was first, the account's owner sees it too. Otherwise 0.
    pub(crate) told_reset_ms: i64,
    pub(crate) reset_reason: String,
}

/// A grant.
pub(crate) struct NewSession<'a> {
    pub(crate) id: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) device_id: &'a str,
    pub(crate) location_id: &'a str,
    pub(crate) level: Level,
    pub(crate) authenticated_at_ms: i64,
    pub(crate) deadline_ms: i64,
    pub(crate) idle_timeout_ms: i64,
    /// Sealed. At session-key locations, and nowhere else.
    pub(crate) preshared_key: Option<&'a str>,
}

/// Which live sessions; ids, not names.
#[derive(Clone, Debug)]
pub(crate) enum Selection {
    Session(String),
    Device(String),
    User(String),
    Location(String),
    /// Those at the location whose level is below this one.
    Below(String, Level),
    Everyone,
    /// Those whose deadline lies at or before this time.
    PastDeadline(i64),
}

/// What a live session of a session-key location becomes.
pub(crate) struct Renewal<'a> {
    pub(crate) level: Level,
    pub(crate) authenticated_at_ms: i64,
    pub(crate) deadline_ms: i64,
    pub(crate) idle_timeout_ms: i64,
    /// Sealed.
    pub(crate) key: &'a str,
    /// Mark of the key whose place it takes.
    pub(crate) renews: &'a str,
}

/// How sessions end.
pub(crate) struct Ending<'a> {
    pub(crate) state: SessionState,
    pub(crate) by: &'a str,
}

const SELECT: &str = "
    SELECT s.id, u.name AS user_name, s.device_id, d.name AS device,
        CASE WHEN d.label = '' THEN d.name ELSE d.label END AS device_called, s.location_id,
        l.name AS location, s.level, s.state, s.authenticated_at_ms, s.deadline_ms,
        s.idle_timeout_ms, s.last_activity_ms, s.ended_ms, s.ended_by, u.reset_reason,
        CASE WHEN u.reset_ms > 0 AND s.authenticated_at_ms >= u.reset_ms
                AND s.authenticated_at_ms < u.reset_ms + 7 * 86400000
            THEN u.reset_ms ELSE 0 END AS told_reset_ms
    FROM sessions s
    JOIN users u ON u.id = s.user_id
    JOIN devices d ON d.id = s.device_id
    JOIN locations l ON l.id = s.location_id";

/// Inserts the session and marks its device as changed. The device has no live session.
pub(crate) async fn insert(
    sql: &mut AnyConnection,
    session: &NewSession<'_>,
    revision: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sessions (id, user_id, device_id, location_id, level, state,
            authenticated_at_ms, deadline_ms, idle_timeout_ms, last_activity_ms,
            preshared_key)
         VALUES ($1, $2, $3, $4, $5, 'live', $6, $7, $8, $6, $9)",
    )
    .bind(session.id)
    .bind(session.user_id)
    .bind(session.device_id)
    .bind(session.location_id)
    .bind(i64::from(i32::from(session.level)))
    .bind(session.authenticated_at_ms)
    .bind(session.deadline_ms)
    .bind(session.idle_timeout_ms)
    .bind(session.preshared_key)
    .execute(&mut *sql)
    .await?;
    granted_until(sql, session.location_id, session.deadline_ms).await?;
    touch(sql, session.device_id, revision).await
}

/// Ends the live sessions selected, wipes their keys and marks their devices as changed. Answers their
/// ids.
pub(crate) async fn end(
    sql: &mut AnyConnection,
    selection: &Selection,
    ending: Ending<'_>,
    revision: i64,
    now_ms: i64,
) -> Result<Vec<String>, StoreError> {
    let (condition, key): (Cow<'static, str>, String) = match selection {
        Selection::Session(id) => ("id = $1".into(), id.clone()),
        Selection::Device(id) => ("device_id = $1".into(), id.clone()),
        Selection::User(id) => ("user_id = $1".into(), id.clone()),
        Selection::Location(id) => ("location_id = $1".into(), id.clone()),
        Selection::Below(id, level) => (
            format!("location_id = $1 AND level < {}", i32::from(*level)).into(),
            id.clone(),
        ),
        Selection::Everyone => ("$1 = ''".into(), String::new()),
        Selection::PastDeadline(ms) => ("deadline_ms <= CAST($1 AS BIGINT)".into(), ms.to_string()),
    };
    if let (Selection::Session(id), false) = (selection, ending.state == SessionState::Replaced) {
        successors::forget(&mut *sql, id).await?;
    }
    let mark = sqlx::AssertSqlSafe(format!(
        "UPDATE devices SET revision = $2 WHERE id IN
            (SELECT device_id FROM sessions WHERE state = 'live' AND {condition})"
    ));
    let marked = sqlx::query(mark)
        .bind(&key)
        .bind(revision)
        .execute(&mut *sql)
        .await?;
    if marked.rows_affected() == 0 {
        return Ok(Vec::new());
    }
    let end = sqlx::AssertSqlSafe(format!(
        "UPDATE sessions SET state = $2, ended_ms = $3, ended_by = $4, preshared_key = NULL,
            renews = NULL
         WHERE state = 'live' AND {condition} RETURNING id"
    ));
    Ok(sqlx::query_scalar(end)
        .bind(&key)
        .bind(ending.state.as_str())
        .bind(now_ms)
        .bind(ending.by)
        .fetch_all(sql)
        .await?)
}

/// Cuts the live sessions of a location to a lifetime since their login, and to an idle timeout
/// (0: none), where these are given; none gets longer. Marks their devices as changed, and answers
/// their ids.
pub(crate) async fn shorten(
    sql: &mut AnyConnection,
    location_id: &str,
    lifetime_ms: Option<i64>,
    idle_timeout_ms: Option<i64>,
    revision: i64,
) -> Result<Vec<String>, StoreError> {
    const LONGER: &str = "state = 'live' AND location_id = $1
        AND (deadline_ms - authenticated_at_ms > $2
            OR ($3 > 0 AND (idle_timeout_ms = 0 OR idle_timeout_ms > $3)))";
    let lifetime_ms = lifetime_ms.unwrap_or(i64::MAX);
    let idle_timeout_ms = idle_timeout_ms.unwrap_or(0);
    let mark = sqlx::AssertSqlSafe(format!(
        "UPDATE devices SET revision = $4 WHERE id IN
            (SELECT device_id FROM sessions WHERE {LONGER})"
    ));
    let marked = sqlx::query(mark)
        .bind(location_id)
        .bind(lifetime_ms)
        .bind(idle_timeout_ms)
        .bind(revision)
        .execute(&mut *sql)
        .await?;
    if marked.rows_affected() == 0 {
        return Ok(Vec::new());
    }
    let cut = sqlx::AssertSqlSafe(format!(
        "UPDATE sessions SET
            deadline_ms = CASE WHEN deadline_ms - authenticated_at_ms > $2
                THEN authenticated_at_ms + $2 ELSE deadline_ms END,
            idle_timeout_ms = CASE
                WHEN $3 > 0 AND (idle_timeout_ms = 0 OR idle_timeout_ms > $3)
                THEN $3 ELSE idle_timeout_ms END
         WHERE {LONGER} RETURNING id"
    ));
    Ok(sqlx::query_scalar(cut)
        .bind(location_id)
        .bind(lifetime_ms)
        .bind(idle_timeout_ms)
        .fetch_all(sql)
        .await?)
}

/// Ids of the user's live sessions (an empty device id: on all devices).
pub(crate) async fn live_ids(
    sql: &mut AnyConnection,
    user_id: &str,
    device_id: &str,
) -> Result<Vec<String>, StoreError> {
    let query = "SELECT id FROM sessions
         WHERE user_id = $1 AND ($2 = '' OR device_id = $2) AND state = 'live' ORDER BY id";
    Ok(sqlx::query_scalar(query)
        .bind(user_id)
        .bind(device_id)
        .fetch_all(sql)
        .await?)
}

/// Id of the device's live session.
pub(crate) async fn live_of_device(
    sql: &mut AnyConnection,
    device_id: &str,
    now_ms: i64,
) -> Result<Option<String>, StoreError> {
    let query = "SELECT id FROM sessions
         WHERE device_id = $1 AND state = 'live' AND deadline_ms > $2";
    Ok(sqlx::query_scalar(query)
        .bind(device_id)
        .bind(now_ms)
        .fetch_optional(sql)
        .await?)
}

/// Moves a live session's deadline. False when it is not live.
pub(crate) async fn set_deadline(
    sql: &mut AnyConnection,
    session: &SessionRow,
    deadline_ms: i64,
    revision: i64,
) -> Result<bool, StoreError> {
    let moved =
        sqlx::query("UPDATE sessions SET deadline_ms = $2 WHERE id = $1 AND state = 'live'")
            .bind(&session.id)
            .bind(deadline_ms)
            .execute(&mut *sql)
            .await?;
    granted_until(sql, &session.location_id, deadline_ms).await?;
    touch(sql, &session.device_id, revision).await?;
    Ok(moved.rows_affected() == 1)
}

/// The sealed pre-shared key of a live session.
pub(crate) async fn key_of(
    sql: &mut AnyConnection,
    id: &str,
) -> Result<Option<String>, StoreError> {
    let query = "SELECT preshared_key FROM sessions
         WHERE id = $1 AND state = 'live' AND preshared_key IS NOT NULL";
    Ok(sqlx::query_scalar(query)
        .bind(id)
        .fetch_optional(sql)
        .await?)
}

/// Gives a live session its next key, and what comes with it. False when it is not live, or has another key than
/// this one.
pub(crate) async fn renew(
    sql: &mut AnyConnection,
    session: &SessionRow,
    key: &str,
    renewal: &Renewal<'_>,
    revision: i64,
) -> Result<bool, StoreError> {
    let renewed = sqlx::query(
        "UPDATE sessions SET level = $3, authenticated_at_ms = $4, deadline_ms = $5, idle_timeout_ms = $6,
            preshared_key = $7, renews = $8
         WHERE id = $1 AND state = 'live' AND preshared_key = $2",
    )
    .bind(&session.id)
    .bind(key)
    .bind(i64::from(i32::from(renewal.level)))
    .bind(renewal.authenticated_at_ms)
    .bind(renewal.deadline_ms)
    .bind(renewal.idle_timeout_ms)
    .bind(renewal.key)
    .bind(renewal.renews)
    .execute(&mut *sql)
    .await?;
    if renewed.rows_affected() != 1 {
        return Ok(false);
    }
    granted_until(sql, &session.location_id, renewal.deadline_ms).await?;
    touch(sql, &session.device_id, revision).await?;
    Ok(true)
}

pub(crate) async fn find(
    sql: &mut AnyConnection,
    id: &str,
) -> Result<Option<SessionRow>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!("{SELECT} WHERE s.id = $1"));
    let row = sqlx::query(query).bind(id).fetch_optional(sql).await?;
    row.as_ref().map(parse).transpose()
}

/// Lets the session's device ask for it with this token.
pub(crate) async fn set_token(
    sql: &mut AnyConnection,
    id: &str,
    token: &TokenHash,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE sessions SET token = $2 WHERE id = $1")
        .bind(id)
        .bind(token.as_str())
        .execute(sql)
        .await?;
    Ok(())
}

/// The session that this token is of, live or ended.
pub(crate) async fn find_by_token(
    sql: &mut AnyConnection,
    token: &TokenHash,
) -> Result<Option<SessionRow>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!("{SELECT} WHERE s.token = $1"));
    let row = sqlx::query(query).bind(token.as_str()).fetch_optional(sql);
    row.await?.as_ref().map(parse).transpose()
}

/// The live session of the device with this tunnel address.
pub(crate) async fn find_live_by_address(
    sql: &mut AnyConnection,
    address: &str,
    now_ms: i64,
) -> Result<Option<SessionRow>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!(
        "{SELECT} JOIN device_addresses a ON a.device_id = d.id
         WHERE a.address = $1 AND s.state = 'live' AND s.deadline_ms > $2"
    ));
    let row = sqlx::query(query)
        .bind(address)
        .bind(now_ms)
        .fetch_optional(sql)
        .await?;
    row.as_ref().map(parse).transpose()
}

/// Newest first. An empty user or location id stands for all.
pub(crate) async fn list(
    sql: &mut AnyConnection,
    user_id: &str,
    location_id: &str,
    ended_too: bool,
) -> Result<Vec<SessionRow>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE ($1 = '' OR s.user_id = $1) AND ($2 = '' OR s.location_id = $2)
            AND ($3 = 1 OR s.state = 'live')
         ORDER BY s.authenticated_at_ms DESC, s.id"
    ));
    let rows = sqlx::query(query)
        .bind(user_id)
        .bind(location_id)
        .bind(i64::from(ended_too))
        .fetch_all(sql)
        .await?;
    rows.iter().map(parse).collect()
}

/// Notes activity of the live session of a peer of this location. Never moves backwards.
pub(crate) async fn saw_activity(
    sql: &mut AnyConnection,
    location_id: &str,
    key: DeviceKey,
    at_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE sessions SET last_activity_ms = $3
         WHERE state = 'live' AND last_activity_ms < $3 AND location_id = $2
            AND device_id IN (SELECT id FROM devices WHERE public_key = $1)",
    )
    .bind(key.to_base64())
    .bind(location_id)
    .bind(at_ms)
    .execute(sql)
    .await?;
    Ok(())
}

/// When the next live session's deadline is.
pub(crate) async fn next_deadline(sql: &mut AnyConnection) -> Result<Option<i64>, StoreError> {
    let query = "SELECT MIN(deadline_ms) FROM sessions WHERE state = 'live'";
    Ok(sqlx::query_scalar(query).fetch_one(sql).await?)
}

pub(crate) async fn count_live(sql: &mut AnyConnection) -> Result<i64, StoreError> {
    let query = "SELECT COUNT(*) FROM sessions WHERE state = 'live'";
    Ok(sqlx::query_scalar(query).fetch_one(sql).await?)
}

/// Remembers the latest deadline that gateways of a location may hold, come what may of the session.
async fn granted_until(
    sql: &mut AnyConnection,
    location_id: &str,
    deadline_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE locations SET granted_until_ms = $2 WHERE id = $1 AND granted_until_ms < $2",
    )
    .bind(location_id)
    .bind(deadline_ms)
    .execute(sql)
    .await?;
    Ok(())
}

/// Marks a device as changed.
pub(super) async fn touch(
    sql: &mut AnyConnection,
    device_id: &str,
    revision: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE devices SET revision = $2 WHERE id = $1")
        .bind(device_id)
        .bind(revision)
        .execute(sql)
        .await?;
    Ok(())
}

fn parse(row: &AnyRow) -> Result<SessionRow, StoreError> {
    Ok(SessionRow {
        id: row.try_get("id")?,
        user: row.try_get("user_name")?,
        device_id: row.try_get("device_id")?,
        device: row.try_get("device")?,
        device_called: row.try_get("device_called")?,
        location_id: row.try_get("location_id")?,
        location: row.try_get("location")?,
        level: level_from_store(row.try_get("level")?),
        state: row.try_get("state")?,
        authenticated_at_ms: row.try_get("authenticated_at_ms")?,
        deadline_ms: row.try_get("deadline_ms")?,
        idle_timeout_ms: row.try_get("idle_timeout_ms")?,
        last_activity_ms: row.try_get("last_activity_ms")?,
        ended_ms: row.try_get("ended_ms")?,
        ended_by: row.try_get("ended_by")?,
        told_reset_ms: row.try_get("told_reset_ms")?,
        reset_reason: row.try_get("reset_reason")?,
    })
}
