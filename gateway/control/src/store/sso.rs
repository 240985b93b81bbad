//! Accounts at OpenID Providers, and the logins that they vouched for.

use sqlx::AnyConnection;

use super::StoreError;
use crate::secrets::TokenHash;

/// A user's account at a provider.
pub(crate) struct IdentityRow {
    pub(crate) provider: String,
    pub(crate) issuer: String,
    pub(crate) subject: String,
}

/// A user sent to a provider, to be written down.
pub(crate) struct NewVisit<'a> {
    pub(crate) id: &'a TokenHash,
    pub(crate) provider: &'a str,
    pub(crate) device_id: &'a str,
    pub(crate) browser: &'a TokenHash,
    /// Sealed.
    pub(crate) secrets: &'a str,
    pub(crate) begun_ms: i64,
    pub(crate) expires_ms: i64,
}

/// Whose visit it has to be.
#[derive(Clone, Copy)]
pub(crate) struct VisitOf<'a> {
    pub(crate) provider: &'a str,
    /// Of the device, where it was sent from its tunnel.
    pub(crate) address: Option<&'a str>,
    pub(crate) browser: &'a TokenHash,
}

/// A user who is back from a provider.
pub(crate) struct VisitRow {
    pub(crate) device_id: String,
    pub(crate) secrets: String,
    pub(crate) begun_ms: i64,
}

/// A login that a provider vouched for.
pub(crate) struct Vouched<'a> {
    pub(crate) attempt_id: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) issuer: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) sid: &'a str,
    pub(crate) expires_ms: i64,
}

/// Whose logins; empty stands for any, and not both are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) sid: &'a str,
}

/// Links an account to a user. Each account belongs to one user, and each user has one per provider.
pub(crate) async fn link(
    sql: &mut AnyConnection,
    user_id: &str,
    identity: &IdentityRow,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sso_identities (user_id, provider, issuer, subject, created_ms)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(user_id)
    .bind(&identity.provider)
    .bind(&identity.issuer)
    .bind(&identity.subject)
    .bind(now_ms)
    .execute(sql)
    .await?;
    Ok(())
}

/// Unlinks the user's account at the provider, and takes the groups that came from there. `None` when
/// there is none.
pub(crate) async fn unlink(
    sql: &mut AnyConnection,
    user_id: &str,
    provider: &str,
) -> Result<Option<IdentityRow>, StoreError> {
    let linked = of_user(&mut *sql, user_id).await?;
    let Some(identity) = linked.into_iter().find(|row| row.provider == provider) else {
        return Ok(None);
    };
    for statement in [
        "DELETE FROM sso_identities WHERE user_id = $1 AND provider = $2",
        "DELETE FROM sso_groups WHERE user_id = $1 AND provider = $2",
    ] {
        sqlx::query(statement)
            .bind(user_id)
            .bind(provider)
            .execute(&mut *sql)
            .await?;
    }
    Ok(Some(identity))
}

/// Takes back every link of the user, with the groups. Answers the providers.
pub(crate) async fn unlink_all(
    sql: &mut AnyConnection,
    user_id: &str,
) -> Result<Vec<String>, StoreError> {
    sqlx::query("DELETE FROM sso_groups WHERE user_id = $1")
        .bind(user_id)
        .execute(&mut *sql)
        .await?;
    let query = "DELETE FROM sso_identities WHERE user_id = $1 RETURNING provider";
    Ok(sqlx::query_scalar(query)
        .bind(user_id)
        .fetch_all(sql)
        .await?)
}

/// Forgets who of the user's devices has been sent to a provider and is not back.
pub(crate) async fn forget_visits(
    sql: &mut AnyConnection,
    user_id: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM sso_visits WHERE device_id IN (SELECT id FROM devices WHERE user_id = $1)",
    )
    .bind(user_id)
    .execute(sql)
    .await?;
    Ok(())
}

/// The user's accounts, by provider.
pub(crate) async fn of_user(
    sql: &mut AnyConnection,
    user_id: &str,
) -> Result<Vec<IdentityRow>, StoreError> {
    let rows: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT provider, issuer, subject FROM sso_identities WHERE user_id = $1 ORDER BY provider",
    )
    .bind(user_id)
    .fetch_all(sql)
    .await?;
    let rows = rows
        .into_iter()
        .map(|(provider, issuer, subject)| IdentityRow {
            provider,
            issuer,
            subject,
        });
    Ok(rows.collect())
}

