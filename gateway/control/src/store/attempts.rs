//! Logins in progress, and what each has proven so far.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::StoreError;
use crate::login::{Begun, Proven};

/// A login in progress.
pub(crate) struct Attempt {
    pub(crate) user_id: String,
    pub(crate) user: String,
    pub(crate) totp_secret: String,
    pub(crate) disabled: bool,
    pub(crate) device_id: String,
    pub(crate) location_id: String,
    pub(crate) device: String,
    pub(crate) proven: Proven,
    pub(crate) expires_ms: i64,
    /// The session that it is to renew, where it opens none of its own.
    pub(crate) renews: Option<String>,
}

/// A login in progress to be written down.
pub(crate) struct NewAttempt<'a> {
    pub(crate) id: &'a str,
    pub(crate) user_id: &'a str,
    /// The stored hash that the password was verified against.
    pub(crate) password: &'a str,
    pub(crate) device_id: &'a str,
    pub(crate) expires_ms: i64,
    pub(crate) proven: Proven,
}

/// False when the user has been disabled or given another password since it was verified, or the
/// device is not the user's any more.
pub(crate) async fn insert(
    sql: &mut AnyConnection,
    attempt: &NewAttempt<'_>,
) -> Result<bool, StoreError> {
    let inserted = sqlx::query(
        "INSERT INTO login_attempts
            (id, user_id, device_id, expires_ms, knowledge, possession, webauthn)
         SELECT $1, u.id, d.id, $4, $6, $7, $8 FROM users u JOIN devices d ON d.user_id = u.id
         WHERE u.id = $2 AND d.id = $3 AND u.password = $5 AND u.disabled = 0",
    )
    .bind(attempt.id)
    .bind(attempt.user_id)
    .bind(attempt.device_id)
    .bind(attempt.expires_ms)
    .bind(attempt.password)
    .bind(i64::from(attempt.proven.knowledge))
    .bind(i64::from(attempt.proven.possession))
    .bind(i64::from(attempt.proven.webauthn))
    .execute(sql)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// The attempt, if it is not too old and was begun this way.
pub(crate) async fn find(
    sql: &mut AnyConnection,
    id: &str,
    begun: Begun,
    now_ms: i64,
) -> Result<Option<Attempt>, StoreError> {
    let row = sqlx::query(
        "SELECT u.id AS user_id, u.name AS user_name, u.totp_secret, u.disabled,
                d.id AS device_id, d.name AS device, d.location_id,
                l.knowledge, l.possession, l.webauthn, l.expires_ms, l.renews
         FROM login_attempts l
         JOIN users u ON u.id = l.user_id
         JOIN devices d ON d.id = l.device_id
         JOIN locations p ON p.id = d.location_id
         WHERE l.id = $1 AND l.expires_ms > $2 AND d.user_id = u.id AND p.mode = $3
            AND ($4 = '' OR EXISTS
                (SELECT 1 FROM device_addresses a WHERE a.device_id = d.id AND a.address = $4))",
    )
    .bind(id)
    .bind(now_ms)
    .bind(begun.mode().as_str())
    .bind(begun.address().unwrap_or_default())
    .fetch_optional(sql)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Attempt {
        user_id: row.try_get("user_id")?,
        user: row.try_get("user_name")?,
        totp_secret: row.try_get("totp_secret")?,
        disabled: row.try_get::<i64, _>("disabled")? != 0,
        device_id: row.try_get("device_id")?,
        location_id: row.try_get("location_id")?,
        device: row.try_get("device")?,
        proven: parse_proven(&row)?,
        expires_ms: row.try_get("expires_ms")?,
        renews: Some(row.try_get("renews")?).filter(|id: &String| !id.is_empty()),
    }))
}

/// What a login has proven, and until when it may go on. `None` when it is over, or its user is
/// disabled. Call within a write: nobody else then is at it.
pub(crate) async fn current(
    sql: &mut AnyConnection,
    id: &str,
    now_ms: i64,
) -> Result<Option<(Proven, i64)>, StoreError> {
    let row = sqlx::query(
        "SELECT l.knowledge, l.possession, l.webauthn, l.expires_ms
         FROM login_attempts l JOIN users u ON u.id = l.user_id
         WHERE l.id = $1 AND l.expires_ms > $2 AND u.disabled = 0",
    )
    .bind(id)
    .bind(now_ms)
    .fetch_optional(sql)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some((parse_proven(&row)?, row.try_get("expires_ms")?)))
}

/// Lets a login renew this session in place of opening one.
pub(crate) async fn set_renews(
    sql: &mut AnyConnection,
    id: &str,
    session: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE login_attempts SET renews = $2 WHERE id = $1")
        .bind(id)
        .bind(session)
        .execute(sql)
        .await?;
    Ok(())
}

