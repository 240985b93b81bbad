//! The groups that OpenID Providers told of, beside those that administrators gave.

use sqlx::AnyConnection;

use super::StoreError;

/// Groups that have lapsed.
pub(crate) struct Lapsed {
    pub(crate) user_id: String,
    pub(crate) user: String,
    pub(crate) provider: String,
    pub(crate) groups: Vec<String>,
}

/// The groups that the provider told of last.
pub(crate) async fn of(
    sql: &mut AnyConnection,
    user_id: &str,
    provider: &str,
) -> Result<Vec<String>, StoreError> {
    let query = "SELECT name FROM sso_groups WHERE user_id = $1 AND provider = $2 ORDER BY name";
    Ok(sqlx::query_scalar(query)
        .bind(user_id)
        .bind(provider)
        .fetch_all(sql)
        .await?)
}

/// These are the groups by the provider from now on, until that time.
pub(crate) async fn set(
    sql: &mut AnyConnection,
    user_id: &str,
    provider: &str,
    groups: &[String],
    expires_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM sso_groups WHERE user_id = $1 AND provider = $2")
        .bind(user_id)
        .bind(provider)
        .execute(&mut *sql)
        .await?;
    for group in groups {
        sqlx::query(
            "INSERT INTO sso_groups (user_id, provider, name, expires_ms) VALUES ($1, $2, $3, $4)",
        )
        .bind(user_id)
        .bind(provider)
        .bind(group)
        .bind(expires_ms)
        .execute(&mut *sql)
        .await?;
    }
    Ok(())
}

/// Until when the first groups count that a provider told of.
pub(crate) async fn until(sql: &mut AnyConnection) -> Result<Option<i64>, StoreError> {
    let query = "SELECT MIN(expires_ms) FROM sso_groups";
    Ok(sqlx::query_scalar(query).fetch_one(sql).await?)
}

/// Removes groups that do not count any more.
pub(crate) async fn take_lapsed(
    sql: &mut AnyConnection,
    now_ms: i64,
) -> Result<Vec<Lapsed>, StoreError> {
    let rows: Vec<(String, String, String, String)> = sqlx::query_as(
        "SELECT g.user_id, u.name, g.provider, g.name FROM sso_groups g
         JOIN users u ON u.id = g.user_id
         WHERE g.expires_ms <= $1 ORDER BY g.user_id, g.provider, g.name",
    )
    .bind(now_ms)
    .fetch_all(&mut *sql)
    .await?;
    let mut lapsed: Vec<Lapsed> = Vec::new();
    for (user_id, user, provider, group) in rows {
        match lapsed.last_mut() {
            Some(last) if last.user_id == user_id && last.provider == provider => {
                last.groups.push(group);
            }
            _ => lapsed.push(Lapsed {
                user_id,
                user,
                provider,
                groups: vec![group],
            }),
        }
    }
    sqlx::query("DELETE FROM sso_groups WHERE expires_ms <= $1")
        .bind(now_ms)
        .execute(sql)
        .await?;
    Ok(lapsed)
}
