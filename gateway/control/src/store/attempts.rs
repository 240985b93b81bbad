//! Logins in progress, and the limits on them. All of it is in the store, so that neither a
//! restart nor a second control process forgets an attempt (invariant 11).

use sqlx::{AnyConnection, Row as _};

use super::StoreError;

/// Wrong attempts (password and code counted together) that cost nothing.
const FREE: i64 = 5;
const FIRST_DELAY_MS: i64 = 30_000;
const LONGEST_DELAY_MS: i64 = 15 * 60_000;
/// One record of refused logins per device in this time.
const NOTED_EVERY_MS: i64 = 60_000;

/// A login whose password was right.
pub(crate) struct Attempt {
    pub(crate) user_id: String,
    pub(crate) user: String,
    pub(crate) totp_secret: String,
    pub(crate) disabled: bool,
    pub(crate) device_id: String,
    pub(crate) location_id: String,
    pub(crate) device: String,
}

/// Whose wrong attempts are counted; ids.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counted<'a> {
    User(&'a str),
    /// For names that are not its user's: nobody else's account is touched by them.
    Device(&'a str),
}

impl<'a> Counted<'a> {
    fn parts(self) -> (&'static str, &'a str) {
        match self {
            Self::User(id) => ("users", id),
            Self::Device(id) => ("devices", id),
        }
    }
}

/// The answer to wanting to try.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reservation {
    /// Counted as wrong already; see [`give_back`]. Holds until when the next one must wait.
    Granted { delayed_until_ms: i64 },
    /// Not to be evaluated before this time.
    Delayed {
        until_ms: i64,
        /// The delay was cut short, which is worth committing.
        clamped: bool,
    },
}

/// The delay after so many wrong attempts in a row.
fn delay_ms(failures: i64) -> i64 {
    if failures < FREE {
        return 0;
    }
    let doublings = (failures - FREE).min(10);
    (FIRST_DELAY_MS << doublings).min(LONGEST_DELAY_MS)
}

/// Counts an attempt before it is evaluated: guesses made in parallel are counted one by one, and
/// one that dies half-way stays counted. Call within a write.
pub(crate) async fn reserve(
    sql: &mut AnyConnection,
    counted: Counted<'_>,
    now_ms: i64,
) -> Result<Reservation, StoreError> {
    let (table, id) = counted.parts();
    let select = sqlx::AssertSqlSafe(format!(
        "SELECT failures, delayed_until_ms FROM {table} WHERE id = $1"
    ));
    let (failures, until_ms): (i64, i64) =
        sqlx::query_as(select).bind(id).fetch_one(&mut *sql).await?;
    // A clock that was set back must not turn minutes into years.
    let latest_ms = now_ms.saturating_add(LONGEST_DELAY_MS);
    if until_ms > latest_ms {
        let clamp = sqlx::AssertSqlSafe(format!(
            "UPDATE {table} SET delayed_until_ms = $2 WHERE id = $1"
        ));
        sqlx::query(clamp)
            .bind(id)
            .bind(latest_ms)
            .execute(sql)
            .await?;
        return Ok(Reservation::Delayed {
            until_ms: latest_ms,
            clamped: true,
        });
    }
    if until_ms > now_ms {
        return Ok(Reservation::Delayed {
            until_ms,
            clamped: false,
        });
    }
    let failures = failures + 1;
    let delay = delay_ms(failures);
    let delayed_until_ms = if delay == 0 { 0 } else { now_ms + delay };
    let count = sqlx::AssertSqlSafe(format!(
        "UPDATE {table} SET failures = $2, delayed_until_ms = $3 WHERE id = $1"
    ));
    sqlx::query(count)
        .bind(id)
        .bind(failures)
        .bind(delayed_until_ms)
        .execute(sql)
        .await?;
    Ok(Reservation::Granted { delayed_until_ms })
}

