//! Links to enrol by, and the enrolments that were begun with them.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{StoreError, newcomers};

/// A link to be written down.
pub(crate) struct NewLink<'a> {
    /// The hash of its token.
    pub(crate) id: &'a str,
    pub(crate) user_id: &'a str,
    /// Where the first device may be added; empty: nowhere.
    pub(crate) location_id: &'a str,
    /// Good only until some account has enrolled.
    pub(crate) first_admin: bool,
    pub(crate) created_ms: i64,
    pub(crate) expires_ms: i64,
}

/// A link that is good now.
pub(crate) struct Link {
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) expires_ms: i64,
}

/// An enrolment in progress, by a link that is good now.
pub(crate) struct Enrolment {
    pub(crate) id: String,
    pub(crate) link_id: String,
    pub(crate) user_id: String,
    pub(crate) user: String,
    /// argon2id; empty as long as none is chosen.
    pub(crate) password: String,
    /// Sealed.
    pub(crate) totp_secret: String,
    pub(crate) expires_ms: i64,
    /// Where the first device may be added; empty: nowhere.
    pub(crate) location_id: String,
    pub(crate) first_admin: bool,
}

/// What makes a link good, `l`, of the account `u`, at the time `$2`. What was tried with it too often
/// is not: `$3`.
const GOOD: &str = "l.expires_ms > $2 AND l.tries <= $3 AND u.disabled = 0
    AND (l.first_admin = 0 OR NOT EXISTS (SELECT 1 FROM users e WHERE e.enrolled_ms > 0))";

/// In place of any other link of the account, whose enrolments end with it.
pub(crate) async fn replace_link(
    sql: &mut AnyConnection,
    link: &NewLink<'_>,
) -> Result<(), StoreError> {
    void(sql, link.user_id).await?;
    sqlx::query(
        "INSERT INTO enrolment_links (id, user_id, location_id, first_admin, created_ms, expires_ms)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(link.id)
    .bind(link.user_id)
    .bind(link.location_id)
    .bind(i64::from(link.first_admin))
    .bind(link.created_ms)
    .bind(link.expires_ms)
    .execute(sql)
    .await?;
    Ok(())
}

/// Voids the account's link, with the enrolments begun by it and what one that is finished still allows.
/// Answers whether there was a link.
pub(crate) async fn void(sql: &mut AnyConnection, user_id: &str) -> Result<bool, StoreError> {
    let voided = sqlx::query("DELETE FROM enrolment_links WHERE user_id = $1")
        .bind(user_id)
        .execute(&mut *sql)
        .await?;
    newcomers::delete_of_user(sql, user_id).await?;
    Ok(voided.rows_affected() > 0)
}

/// The link, if it is good.
pub(crate) async fn find_link(
    sql: &mut AnyConnection,
    id: &str,
    now_ms: i64,
    most_tries: i64,
) -> Result<Option<Link>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!(
        "SELECT l.id, u.name AS user_name, l.expires_ms
         FROM enrolment_links l JOIN users u ON u.id = l.user_id WHERE l.id = $1 AND {GOOD}"
    ));
    let row = sqlx::query(query)
        .bind(id)
        .bind(now_ms)
        .bind(most_tries)
        .fetch_optional(sql)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Link {
        id: row.try_get("id")?,
        user: row.try_get("user_name")?,
        expires_ms: row.try_get("expires_ms")?,
    }))
}

/// Counts something that is tried with a link. Call within a write, before it is looked at.
pub(crate) async fn count_try(sql: &mut AnyConnection, link_id: &str) -> Result<(), StoreError> {
    sqlx::query("UPDATE enrolment_links SET tries = tries + 1 WHERE id = $1")
        .bind(link_id)
        .execute(sql)
        .await?;
    Ok(())
}

pub(crate) async fn insert(
    sql: &mut AnyConnection,
    id: &str,
    link_id: &str,
    totp_secret: &str,
    expires_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO enrolments (id, link_id, totp_secret, expires_ms) VALUES ($1, $2, $3, $4)",
    )
    .bind(id)
    .bind(link_id)
    .bind(totp_secret)
    .bind(expires_ms)
    .execute(sql)
    .await?;
    Ok(())
}

/// The enrolment, if it is not too old and its link is good.
pub(crate) async fn find(
    sql: &mut AnyConnection,
    id: &str,
    now_ms: i64,
    most_tries: i64,
) -> Result<Option<Enrolment>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!(
        "SELECT n.id, n.link_id, l.user_id, u.name AS user_name, n.password, n.totp_secret,
                n.expires_ms, l.location_id, l.first_admin
         FROM enrolments n
         JOIN enrolment_links l ON l.id = n.link_id
         JOIN users u ON u.id = l.user_id
         WHERE n.id = $1 AND n.expires_ms > $2 AND {GOOD}"
    ));
    let row = sqlx::query(query)
        .bind(id)
        .bind(now_ms)
        .bind(most_tries)
        .fetch_optional(sql)
        .await?;
    row.as_ref().map(parse).transpose()
}

/// False when the enrolment is over.
pub(crate) async fn set_password(
    sql: &mut AnyConnection,
    id: &str,
    password: &str,
) -> Result<bool, StoreError> {
    let set = sqlx::query("UPDATE enrolments SET password = $2 WHERE id = $1")
        .bind(id)
        .bind(password)
        .execute(sql)
        .await?;
    Ok(set.rows_affected() == 1)
}

pub(crate) async fn delete_expired(sql: &mut AnyConnection, now_ms: i64) -> Result<(), StoreError> {
    for statement in [
        "DELETE FROM enrolments WHERE expires_ms <= $1",
        "DELETE FROM enrolment_links WHERE expires_ms <= $1",
    ] {
        sqlx::query(statement)
            .bind(now_ms)
            .execute(&mut *sql)
            .await?;
    }
    newcomers::delete_expired(sql, now_ms).await
}

fn parse(row: &AnyRow) -> Result<Enrolment, StoreError> {
    Ok(Enrolment {
        id: row.try_get("id")?,
        link_id: row.try_get("link_id")?,
        user_id: row.try_get("user_id")?,
        user: row.try_get("user_name")?,
        password: row.try_get("password")?,
        totp_secret: row.try_get("totp_secret")?,
        expires_ms: row.try_get("expires_ms")?,
        location_id: row.try_get("location_id")?,
        first_admin: row.try_get::<i64, _>("first_admin")? != 0,
    })
}
