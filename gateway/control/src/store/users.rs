//! Users and their groups.

use std::collections::HashMap;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{StoreError, can_be_named};
use crate::domain::Role;

pub(crate) struct UserRow {
    pub(crate) id: String,
    pub(crate) name: String,
    /// argon2id, PHC string.
    pub(crate) password: String,
    /// Sealed.
    pub(crate) totp_secret: String,
    pub(crate) disabled: bool,
    pub(crate) created_ms: i64,
    pub(crate) devices: i64,
    pub(crate) live_sessions: i64,
    /// Unused ones.
    pub(crate) recovery_codes: i64,
    pub(crate) role: Role,
    /// 0: invited, and not enrolled yet. Such an account has no factors.
    pub(crate) enrolled_ms: i64,
    /// 0: never.
    pub(crate) reset_ms: i64,
    pub(crate) reset_reason: String,
}

const SELECT: &str = "
    SELECT u.id, u.name, u.password, u.totp_secret, u.disabled, u.created_ms,
        u.role, u.enrolled_ms, u.reset_ms, u.reset_reason,
        (SELECT COUNT(*) FROM devices d WHERE d.user_id = u.id) AS devices,
        (SELECT COUNT(*) FROM sessions s WHERE s.user_id = u.id AND s.state = 'live') AS live,
        (SELECT COUNT(*) FROM recovery_codes r WHERE r.user_id = u.id) AS recovery_codes
    FROM users u";

pub(crate) async fn insert(sql: &mut AnyConnection, user: &UserRow) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO users
            (id, name, password, totp_secret, created_ms, role, enrolled_ms, password_ms, totp_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&user.id)
    .bind(&user.name)
    .bind(&user.password)
    .bind(&user.totp_secret)
    .bind(user.created_ms)
    .bind(user.role.as_str())
    .bind(user.enrolled_ms)
    .bind(since(&user.password, user.created_ms))
    .bind(since(&user.totp_secret, user.created_ms))
    .execute(sql)
    .await?;
    Ok(())
}

/// Since when there is a factor; 0 where there is none.
fn since(factor: &str, now_ms: i64) -> i64 {
    if factor.is_empty() { 0 } else { now_ms }
}

pub(crate) async fn add_group(
    sql: &mut AnyConnection,
    user_id: &str,
    group: &str,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO user_groups (user_id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(user_id)
        .bind(group)
        .execute(sql)
        .await?;
    Ok(())
}

pub(crate) async fn remove_group(
    sql: &mut AnyConnection,
    user_id: &str,
    group: &str,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM user_groups WHERE user_id = $1 AND name = $2")
        .bind(user_id)
        .bind(group)
        .execute(sql)
        .await?;
    Ok(())
}

/// Takes the user out of every group.
pub(crate) async fn leave_groups(sql: &mut AnyConnection, user_id: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM user_groups WHERE user_id = $1")
        .bind(user_id)
        .execute(sql)
        .await?;
    Ok(())
}

/// By name or id.
pub(crate) async fn find(
    sql: &mut AnyConnection,
    name_or_id: &str,
) -> Result<Option<UserRow>, StoreError> {
    if !can_be_named(name_or_id) {
        return Ok(None);
    }
    let query = sqlx::AssertSqlSafe(format!("{SELECT} WHERE u.name = $1 OR u.id = $1"));
    let row = sqlx::query(query)
        .bind(name_or_id)
        .fetch_optional(sql)
        .await?;
    row.as_ref().map(parse).transpose()
}

pub(crate) async fn list(sql: &mut AnyConnection) -> Result<Vec<UserRow>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY u.name"));
    let rows = sqlx::query(query).fetch_all(sql).await?;
    rows.iter().map(parse).collect()
}

/// The groups of every user, by user id, in order: those that an administrator gave, and those that a
/// provider told of at the last login.
pub(crate) async fn groups(
    sql: &mut AnyConnection,
) -> Result<HashMap<String, Vec<String>>, StoreError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT user_id, name FROM user_groups UNION SELECT user_id, name FROM sso_groups
             ORDER BY user_id, name",
    )
    .fetch_all(sql)
    .await?;
    let mut groups: HashMap<String, Vec<String>> = HashMap::new();
    for (user, group) in rows {
        groups.entry(user).or_default().push(group);
    }
    Ok(groups)
}

/// With everything that is the user's: devices, sessions, attempts.
pub(crate) async fn delete(sql: &mut AnyConnection, id: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM users WHERE id = $1")
        .bind(id)
        .execute(sql)
        .await?;
    Ok(())
}

pub(crate) async fn set_disabled(
    sql: &mut AnyConnection,
    id: &str,
    disabled: bool,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET disabled = $2 WHERE id = $1")
        .bind(id)
        .bind(i64::from(disabled))
        .execute(sql)
        .await?;
    Ok(())
}

/// An empty one voids it.
pub(crate) async fn set_password(
    sql: &mut AnyConnection,
    id: &str,
    password: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE users SET password = $2, password_ms = $3 WHERE id = $1")
        .bind(id)
        .bind(password)
        .bind(since(password, now_ms))
        .execute(sql)
        .await?;
    Ok(())
}

/// A new seed, for which no step is spent yet.
pub(crate) async fn set_totp_secret(
    sql: &mut AnyConnection,
    id: &str,
    sealed: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE users SET totp_secret = $2, totp_last_step = 0, totp_ms = $3 WHERE id = $1",
    )
    .bind(id)
    .bind(sealed)
    .bind(now_ms)
    .execute(sql)
    .await?;
    Ok(())
}

pub(crate) async fn count(sql: &mut AnyConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT COUNT(*) FROM users")
        .fetch_one(sql)
        .await?)
}

fn parse(row: &AnyRow) -> Result<UserRow, StoreError> {
    Ok(UserRow {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        password: row.try_get("password")?,
        totp_secret: row.try_get("totp_secret")?,
        disabled: row.try_get::<i64, _>("disabled")? != 0,
        created_ms: row.try_get("created_ms")?,
        devices: row.try_get("devices")?,
        live_sessions: row.try_get("live")?,
        recovery_codes: row.try_get("recovery_codes")?,
        role: Role::parse(&row.try_get::<String, _>("role")?)
            .map_err(|_| StoreError::Value("role"))?,
        enrolled_ms: row.try_get("enrolled_ms")?,
        reset_ms: row.try_get("reset_ms")?,
        reset_reason: row.try_get("reset_reason")?,
    })
}