/// Uncounts an attempt whose password was right. The count before it stays: a right password
/// does not buy more guesses of the code.
pub(crate) async fn give_back(
    sql: &mut AnyConnection,
    user_id: &str,
    delayed_until_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE users SET
            failures = CASE WHEN failures > 0 THEN failures - 1 ELSE 0 END,
            delayed_until_ms = CASE
                WHEN failures - 1 < $3 OR delayed_until_ms = $2 THEN 0 ELSE delayed_until_ms END
         WHERE id = $1",
    )
    .bind(user_id)
    .bind(delayed_until_ms)
    .bind(FREE)
    .execute(sql)
    .await?;
    Ok(())
}

/// A login in progress to be written down.
pub(crate) struct NewAttempt<'a> {
    pub(crate) id: &'a str,
    pub(crate) user_id: &'a str,
    /// The stored hash that the password was verified against.
    pub(crate) password: &'a str,
    pub(crate) device_id: &'a str,
    pub(crate) expires_ms: i64,
}

/// False when the user has been disabled or given another password since it was verified, or the
/// device is not the user's any more.
pub(crate) async fn insert(
    sql: &mut AnyConnection,
    attempt: &NewAttempt<'_>,
) -> Result<bool, StoreError> {
    let inserted = sqlx::query(
        "INSERT INTO login_attempts (id, user_id, device_id, expires_ms)
         SELECT $1, u.id, d.id, $4 FROM users u JOIN devices d ON d.user_id = u.id
         WHERE u.id = $2 AND d.id = $3 AND u.password = $5 AND u.disabled = 0",
    )
    .bind(attempt.id)
    .bind(attempt.user_id)
    .bind(attempt.device_id)
    .bind(attempt.expires_ms)
    .bind(attempt.password)
    .execute(sql)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// The attempt, if it is not too old and was begun from this address.
pub(crate) async fn find(
    sql: &mut AnyConnection,
    id: &str,
    address: &str,
    now_ms: i64,
) -> Result<Option<Attempt>, StoreError> {
    let row = sqlx::query(
        "SELECT u.id AS user_id, u.name AS user_name, u.totp_secret, u.disabled,
                d.id AS device_id, d.name AS device, d.location_id
         FROM login_attempts l
         JOIN users u ON u.id = l.user_id
         JOIN devices d ON d.id = l.device_id
         JOIN device_addresses a ON a.device_id = d.id
         WHERE l.id = $1 AND a.address = $2 AND l.expires_ms > $3 AND d.user_id = u.id",
    )
    .bind(id)
    .bind(address)
    .bind(now_ms)
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
    }))
}

/// Spends the attempt and the time step together, and forgets the user's wrong attempts. False when
/// either was spent before, or the user has been disabled since.
pub(crate) async fn complete(
    sql: &mut AnyConnection,
    id: &str,
    user_id: &str,
    step: i64,
) -> Result<bool, StoreError> {
    let spent = sqlx::query("DELETE FROM login_attempts WHERE id = $1")
        .bind(id)
        .execute(&mut *sql)
        .await?
        .rows_affected();
    let accepted = sqlx::query(
        "UPDATE users SET totp_last_step = $2, failures = 0, delayed_until_ms = 0
         WHERE id = $1 AND totp_last_step < $2 AND disabled = 0",
    )
    .bind(user_id)
    .bind(step)
    .execute(sql)
    .await?
    .rows_affected();
    Ok(spent == 1 && accepted == 1)
}

/// Spends the attempt alone, for a login by what needs no time step. False when it was spent before.
pub(crate) async fn spend(
    sql: &mut AnyConnection,
    id: &str,
    user_id: &str,
) -> Result<bool, StoreError> {
    let spent = sqlx::query("DELETE FROM login_attempts WHERE id = $1 AND user_id = $2")
        .bind(id)
        .bind(user_id)
        .execute(sql)
        .await?;
    Ok(spent.rows_affected() == 1)
}

