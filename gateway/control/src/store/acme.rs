//! Accounts, certificates and challenges of ACME. Account keys and private keys are sealed.

use sqlx::AnyConnection;

use super::StoreError;

/// What there is of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Row {
    pub(crate) chain: String,
    pub(crate) private_key: String,
    pub(crate) next_ms: i64,
    pub(crate) failures: i64,
    pub(crate) problem: String,
    pub(crate) lease_until_ms: i64,
}

/// Whose certificate, by which CA.
#[derive(Clone, Copy)]
pub(crate) struct Whose<'a> {
    pub(crate) name: &'a str,
    pub(crate) directory: &'a str,
}

/// When what a row says is over. What lies beyond the latest was noted by a clock that was set years ahead,
/// and must not keep a certificate from being renewed until then.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) now_ms: i64,
    pub(crate) latest_lease_ms: i64,
    /// After a failure. Without one, what is next is by the certificate, and ends with it.
    pub(crate) latest_retry_ms: i64,
}

impl Times {
    /// Whether an order is due, and nobody is at it. The same as the condition in [`lease`].
    pub(crate) fn are_over(self, row: &Row) -> bool {
        let is_due =
            row.next_ms <= self.now_ms || (row.failures > 0 && row.next_ms > self.latest_retry_ms);
        let until_ms = row.lease_until_ms;
        is_due && (until_ms <= self.now_ms || until_ms > self.latest_lease_ms)
    }
}

pub(crate) async fn find(
    sql: &mut AnyConnection,
    whose: Whose<'_>,
) -> Result<Option<Row>, StoreError> {
    let query = "SELECT chain, private_key, next_ms, failures, problem, lease_until_ms
        FROM acme_certificates WHERE name = $1 AND directory = $2";
    Ok(sqlx::query_as(query)
        .bind(whose.name)
        .bind(whose.directory)
        .fetch_optional(sql)
        .await?)
}

/// Takes the right to order, where that is due and nobody has it, and counts the attempt as failed until
/// it has succeeded: a process that dies in the middle is no way around the limits. Answers how many have
/// failed with this one, or `None`.
pub(crate) async fn lease(
    sql: &mut AnyConnection,
    whose: Whose<'_>,
    holder: &str,
    times: Times,
    until_ms: i64,
) -> Result<Option<i64>, StoreError> {
    sqlx::query(
        "INSERT INTO acme_certificates (name, directory) VALUES ($1, $2) ON CONFLICT DO NOTHING",
    )
    .bind(whose.name)
    .bind(whose.directory)
    .execute(&mut *sql)
    .await?;
    let query = "UPDATE acme_certificates SET holder = $3, lease_until_ms = $5,
        failures = failures + 1, problem = 'the last attempt was broken off'
        WHERE name = $1 AND directory = $2
            AND (next_ms <= $4 OR (failures > 0 AND next_ms > $7))
            AND (lease_until_ms <= $4 OR lease_until_ms > $6)
        RETURNING failures";
    Ok(sqlx::query_scalar(query)
        .bind(whose.name)
        .bind(whose.directory)
        .bind(holder)
        .bind(times.now_ms)
        .bind(until_ms)
        .bind(times.latest_lease_ms)
        .bind(times.latest_retry_ms)
        .fetch_optional(sql)
        .await?)
}

/// When the next attempt may be made, unless this one succeeds.
pub(crate) async fn put_off(
    sql: &mut AnyConnection,
    whose: Whose<'_>,
    next_ms: i64,
) -> Result<(), StoreError> {
    let query = "UPDATE acme_certificates SET next_ms = $3 WHERE name = $1 AND directory = $2";
    sqlx::query(query)
        .bind(whose.name)
        .bind(whose.directory)
        .bind(next_ms)
        .execute(sql)
        .await?;
    Ok(())
}

/// Gives the right back after a failure. False where it was lost.
pub(crate) async fn fail(
    sql: &mut AnyConnection,
    whose: Whose<'_>,
    holder: &str,
    problem: &str,
) -> Result<bool, StoreError> {
    let query = "UPDATE acme_certificates SET holder = '', lease_until_ms = 0, problem = $4
        WHERE name = $1 AND directory = $2 AND holder = $3";
    let failed = sqlx::query(query)
        .bind(whose.name)
        .bind(whose.directory)
        .bind(holder)
        .bind(problem)
        .execute(sql)
        .await?;
    Ok(failed.rows_affected() == 1)
}

/// Writes a certificate down and gives the right back. False where it was lost.
pub(crate) async fn succeed(
    sql: &mut AnyConnection,
    whose: Whose<'_>,
    holder: &str,
    (chain, sealed_key): (&str, &str),
    next_ms: i64,
) -> Result<bool, StoreError> {
    let query = "UPDATE acme_certificates SET holder = '', lease_until_ms = 0, problem = '',
        failures = 0, chain = $4, private_key = $5, next_ms = $6
        WHERE name = $1 AND directory = $2 AND holder = $3";
    let saved = sqlx::query(query)
        .bind(whose.name)
        .bind(whose.directory)
        .bind(holder)
        .bind(chain)
        .bind(sealed_key)
        .bind(next_ms)
        .execute(sql)
        .await?;
    Ok(saved.rows_affected() == 1)
}

/// Sealed credentials of the account at a CA.
pub(crate) async fn account(
    sql: &mut AnyConnection,
    directory: &str,
) -> Result<Option<String>, StoreError> {
    let query = "SELECT credentials FROM acme_accounts WHERE directory = $1";
    Ok(sqlx::query_scalar(query)
        .bind(directory)
        .fetch_optional(sql)
        .await?)
}

pub(crate) async fn add_account(
    sql: &mut AnyConnection,
    directory: &str,
    sealed: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    let query = "INSERT INTO acme_accounts (directory, credentials, created_ms)
        VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    sqlx::query(query)
        .bind(directory)
        .bind(sealed)
        .bind(now_ms)
        .execute(sql)
        .await?;
    Ok(())
}

/// For an account that the CA does not know any more.
pub(crate) async fn forget_account(
    sql: &mut AnyConnection,
    directory: &str,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM acme_accounts WHERE directory = $1")
        .bind(directory)
        .execute(sql)
        .await?;
    Ok(())
}

/// Answers that are over go with it.
pub(crate) async fn add_challenge(
    sql: &mut AnyConnection,
    token: &str,
    answer: &str,
    (now_ms, ends_ms): (i64, i64),
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM acme_challenges WHERE ends_ms <= $1 OR token = $2")
        .bind(now_ms)
        .bind(token)
        .execute(&mut *sql)
        .await?;
    sqlx::query("INSERT INTO acme_challenges (token, answer, ends_ms) VALUES ($1, $2, $3)")
        .bind(token)
        .bind(answer)
        .bind(ends_ms)
        .execute(sql)
        .await?;
    Ok(())
}

pub(crate) async fn remove_challenge(
    sql: &mut AnyConnection,
    token: &str,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM acme_challenges WHERE token = $1")
        .bind(token)
        .execute(sql)
        .await?;
    Ok(())
}

pub(crate) async fn challenge(
    sql: &mut AnyConnection,
    token: &str,
    now_ms: i64,
) -> Result<Option<String>, StoreError> {
    let query = "SELECT answer FROM acme_challenges WHERE token = $1 AND ends_ms > $2";
    Ok(sqlx::query_scalar(query)
        .bind(token)
        .bind(now_ms)
        .fetch_optional(sql)
        .await?)
}
