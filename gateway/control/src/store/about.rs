//! Whose account an audit record is about.

use serde_json::Value;
use sqlx::AnyConnection;

use super::{Entry, StoreError};

/// Sessions looked up with one statement.
const AT_ONCE: usize = 100;

/// Notes whom a record is about: who acted, and whose account, devices and sessions it names. Names are
/// resolved now, because they may be given to someone else later.
pub(super) async fn note(
    sql: &mut AnyConnection,
    number: i64,
    entry: &Entry<'_>,
) -> Result<(), StoreError> {
    let (kind, named) = match entry.subject.split_once(':') {
        Some((kind, named)) => (kind, named),
        // Records of `user.add` and the like have the bare name.
        None => (
            entry.action.split('.').next().unwrap_or_default(),
            entry.subject,
        ),
    };
    let mut users = Vec::new();
    users.extend(entry.actor.strip_prefix("user:"));
    users.extend(entry.detail["user"].as_str());
    if kind == "user" {
        users.push(named);
    }
    users.sort_unstable();
    users.dedup();
    for user in users {
        let owner = "SELECT id FROM users WHERE name = $2";
        add(sql, number, owner, &[user]).await?;
    }
    if kind == "device" {
        let owner = "SELECT user_id FROM devices WHERE name = $2";
        add(sql, number, owner, &[named]).await?;
    }
    let mut sessions: Vec<&str> = Vec::new();
    if kind == "session" {
        sessions.push(named);
    }
    if let Value::Array(ids) = &entry.detail["ids"] {
        sessions.extend(ids.iter().filter_map(Value::as_str));
    }
    for ids in sessions.chunks(AT_ONCE) {
        let places: Vec<String> = (2..ids.len() + 2).map(|n| format!("${n}")).collect();
        let places = places.join(", ");
        let owners = format!("SELECT DISTINCT user_id FROM sessions WHERE id IN ({places})");
        add(sql, number, &owners, ids).await?;
    }
    Ok(())
}

/// Adds the record to the lists of these users. `$2` and on are bound to `values`.
async fn add(
    sql: &mut AnyConnection,
    number: i64,
    user_ids: &str,
    values: &[&str],
) -> Result<(), StoreError> {
    // The outer condition tells SQLite that ON CONFLICT belongs to the INSERT.
    let query = sqlx::AssertSqlSafe(format!(
        "INSERT INTO audit_about (user_id, number)
         SELECT owner.id, CAST($1 AS BIGINT) FROM ({}) owner WHERE 1 = 1
         ON CONFLICT (user_id, number) DO NOTHING",
        user_ids.replacen("user_id FROM", "user_id AS id FROM", 1)
    ));
    let mut query = sqlx::query(query).bind(number);
    for value in values {
        query = query.bind(*value);
    }
    query.execute(sql).await?;
    Ok(())
}