/// Forgets the wrong attempts of a user and of the user's devices.
pub(crate) async fn forgive(sql: &mut AnyConnection, user_id: &str) -> Result<(), StoreError> {
    for statement in [
        "UPDATE users SET failures = 0, delayed_until_ms = 0 WHERE id = $1",
        "UPDATE devices SET failures = 0, delayed_until_ms = 0
         WHERE user_id = $1 AND (failures <> 0 OR delayed_until_ms <> 0)",
    ] {
        sqlx::query(statement)
            .bind(user_id)
            .execute(&mut *sql)
            .await?;
    }
    Ok(())
}

/// Forgets a device's wrong attempts, after a complete login from it.
pub(crate) async fn forgive_device(
    sql: &mut AnyConnection,
    device_id: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE devices SET failures = 0, delayed_until_ms = 0
         WHERE id = $1 AND (failures <> 0 OR delayed_until_ms <> 0)",
    )
    .bind(device_id)
    .execute(sql)
    .await?;
    Ok(())
}

/// Counts a refused login of a device. `Some` with how many there were since the last record when
/// the audit is due another one: a device fills no disk with refusals.
pub(crate) async fn refused(
    sql: &mut AnyConnection,
    device_id: &str,
    now_ms: i64,
) -> Result<Option<i64>, StoreError> {
    let counted: Option<(i64, i64)> =
        sqlx::query_as("SELECT refusals_noted_ms, refusals_unnoted FROM devices WHERE id = $1")
            .bind(device_id)
            .fetch_optional(&mut *sql)
            .await?;
    // Gone in the meantime: then there is nothing to count with, and nothing to hold back.
    let Some((noted_ms, unnoted)) = counted else {
        return Ok(Some(1));
    };
    let due = !(noted_ms..noted_ms.saturating_add(NOTED_EVERY_MS)).contains(&now_ms);
    let (noted_ms, left) = if due {
        (now_ms, 0)
    } else {
        (noted_ms, unnoted + 1)
    };
    sqlx::query("UPDATE devices SET refusals_noted_ms = $2, refusals_unnoted = $3 WHERE id = $1")
        .bind(device_id)
        .bind(noted_ms)
        .bind(left)
        .execute(sql)
        .await?;
    Ok(due.then_some(unnoted + 1))
}

/// Refused logins that no record tells of yet, a while after the last one: user, device, number.
pub(crate) async fn take_unnoted(
    sql: &mut AnyConnection,
    now_ms: i64,
) -> Result<Vec<(String, String, i64)>, StoreError> {
    let found: Vec<(String, String, String, i64)> = sqlx::query_as(
        "SELECT d.id, u.name, d.name, d.refusals_unnoted FROM devices d
         JOIN users u ON u.id = d.user_id
         WHERE d.refusals_unnoted > 0 AND d.refusals_noted_ms <= $1",
    )
    .bind(now_ms.saturating_sub(NOTED_EVERY_MS))
    .fetch_all(&mut *sql)
    .await?;
    let mut unnoted = Vec::new();
    for (id, user, device, count) in found {
        sqlx::query("UPDATE devices SET refusals_unnoted = 0 WHERE id = $1")
            .bind(id)
            .execute(&mut *sql)
            .await?;
        unnoted.push((user, device, count));
    }
    Ok(unnoted)
}

pub(crate) async fn delete_of_user(
    sql: &mut AnyConnection,
    user_id: &str,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM login_attempts WHERE user_id = $1")
        .bind(user_id)
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
        };
        assert!(!insert(write.sql(), &attempt("a", "old")).await.unwrap());
        assert!(insert(write.sql(), &attempt("b", "new")).await.unwrap());
        let disable = "UPDATE users SET disabled = 1";
        sqlx::query(disable).execute(write.sql()).await.unwrap();
        assert!(!insert(write.sql(), &attempt("c", "new")).await.unwrap());
    }

    #[test]
    fn the_delay_grows_from_the_fifth_wrong_attempt_to_a_quarter_of_an_hour() {
        let delays: Vec<i64> = (1..=11).map(|failures| delay_ms(failures) / 1000).collect();
        assert_eq!(delays, [0, 0, 0, 0, 30, 60, 120, 240, 480, 900, 900]);
        assert_eq!(delay_ms(i64::MAX), LONGEST_DELAY_MS);
    }
}
