//! Every policy that was applied, and whom its rules can mean.

use sqlx::AnyConnection;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{StoreError, users};
use crate::policy::Subject;

pub(crate) struct PolicyRow {
    /// From 1; the highest is live.
    pub(crate) number: i64,
    /// SHA-256 of the source, hexadecimal.
    pub(crate) digest: String,
    pub(crate) rules: i64,
    pub(crate) revision: i64,
    pub(crate) applied_ms: i64,
    pub(crate) applied_by: String,
}

const SELECT: &str = "SELECT number, digest, rules, revision, applied_ms, applied_by FROM policies";

/// Applies a policy: it is the newest.
pub(crate) async fn insert(
    sql: &mut AnyConnection,
    policy: &PolicyRow,
    source: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO policies (number, source, digest, rules, revision, applied_ms, applied_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(policy.number)
    .bind(source)
    .bind(&policy.digest)
    .bind(policy.rules)
    .bind(policy.revision)
    .bind(policy.applied_ms)
    .bind(&policy.applied_by)
    .execute(sql)
    .await?;
    Ok(())
}

/// The live policy; `None` where the gate holds.
pub(crate) async fn live(sql: &mut AnyConnection) -> Result<Option<PolicyRow>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY number DESC LIMIT 1"));
    let row = sqlx::query(query).fetch_optional(sql).await?;
    row.as_ref().map(parse).transpose()
}

pub(crate) async fn find(
    sql: &mut AnyConnection,
    number: i64,
) -> Result<Option<PolicyRow>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!("{SELECT} WHERE number = $1"));
    let row = sqlx::query(query).bind(number).fetch_optional(sql).await?;
    row.as_ref().map(parse).transpose()
}

/// Newest first.
pub(crate) async fn list(sql: &mut AnyConnection) -> Result<Vec<PolicyRow>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY number DESC"));
    let rows = sqlx::query(query).fetch_all(sql).await?;
    rows.iter().map(parse).collect()
}

pub(crate) async fn source(sql: &mut AnyConnection, number: i64) -> Result<String, StoreError> {
    Ok(
        sqlx::query_scalar("SELECT source FROM policies WHERE number = $1")
            .bind(number)
            .fetch_one(sql)
            .await?,
    )
}

/// The last revision that changed the live policy, or whom its rules mean.
pub(crate) async fn revision(sql: &mut AnyConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT policy_revision FROM meta")
        .fetch_one(sql)
        .await?)
}

/// Every user, with the id first.
pub(crate) async fn subjects(
    sql: &mut AnyConnection,
) -> Result<Vec<(String, Subject)>, StoreError> {
    let mut groups = users::groups(sql).await?;
    let users: Vec<(String, String)> = sqlx::query_as("SELECT id, name FROM users ORDER BY name")
        .fetch_all(sql)
        .await?;
    let subjects = users.into_iter().map(|(id, user)| {
        let groups = groups.remove(&id).unwrap_or_default();
        (id, Subject { user, groups })
    });
    Ok(subjects.collect())
}

fn parse(row: &AnyRow) -> Result<PolicyRow, StoreError> {
    Ok(PolicyRow {
        number: row.try_get("number")?,
        digest: row.try_get("digest")?,
        rules: row.try_get("rules")?,
        revision: row.try_get("revision")?,
        applied_ms: row.try_get("applied_ms")?,
        applied_by: row.try_get("applied_by")?,
    })
}