/// The user whom the account is linked to.
pub(crate) async fn user_of(
    sql: &mut AnyConnection,
    issuer: &str,
    subject: &str,
) -> Result<Option<String>, StoreError> {
    let query = "SELECT user_id FROM sso_identities WHERE issuer = $1 AND subject = $2";
    Ok(sqlx::query_scalar(query)
        .bind(issuer)
        .bind(subject)
        .fetch_optional(sql)
        .await?)
}

/// Visits of the device that are not over, and when the first one will be.
pub(crate) async fn waiting(
    sql: &mut AnyConnection,
    device_id: &str,
    now_ms: i64,
) -> Result<(i64, Option<i64>), StoreError> {
    let query = "SELECT COUNT(*), MIN(expires_ms) FROM sso_visits
         WHERE device_id = $1 AND expires_ms > $2";
    Ok(sqlx::query_as(query)
        .bind(device_id)
        .bind(now_ms)
        .fetch_one(sql)
        .await?)
}

pub(crate) async fn insert_visit(
    sql: &mut AnyConnection,
    visit: &NewVisit<'_>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sso_visits (id, provider, device_id, secrets, begun_ms, expires_ms, browser)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(visit.id.as_str())
    .bind(visit.provider)
    .bind(visit.device_id)
    .bind(visit.secrets)
    .bind(visit.begun_ms)
    .bind(visit.expires_ms)
    .bind(visit.browser.as_str())
    .execute(sql)
    .await?;
    Ok(())
}

/// Spends a visit to this provider by this browser on the device with this address. `None`, and nothing is
/// spent, where there is none: another device or browser cannot spend it either.
pub(crate) async fn take_visit(
    sql: &mut AnyConnection,
    id: &TokenHash,
    of: VisitOf<'_>,
    now_ms: i64,
) -> Result<Option<VisitRow>, StoreError> {
    let taken = sqlx::query_as(
        "DELETE FROM sso_visits
         WHERE id = $1 AND provider = $2 AND expires_ms > $4 AND browser = $5
            AND ($3 = '' OR device_id IN
                (SELECT device_id FROM device_addresses WHERE address = $3))
         RETURNING device_id, secrets, begun_ms",
    )
    .bind(id.as_str())
    .bind(of.provider)
    .bind(of.address.unwrap_or_default())
    .bind(now_ms)
    .bind(of.browser.as_str())
    .fetch_optional(sql)
    .await?;
    Ok(taken.map(visit))
}

/// A visit to this provider that is not over.
pub(crate) async fn find_visit(
    sql: &mut AnyConnection,
    id: &TokenHash,
    provider: &str,
    now_ms: i64,
) -> Result<Option<VisitRow>, StoreError> {
    let found = sqlx::query_as(
        "SELECT device_id, secrets, begun_ms FROM sso_visits
         WHERE id = $1 AND provider = $2 AND expires_ms > $3",
    )
    .bind(id.as_str())
    .bind(provider)
    .bind(now_ms)
    .fetch_optional(sql)
    .await?;
    Ok(found.map(visit))
}

fn visit((device_id, secrets, begun_ms): (String, String, i64)) -> VisitRow {
    VisitRow {
        device_id,
        secrets,
        begun_ms,
    }
}

pub(crate) async fn vouched(
    sql: &mut AnyConnection,
    login: &Vouched<'_>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sso_logins (attempt_id, user_id, issuer, subject, sid, session_id, expires_ms)
         VALUES ($1, $2, $3, $4, $5, '', $6)",
    )
    .bind(login.attempt_id)
    .bind(login.user_id)
    .bind(login.issuer)
    .bind(login.subject)
    .bind(login.sid)
    .bind(login.expires_ms)
    .execute(sql)
    .await?;
    Ok(())
}

/// Notes the session that a login has opened, where a provider vouched for its first step.
pub(crate) async fn opened(
    sql: &mut AnyConnection,
    attempt_id: &str,
    session_id: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE sso_logins SET session_id = $2 WHERE attempt_id = $1")
        .bind(attempt_id)
        .bind(session_id)
        .execute(sql)
        .await?;
    Ok(())
}

