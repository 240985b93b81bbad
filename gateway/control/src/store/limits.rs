//! The limits on logins. All of it is in the store, so that neither a restart nor a second control
//! process forgets an attempt (invariant 11). NIST SP 800-63B-4, 3.2.2; OWASP ASVS 5, 6.1.1 and 6.3.1.

use sqlx::AnyConnection;

use super::StoreError;

/// Wrong attempts (password and code counted together) that cost nothing.
const FREE: i64 = 5;
const FIRST_DELAY_MS: i64 = 30_000;
const LONGEST_DELAY_MS: i64 = 15 * 60_000;
/// One record of refused logins per device in this time.
const NOTED_EVERY_MS: i64 = 60_000;

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
    delay_after(failures, FREE, LONGEST_DELAY_MS)
}

/// The same where so many cost nothing, and no delay is longer than this.
pub(super) fn delay_after(failures: i64, free: i64, longest_ms: i64) -> i64 {
    if failures < free {
        return 0;
    }
    let doublings = (failures - free).min(10);
    (FIRST_DELAY_MS << doublings).min(longest_ms)
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

/// Uncounts an attempt whose factor was right. The count before it stays: a right password
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

/// What users may change of their own accounts (devices, passkeys, factors): so many at once, then one in
/// each such time. Each costs a commit, a record, and most a revision that gateways hear of.
pub(crate) const CHANGES: i64 = 30;
const CHANGE_EVERY_MS: i64 = 2 * 60_000;

/// Takes one of the account's share of changes. `Some` where there is none left: how long until there is.
/// Call within the write of the change: one that is refused costs nothing.
pub(crate) async fn take_change(
    sql: &mut AnyConnection,
    user_id: &str,
    now_ms: i64,
) -> Result<Option<i64>, StoreError> {
    let query = "SELECT changes_free_ms FROM users WHERE id = $1";
    let free_ms: i64 = sqlx::query_scalar(query)
        .bind(user_id)
        .fetch_one(&mut *sql)
        .await?;
    let latest_ms = now_ms.saturating_add(CHANGES * CHANGE_EVERY_MS);
    // A clock that was set back must not turn minutes into years.
    let free_ms = if free_ms > latest_ms { now_ms } else { free_ms };
    let next_ms = free_ms.max(now_ms) + CHANGE_EVERY_MS;
    if next_ms > latest_ms {
        return Ok(Some(next_ms - latest_ms));
    }
    sqlx::query("UPDATE users SET changes_free_ms = $2 WHERE id = $1")
        .bind(user_id)
        .bind(next_ms)
        .execute(sql)
        .await?;
    Ok(None)
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
