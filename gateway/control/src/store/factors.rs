//! What a user's own page tells of their factors, and authenticators that are being set up.

use portcullis_proto::v1::Level;
use sqlx::AnyConnection;

use super::StoreError;

/// An authenticator to be.
pub(crate) struct SetupRow {
    /// Sealed.
    pub(crate) totp_secret: String,
    pub(crate) begun_ms: i64,
    pub(crate) expires_ms: i64,
}

/// An account at a provider, as far as its user is concerned.
pub(crate) struct LinkRow {
    pub(crate) provider: String,
    pub(crate) created_ms: i64,
    /// The highest one that the provider has vouched for.
    pub(crate) level: Level,
    pub(crate) issuer: String,
    /// Whether a provider of this issuer is configured. The store does not know.
    pub(crate) works: bool,
}

/// When password and authenticator were set; 0 where that is not known.
pub(crate) async fn set_at(
    sql: &mut AnyConnection,
    user_id: &str,
) -> Result<(i64, i64), StoreError> {
    let query = "SELECT password_ms, totp_ms FROM users WHERE id = $1";
    Ok(sqlx::query_as(query).bind(user_id).fetch_one(sql).await?)
}

/// The user's accounts at providers, by provider.
pub(crate) async fn links(
    sql: &mut AnyConnection,
    user_id: &str,
) -> Result<Vec<LinkRow>, StoreError> {
    let rows: Vec<(String, i64, i64, String)> = sqlx::query_as(
        "SELECT provider, created_ms, level, issuer FROM sso_identities WHERE user_id = $1
         ORDER BY provider",
    )
    .bind(user_id)
    .fetch_all(sql)
    .await?;
    let rows = rows
        .into_iter()
        .map(|(provider, created_ms, level, issuer)| {
            let level = i32::try_from(level).ok().and_then(|l| l.try_into().ok());
            Ok(LinkRow {
                provider,
                created_ms,
                level: level.ok_or(StoreError::Value("level"))?,
                issuer,
                works: false,
            })
        });
    rows.collect()
}

/// Notes what a provider has vouched for. A weaker login takes nothing back: it would let whoever made it
/// change what the stronger one protects.
pub(crate) async fn vouched(
    sql: &mut AnyConnection,
    issuer: &str,
    subject: &str,
    level: Level,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE sso_identities SET level = $3 WHERE issuer = $1 AND subject = $2 AND level < $3",
    )
    .bind(issuer)
    .bind(subject)
    .bind(i64::from(i32::from(level)))
    .execute(sql)
    .await?;
    Ok(())
}

/// In place of any other of the account.
pub(crate) async fn begin_setup(
    sql: &mut AnyConnection,
    user_id: &str,
    session_id: &str,
    setup: &SetupRow,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM totp_setups WHERE user_id = $1 OR expires_ms <= $2")
        .bind(user_id)
        .bind(setup.begun_ms)
        .execute(&mut *sql)
        .await?;
    sqlx::query(
        "INSERT INTO totp_setups (user_id, session_id, totp_secret, begun_ms, expires_ms)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(user_id)
    .bind(session_id)
    .bind(&setup.totp_secret)
    .bind(setup.begun_ms)
    .bind(setup.expires_ms)
    .execute(sql)
    .await?;
    Ok(())
}

/// The one of this session, if it is not too old.
pub(crate) async fn setup(
    sql: &mut AnyConnection,
    user_id: &str,
    session_id: &str,
    now_ms: i64,
) -> Result<Option<SetupRow>, StoreError> {
    let row: Option<(String, i64, i64)> = sqlx::query_as(
        "SELECT totp_secret, begun_ms, expires_ms FROM totp_setups
         WHERE user_id = $1 AND session_id = $2 AND expires_ms > $3",
    )
    .bind(user_id)
    .bind(session_id)
    .bind(now_ms)
    .fetch_optional(sql)
    .await?;
    Ok(row.map(|(totp_secret, begun_ms, expires_ms)| SetupRow {
        totp_secret,
        begun_ms,
        expires_ms,
    }))
}

/// Ends the one of the account, done or not.
pub(crate) async fn end_setup(sql: &mut AnyConnection, user_id: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM totp_setups WHERE user_id = $1")
        .bind(user_id)
        .execute(sql)
        .await?;
    Ok(())
}
