//! Recovery codes, by their hashes. One that is used is gone.

use sqlx::AnyConnection;

use super::StoreError;
use crate::secrets::TokenHash;

/// Gives the user these codes and no others. Answers how many unused ones are void by that.
pub(crate) async fn replace(
    sql: &mut AnyConnection,
    user_id: &str,
    codes: &[TokenHash],
    now_ms: i64,
) -> Result<u64, StoreError> {
    let voided = delete_of_user(sql, user_id).await?;
    for code in codes {
        sqlx::query("INSERT INTO recovery_codes (user_id, hash, created_ms) VALUES ($1, $2, $3)")
            .bind(user_id)
            .bind(code.as_str())
            .bind(now_ms)
            .execute(&mut *sql)
            .await?;
    }
    Ok(voided)
}

/// Uses up a code of the user. False when it is none, or was used before.
pub(crate) async fn spend(
    sql: &mut AnyConnection,
    user_id: &str,
    code: &TokenHash,
) -> Result<bool, StoreError> {
    let spent = sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1 AND hash = $2")
        .bind(user_id)
        .bind(code.as_str())
        .execute(sql)
        .await?;
    Ok(spent.rows_affected() == 1)
}

/// How many the user has left.
pub(crate) async fn left(sql: &mut AnyConnection, user_id: &str) -> Result<i64, StoreError> {
    let query = "SELECT COUNT(*) FROM recovery_codes WHERE user_id = $1";
    Ok(sqlx::query_scalar(query)
        .bind(user_id)
        .fetch_one(sql)
        .await?)
}

/// Answers how many there were.
pub(crate) async fn delete_of_user(
    sql: &mut AnyConnection,
    user_id: &str,
) -> Result<u64, StoreError> {
    let deleted = sqlx::query("DELETE FROM recovery_codes WHERE user_id = $1")
        .bind(user_id)
        .execute(sql)
        .await?;
    Ok(deleted.rows_affected())
}
