//! Passkeys, and the ceremonies that make and use them.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{StoreError, can_be_named};
use crate::domain::Factor;

pub(crate) struct CredentialRow {
    pub(crate) id: String,
    pub(crate) user_id: String,
    pub(crate) name: String,
    /// Sealed.
    pub(crate) credential: String,
    pub(crate) created_ms: i64,
    /// 0: never.
    pub(crate) last_used_ms: i64,
    /// 0: its counter never went backwards.
    pub(crate) suspect_ms: i64,
}

impl CredentialRow {
    /// One that is blocked is good for nothing.
    pub(crate) fn is_usable(&self) -> bool {
        self.suspect_ms == 0
    }
}

pub(crate) struct NewCredential<'a> {
    pub(crate) id: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) credential_id: &'a str,
    pub(crate) name: &'a str,
    /// Sealed.
    pub(crate) credential: &'a str,
    pub(crate) created_ms: i64,
}

/// A use of a credential to be written down.
pub(crate) struct Used<'a> {
    pub(crate) id: &'a str,
    pub(crate) user_id: &'a str,
    /// Sealed.
    pub(crate) credential: &'a str,
    pub(crate) counter: i64,
}

/// A ceremony to be written down.
pub(crate) struct NewCeremony<'a> {
    pub(crate) id: &'a str,
    pub(crate) kind: &'static str,
    pub(crate) user_id: &'a str,
    pub(crate) device_id: &'a str,
    /// Empty: of no attempt.
    pub(crate) attempt_id: &'a str,
    /// Sealed.
    pub(crate) state: &'a str,
    pub(crate) begun_ms: i64,
    pub(crate) expires_ms: i64,
}

/// What tells a ceremony from all others.
pub(crate) struct Presented<'a> {
    pub(crate) id: &'a str,
    pub(crate) kind: &'static str,
    /// The device's, as the store writes addresses.
    pub(crate) address: &'a str,
    pub(crate) attempt_id: &'a str,
}

/// A ceremony that is spent now.
pub(crate) struct CeremonyRow {
    pub(crate) user_id: String,
    pub(crate) device_id: String,
    /// Sealed.
    pub(crate) state: String,
    pub(crate) begun_ms: i64,
}

const SELECT: &str = "SELECT id, user_id, name, credential, created_ms, last_used_ms, suspect_ms
    FROM webauthn_credentials";

/// [`StoreError::Taken`] when an account, this one or another, has the credential already.
pub(crate) async fn insert(
    sql: &mut AnyConnection,
    credential: &NewCredential<'_>,
) -> Result<(), StoreError> {
    // The counter is taken over with the first use: until then none is lower.
    sqlx::query(
        "INSERT INTO webauthn_credentials
            (id, user_id, credential_id, name, credential, counter, created_ms)
         VALUES ($1, $2, $3, $4, $5, 0, $6)",
    )
    .bind(credential.id)
    .bind(credential.user_id)
    .bind(credential.credential_id)
    .bind(credential.name)
    .bind(credential.credential)
    .bind(credential.created_ms)
    .execute(sql)
    .await?;
    Ok(())
}

/// The user's, oldest first.
pub(crate) async fn of_user(
    sql: &mut AnyConnection,
    user_id: &str,
) -> Result<Vec<CredentialRow>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE user_id = $1 ORDER BY created_ms, id"
    ));
    let rows = sqlx::query(query).bind(user_id).fetch_all(sql).await?;
    rows.iter().map(parse).collect()
}

/// One of the user's, by our id.
pub(crate) async fn find(
    sql: &mut AnyConnection,
    user_id: &str,
    id: &str,
) -> Result<Option<CredentialRow>, StoreError> {
    if !can_be_named(id) {
        return Ok(None);
    }
    let query = sqlx::AssertSqlSafe(format!("{SELECT} WHERE user_id = $1 AND id = $2"));
    let query = sqlx::query(query).bind(user_id).bind(id);
    query
        .fetch_optional(sql)
        .await?
        .as_ref()
        .map(parse)
        .transpose()
}

/// One of the user's, by the authenticator's id.
pub(crate) async fn find_by_credential_id(
    sql: &mut AnyConnection,
    user_id: &str,
    credential_id: &str,
) -> Result<Option<CredentialRow>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE user_id = $1 AND credential_id = $2"
    ));
    let query = sqlx::query(query).bind(user_id).bind(credential_id);
    query
        .fetch_optional(sql)
        .await?
        .as_ref()
        .map(parse)
        .transpose()
}

/// Writes a use down. False when the counter did not grow (WebAuthn 3, 7.2, step 22), or the
/// credential has been removed or refused since it was read. Two uses at once are compared with
/// each other here, whichever of them is first.
pub(crate) async fn used(
    sql: &mut AnyConnection,
    used: &Used<'_>,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let written = sqlx::query(
        "UPDATE webauthn_credentials SET credential = $3, counter = $4, last_used_ms = $5
         WHERE id = $1 AND user_id = $2 AND suspect_ms = 0
            AND (counter < $4 OR (counter = 0 AND $4 = 0))",
    )
    .bind(used.id)
    .bind(used.user_id)
    .bind(used.credential)
    .bind(used.counter)
    .bind(now_ms)
    .execute(sql)
    .await?;
    Ok(written.rows_affected() == 1)
}