/// Whether a logout, by subject and sid, is about a login by its own. Where the provider did not say at the
/// login which session of its own it was, who it was has to do.
fn about(logout: [&str; 2], login: [&str; 2]) -> String {
    let ([subject, sid], [login_subject, login_sid]) = (logout, login);
    format!(
        "issuer = $1 AND ({subject} = '' OR {login_subject} = {subject})
            AND ({sid} = '' OR {login_sid} = {sid} OR ({subject} <> '' AND {login_sid} = ''))"
    )
}

/// The logins in the table that the given logout is about.
fn theirs() -> String {
    about(["$2", "$3"], ["subject", "sid"])
}

/// Whether any of these logins has a live session, or is half-way.
pub(crate) async fn is_about_any(
    sql: &mut AnyConnection,
    whose: Whose<'_>,
) -> Result<bool, StoreError> {
    let query = sqlx::AssertSqlSafe(format!(
        "SELECT COUNT(*) FROM sso_logins WHERE {}
            AND (session_id IN (SELECT id FROM sessions WHERE state = 'live')
                OR attempt_id IN (SELECT id FROM login_attempts))",
        theirs()
    ));
    let found: i64 = sqlx::query_scalar(query)
        .bind(whose.issuer)
        .bind(whose.subject)
        .bind(whose.sid)
        .fetch_one(sql)
        .await?;
    Ok(found > 0)
}

/// Live sessions of these logins, with the location of each.
pub(crate) async fn live_sessions(
    sql: &mut AnyConnection,
    whose: Whose<'_>,
) -> Result<Vec<(String, String)>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!(
        "SELECT id, location_id FROM sessions WHERE state = 'live'
            AND id IN (SELECT session_id FROM sso_logins WHERE {}) ORDER BY id",
        theirs()
    ));
    Ok(sqlx::query_as(query)
        .bind(whose.issuer)
        .bind(whose.subject)
        .bind(whose.sid)
        .fetch_all(sql)
        .await?)
}

/// Ends these logins where they are half-way. Answers how many.
pub(crate) async fn end_attempts(
    sql: &mut AnyConnection,
    whose: Whose<'_>,
) -> Result<u64, StoreError> {
    let query = sqlx::AssertSqlSafe(format!(
        "DELETE FROM login_attempts
         WHERE id IN (SELECT attempt_id FROM sso_logins WHERE {})",
        theirs()
    ));
    let ended = sqlx::query(query)
        .bind(whose.issuer)
        .bind(whose.subject)
        .bind(whose.sid)
        .execute(sql)
        .await?;
    Ok(ended.rows_affected())
}

/// Notes a logout token as obeyed. False when it was before.
pub(crate) async fn spend_logout(
    sql: &mut AnyConnection,
    whose: Whose<'_>,
    jti: &TokenHash,
    now_ms: i64,
    expires_ms: i64,
) -> Result<bool, StoreError> {
    let spent = sqlx::query(
        "INSERT INTO sso_logouts (issuer, jti, subject, sid, at_ms, expires_ms)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(whose.issuer)
    .bind(jti.as_str())
    .bind(whose.subject)
    .bind(whose.sid)
    .bind(now_ms)
    .bind(expires_ms)
    .execute(sql)
    .await?;
    Ok(spent.rows_affected() == 1)
}

/// Whether the provider has told of a logout of this login since then.
pub(crate) async fn logged_out_since(
    sql: &mut AnyConnection,
    whose: Whose<'_>,
    since_ms: i64,
) -> Result<bool, StoreError> {
    let query = sqlx::AssertSqlSafe(format!(
        "SELECT jti FROM sso_logouts WHERE at_ms > $4 AND {} LIMIT 1",
        about(["subject", "sid"], ["$2", "$3"])
    ));
    let found: Option<String> = sqlx::query_scalar(query)
        .bind(whose.issuer)
        .bind(whose.subject)
        .bind(whose.sid)
        .bind(since_ms)
        .fetch_optional(sql)
        .await?;
    Ok(found.is_some())
}

/// Forgets what is over.
pub(crate) async fn delete_expired(sql: &mut AnyConnection, now_ms: i64) -> Result<(), StoreError> {
    for statement in [
        "DELETE FROM sso_visits WHERE expires_ms <= $1",
        "DELETE FROM sso_logouts WHERE expires_ms <= $1",
        "DELETE FROM sso_logins WHERE expires_ms <= $1
            AND session_id NOT IN (SELECT id FROM sessions WHERE state = 'live')",
    ] {
        sqlx::query(statement)
            .bind(now_ms)
            .execute(&mut *sql)
            .await?;
    }
    Ok(())
}
