//! Challenges that were answered rightly, so that none is answered twice.

use sqlx::AnyConnection;

use super::StoreError;

/// Spends a challenge. False when it was spent before.
pub(crate) async fn spend(
    sql: &mut AnyConnection,
    id: &str,
    expires_ms: i64,
    now_ms: i64,
) -> Result<bool, StoreError> {
    sqlx::query("DELETE FROM connect_spent WHERE expires_ms <= $1")
        .bind(now_ms)
        .execute(&mut *sql)
        .await?;
    let spent = sqlx::query(
        "INSERT INTO connect_spent (id, expires_ms) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING",
    )
    .bind(id)
    .bind(expires_ms)
    .execute(sql)
    .await?;
    Ok(spent.rows_affected() == 1)
}