/// Refuses the credential from now on.
pub(crate) async fn suspect(
    sql: &mut AnyConnection,
    id: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE webauthn_credentials SET suspect_ms = $2 WHERE id = $1")
        .bind(id)
        .bind(now_ms)
        .execute(&mut *sql)
        .await?;
    void_logins(sql, id).await
}

/// Logins that are half-way with a passkey of its user's, here or on a phone: which one is not written down.
async fn void_logins(sql: &mut AnyConnection, id: &str) -> Result<(), StoreError> {
    let query = "DELETE FROM outside_attempts WHERE second IN ($2, $3)
         AND user_id = (SELECT user_id FROM webauthn_credentials WHERE id = $1)";
    sqlx::query(query)
        .bind(id)
        .bind(Factor::Passkey.as_str())
        .bind(Factor::Phone.as_str())
        .execute(&mut *sql)
        .await?;
    let query = "DELETE FROM approvals
         WHERE user_id = (SELECT user_id FROM webauthn_credentials WHERE id = $1)";
    sqlx::query(query).bind(id).execute(sql).await?;
    Ok(())
}

pub(crate) async fn rename(
    sql: &mut AnyConnection,
    id: &str,
    name: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE webauthn_credentials SET name = $2 WHERE id = $1")
        .bind(id)
        .bind(name)
        .execute(sql)
        .await?;
    Ok(())
}

pub(crate) async fn delete(sql: &mut AnyConnection, id: &str) -> Result<(), StoreError> {
    void_logins(&mut *sql, id).await?;
    sqlx::query("DELETE FROM webauthn_credentials WHERE id = $1")
        .bind(id)
        .execute(sql)
        .await?;
    Ok(())
}

pub(crate) async fn insert_ceremony(
    sql: &mut AnyConnection,
    ceremony: &NewCeremony<'_>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO webauthn_ceremonies
            (id, kind, user_id, device_id, attempt_id, state, begun_ms, expires_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(ceremony.id)
    .bind(ceremony.kind)
    .bind(ceremony.user_id)
    .bind(ceremony.device_id)
    .bind(ceremony.attempt_id)
    .bind(ceremony.state)
    .bind(ceremony.begun_ms)
    .bind(ceremony.expires_ms)
    .execute(sql)
    .await?;
    Ok(())
}

/// How many ceremonies of a device wait, and when the first of them ends.
pub(crate) async fn waiting(
    sql: &mut AnyConnection,
    device_id: &str,
    now_ms: i64,
) -> Result<(i64, Option<i64>), StoreError> {
    let query = "SELECT COUNT(*), MIN(expires_ms) FROM webauthn_ceremonies
         WHERE device_id = $1 AND expires_ms > $2";
    Ok(sqlx::query_as(query)
        .bind(device_id)
        .bind(now_ms)
        .fetch_one(sql)
        .await?)
}

/// Spends a ceremony: it is gone whatever comes of it. `None` when it is unknown, too old, or was
/// begun from another device, for another attempt or for something else.
pub(crate) async fn take(
    sql: &mut AnyConnection,
    presented: &Presented<'_>,
    now_ms: i64,
) -> Result<Option<CeremonyRow>, StoreError> {
    let row = sqlx::query(
        "DELETE FROM webauthn_ceremonies
         WHERE id = $1 AND kind = $2 AND attempt_id = $3 AND expires_ms > $4
            AND device_id IN (SELECT a.device_id FROM device_addresses a
                JOIN devices d ON d.id = a.device_id
                WHERE a.address = $5 AND d.user_id = webauthn_ceremonies.user_id)
         RETURNING user_id, device_id, state, begun_ms",
    )
    .bind(presented.id)
    .bind(presented.kind)
    .bind(presented.attempt_id)
    .bind(now_ms)
    .bind(presented.address)
    .fetch_optional(sql)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(CeremonyRow {
        user_id: row.try_get("user_id")?,
        device_id: row.try_get("device_id")?,
        state: row.try_get("state")?,
        begun_ms: row.try_get("begun_ms")?,
    }))
}

pub(crate) async fn delete_expired(sql: &mut AnyConnection, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM webauthn_ceremonies WHERE expires_ms <= $1")
        .bind(now_ms)
        .execute(sql)
        .await?;
    Ok(())
}

fn parse(row: &AnyRow) -> Result<CredentialRow, StoreError> {
    Ok(CredentialRow {
        id: row.try_get("id")?,
        user_id: row.try_get("user_id")?,
        name: row.try_get("name")?,
        credential: row.try_get("credential")?,
        created_ms: row.try_get("created_ms")?,
        last_used_ms: row.try_get("last_used_ms")?,
        suspect_ms: row.try_get("suspect_ms")?,
    })
}
