//! Logins in progress, and the limits on them. All of it is in the store, so that neither a
//! restart nor a second control process forgets an attempt (invariant 11).

use sqlx::{AnyConnection, Row as _};

use super::StoreError;

/// Wrong attempts (password and code counted together) that cost nothing.
const FREE: i64 = 5;
const FIRST_DELAY_MS: i64 = 30_000;
const LONGEST_DELAY_MS: i64 = 15 * 60_000;

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

/// The answer to wanting to try.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reservation {
    /// Counted as wrong already; see [`give_back`]. Holds until when the next one must wait.
    Granted { delayed_until_ms: i64 },
    /// Not to be evaluated before this time.
    Delayed { until_ms: i64 },
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
    user_id: &str,
    now_ms: i64,
) -> Result<Reservation, StoreError> {
    let (failures, until_ms): (i64, i64) =
        sqlx::query_as("SELECT failures, delayed_until_ms FROM users WHERE id = $1")
            .bind(user_id)
            .fetch_one(&mut *sql)
            .await?;
    if until_ms > now_ms {
        return Ok(Reservation::Delayed { until_ms });
    }
    let failures = failures + 1;
    let delay = delay_ms(failures);
    let delayed_until_ms = if delay == 0 { 0 } else { now_ms + delay };
    sqlx::query("UPDATE users SET failures = $2, delayed_until_ms = $3 WHERE id = $1")
        .bind(user_id)
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

pub(crate) async fn insert(
    sql: &mut AnyConnection,
    id: &str,
    user_id: &str,
    device_id: &str,
    expires_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO login_attempts (id, user_id, device_id, expires_ms) VALUES ($1, $2, $3, $4)",
    )
    .bind(id)
    .bind(user_id)
    .bind(device_id)
    .bind(expires_ms)
    .execute(sql)
    .await?;
    Ok(())
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

/// Spends the attempt and the time step together, and forgets the wrong attempts. False when
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

    #[test]
    fn the_delay_grows_from_the_fifth_wrong_attempt_to_a_quarter_of_an_hour() {
        let delays: Vec<i64> = (1..=11).map(|failures| delay_ms(failures) / 1000).collect();
        assert_eq!(delays, [0, 0, 0, 0, 30, 60, 120, 240, 480, 900, 900]);
        assert_eq!(delay_ms(i64::MAX), LONGEST_DELAY_MS);
    }
}