/// Writes down what a login has proven.
pub(crate) async fn set_proven(
    sql: &mut AnyConnection,
    id: &str,
    proven: Proven,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE login_attempts SET knowledge = $2, possession = $3, webauthn = $4 WHERE id = $1",
    )
    .bind(id)
    .bind(i64::from(proven.knowledge))
    .bind(i64::from(proven.possession))
    .bind(i64::from(proven.webauthn))
    .execute(sql)
    .await?;
    Ok(())
}

/// Spends a time step of the user's authenticator, and all before it. False when it was spent before.
pub(crate) async fn spend_step(
    sql: &mut AnyConnection,
    user_id: &str,
    step: i64,
) -> Result<bool, StoreError> {
    let spent =
        sqlx::query("UPDATE users SET totp_last_step = $2 WHERE id = $1 AND totp_last_step < $2")
            .bind(user_id)
            .bind(step)
            .execute(sql)
            .await?;
    Ok(spent.rows_affected() == 1)
}

/// Spends the login itself, and forgets the user's wrong attempts. False when it was spent before, or
/// the user has been disabled since.
pub(crate) async fn complete(
    sql: &mut AnyConnection,
    id: &str,
    user_id: &str,
) -> Result<bool, StoreError> {
    let spent = sqlx::query("DELETE FROM login_attempts WHERE id = $1")
        .bind(id)
        .execute(&mut *sql)
        .await?
        .rows_affected();
    let accepted = sqlx::query(
        "UPDATE users SET failures = 0, delayed_until_ms = 0 WHERE id = $1 AND disabled = 0",
    )
    .bind(user_id)
    .execute(sql)
    .await?
    .rows_affected();
    Ok(spent == 1 && accepted == 1)
}

/// Logins of the user in progress, in the tunnel and outside of it, and what waits for their phone.
pub(crate) async fn delete_of_user(
    sql: &mut AnyConnection,
    user_id: &str,
) -> Result<(), StoreError> {
    for statement in [
        "DELETE FROM login_attempts WHERE user_id = $1",
        "DELETE FROM outside_attempts WHERE user_id = $1",
        "DELETE FROM approvals WHERE user_id = $1",
    ] {
        sqlx::query(statement)
            .bind(user_id)
            .execute(&mut *sql)
            .await?;
    }
    Ok(())
}

/// Logins in progress at a location.
pub(crate) async fn delete_of_location(
    sql: &mut AnyConnection,
    location_id: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM login_attempts
         WHERE device_id IN (SELECT id FROM devices WHERE location_id = $1)",
    )
    .bind(location_id)
    .execute(sql)
    .await?;
    Ok(())
}

pub(crate) async fn delete_expired(sql: &mut AnyConnection, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM login_attempts WHERE expires_ms <= $1")
        .bind(now_ms)
        .execute(sql)
        .await?;
    Ok(())
}

fn parse_proven(row: &AnyRow) -> Result<Proven, StoreError> {
    let proven = |column| Ok::<_, StoreError>(row.try_get::<i64, _>(column)? == 1);
    Ok(Proven {
        knowledge: proven("knowledge")?,
        possession: proven("possession")?,
        webauthn: proven("webauthn")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The password may be replaced while it is being verified.
    #[tokio::test]
    async fn a_login_does_not_begin_with_a_password_that_was_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/store.db", dir.path().display());
        let store = crate::store::Store::open(&url).await.unwrap();
        let mut write = store.record(0).await.unwrap();
        for statement in [
            "INSERT INTO users (id, name, password, totp_secret, created_ms)
             VALUES ('u', 'u', 'new', '', 0)",
            "INSERT INTO locations (id, name, pools, endpoint, listen_port, mtu, routes, dns,
                portal_port, portals, session_lifetime_ms, idle_timeout_ms, persistent_keepalive_s,
                created_ms, revision)
             VALUES ('l', 'l', '[]', '', 1, 1, '[]', '[]', 1, '[]', 1, 0, 0, 0, 0)",
            "INSERT INTO devices (id, name, user_id, location_id, public_key, revision, created_ms)
             VALUES ('d', 'd', 'u', 'l', '', 0, 0)",
        ] {
            sqlx::query(statement).execute(write.sql()).await.unwrap();
        }
        let attempt = |id, password| NewAttempt {
            id,
            user_id: "u",
            password,
            device_id: "d",
            expires_ms: 1,
            proven: Proven::default(),
        };
        assert!(!insert(write.sql(), &attempt("a", "old")).await.unwrap());
        assert!(insert(write.sql(), &attempt("b", "new")).await.unwrap());
        let disable = "UPDATE users SET disabled = 1";
        sqlx::query(disable).execute(write.sql()).await.unwrap();
        assert!(!insert(write.sql(), &attempt("c", "new")).await.unwrap());
    }
}
