//! Gateways: enrolment, identity, and what they last told.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{Store, StoreError, can_be_named, to_i64};
use crate::domain::DeviceKey;

#[derive(Clone)]
pub(crate) struct GatewayRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) location_id: String,
    pub(crate) location: String,
    pub(crate) public_key: Option<DeviceKey>,
    /// Hash of the certificate it enrolled with last.
    pub(crate) certificate: Option<String>,
    pub(crate) applied_revision: i64,
    pub(crate) last_seen_ms: i64,
    /// Whether `public_key` is the one it connected with after its last enrolment.
    pub(crate) key_pinned: bool,
    /// Told to let go of every peer; see [`set_removing`].
    pub(crate) removing: bool,
    /// While removing: nothing that it can hold outlives this.
    pub(crate) open_until_ms: i64,
}

/// One of the kernel's packet counters.
#[derive(Debug)]
pub(crate) struct Reason {
    pub(crate) reason: u32,
    pub(crate) direction: u32,
    pub(crate) packets: u64,
}

const SELECT: &str = "
    SELECT g.id, g.name, g.location_id, l.name AS location, g.public_key, g.certificate,
        g.applied_revision, g.last_seen_ms, g.key_pinned, g.removing_since_ms, g.open_until_ms
    FROM gateways g JOIN locations l ON l.id = g.location_id";

pub(crate) async fn insert(
    sql: &mut AnyConnection,
    id: &str,
    name: &str,
    location_id: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO gateways (id, name, location_id, created_ms) VALUES ($1, $2, $3, $4)")
        .bind(id)
        .bind(name)
        .bind(location_id)
        .bind(now_ms)
        .execute(sql)
        .await?;
    Ok(())
}

/// Replaces any token that the gateway had not used yet.
pub(crate) async fn set_token(
    sql: &mut AnyConnection,
    id: &str,
    token_hash: &str,
    expires_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE gateways SET token = $2, token_expires_ms = $3 WHERE id = $1")
        .bind(id)
        .bind(token_hash)
        .bind(expires_ms)
        .execute(sql)
        .await?;
    Ok(())
}

/// Whether a token can be spent. A look only: strangers who guess make nobody wait.
pub(crate) async fn has_token(
    sql: &mut AnyConnection,
    token_hash: &str,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let id: Option<String> =
        sqlx::query_scalar("SELECT id FROM gateways WHERE token = $1 AND token_expires_ms > $2")
            .bind(token_hash)
            .bind(now_ms)
            .fetch_optional(sql)
            .await?;
    Ok(id.is_some())
}

/// Spends a token. Answers the gateway it was for.
pub(crate) async fn take_token(
    sql: &mut AnyConnection,
    token_hash: &str,
    now_ms: i64,
) -> Result<Option<GatewayRow>, StoreError> {
    let id: Option<String> = sqlx::query_scalar(
        "UPDATE gateways SET token = NULL
         WHERE token = $1 AND token_expires_ms > $2 RETURNING id",
    )
    .bind(token_hash)
    .bind(now_ms)
    .fetch_optional(&mut *sql)
    .await?;
    match id {
        Some(id) => find(sql, &id).await,
        None => Ok(None),
    }
}

/// A new enrolment: perhaps of another machine, which has applied nothing and has its own key.
pub(crate) async fn set_certificate(
    sql: &mut AnyConnection,
    id: &str,
    hash: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE gateways SET certificate = $2, applied_revision = 0, key_pinned = 0 WHERE id = $1",
    )
    .bind(id)
    .bind(hash)
    .execute(sql)
    .await?;
    Ok(())
}

/// Whether this is still the gateway's certificate: neither removed nor enrolled again since.
pub(crate) async fn is_enrolled(
    sql: &mut AnyConnection,
    id: &str,
    certificate: Option<&str>,
) -> Result<bool, StoreError> {
    let found: Option<String> =
        sqlx::query_scalar("SELECT id FROM gateways WHERE id = $1 AND certificate = $2")
            .bind(id)
            .bind(certificate)
            .fetch_optional(sql)
            .await?;
    Ok(found.is_some())
}

/// Marks a gateway as being removed and voids its token. What it may hold was granted before now:
/// answers the latest deadline of that, with `margin_ms` on top.
pub(crate) async fn set_removing(
    sql: &mut AnyConnection,
    gateway: &GatewayRow,
    now_ms: i64,
    margin_ms: i64,
) -> Result<i64, StoreError> {
    let granted: i64 = sqlx::query_scalar("SELECT granted_until_ms FROM locations WHERE id = $1")
        .bind(&gateway.location_id)
        .fetch_one(&mut *sql)
        .await?;
    let open_until_ms = granted.max(now_ms).saturating_add(margin_ms);
    sqlx::query(
        "UPDATE gateways SET removing_since_ms = $2, open_until_ms = $3, token = NULL WHERE id = $1",
    )
    .bind(&gateway.id)
    .bind(now_ms)
    .bind(open_until_ms)
    .execute(sql)
    .await?;
    Ok(open_until_ms)
}

/// Gateways being removed that can hold nothing open any more.
pub(crate) async fn closed(
    sql: &mut AnyConnection,
    now_ms: i64,
) -> Result<Vec<GatewayRow>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE g.removing_since_ms <> 0 AND g.open_until_ms <= $1"
    ));
    let rows = sqlx::query(query).bind(now_ms).fetch_all(sql).await?;
    rows.iter().map(parse).collect()
}

/// Whether a gateway has this WireGuard key.
pub(crate) async fn has_key(sql: &mut AnyConnection, key: DeviceKey) -> Result<bool, StoreError> {
    let found: Option<String> = sqlx::query_scalar("SELECT id FROM gateways WHERE public_key = $1")
        .bind(key.to_base64())
        .fetch_optional(sql)
        .await?;
    Ok(found.is_some())
}

pub(crate) async fn set_public_key(
    sql: &mut AnyConnection,
    id: &str,
    key: DeviceKey,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE gateways SET public_key = $2, key_pinned = 1 WHERE id = $1")
        .bind(id)
        .bind(key.to_base64())
        .execute(sql)
        .await?;
    Ok(())
}

/// By name or id.
pub(crate) async fn find(
    sql: &mut AnyConnection,
    name_or_id: &str,
) -> Result<Option<GatewayRow>, StoreError> {
    if !can_be_named(name_or_id) {
        return Ok(None);
    }
    let query = sqlx::AssertSqlSafe(format!("{SELECT} WHERE g.name = $1 OR g.id = $1"));
    let row = sqlx::query(query)
        .bind(name_or_id)
        .fetch_optional(sql)
        .await?;
    row.as_ref().map(parse).transpose()
}

/// Of a location, by id; an empty one stands for all.
pub(crate) async fn list(
    sql: &mut AnyConnection,
    location_id: &str,
) -> Result<Vec<GatewayRow>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE $1 = '' OR g.location_id = $1 ORDER BY g.name"
    ));
    let rows = sqlx::query(query).bind(location_id).fetch_all(sql).await?;
    rows.iter().map(parse).collect()
}

pub(crate) async fn delete(sql: &mut AnyConnection, id: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM gateways WHERE id = $1")
        .bind(id)
        .execute(sql)
        .await?;
    Ok(())
}

/// Notes that a gateway is there, and how far it has come. A single statement, which no reader of
/// the desired state has to hear of. Nothing once the certificate is not the gateway's any more.
pub(crate) async fn note(
    store: &Store,
    id: &str,
    certificate: Option<&str>,
    applied_revision: u64,
    now_ms: i64,
) -> Result<(), StoreError> {
    let _queue = store.0.writer.lock().await;
    sqlx::query(
        "UPDATE gateways SET applied_revision = $2, last_seen_ms = $3
         WHERE id = $1 AND certificate = $4",
    )
    .bind(id)
    .bind(to_i64(applied_revision))
    .bind(now_ms)
    .bind(certificate)
    .execute(&store.0.pool)
    .await?;
    Ok(())
}

pub(crate) async fn set_reason(
    sql: &mut AnyConnection,
    id: &str,
    reason: &Reason,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO gateway_reasons (gateway_id, reason, direction, packets)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (gateway_id, reason, direction) DO UPDATE SET packets = excluded.packets",
    )
    .bind(id)
    .bind(i64::from(reason.reason))
    .bind(i64::from(reason.direction))
    .bind(to_i64(reason.packets))
    .execute(sql)
    .await?;
    Ok(())
}

pub(crate) async fn reasons(sql: &mut AnyConnection, id: &str) -> Result<Vec<Reason>, StoreError> {
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
        "SELECT reason, direction, packets FROM gateway_reasons
         WHERE gateway_id = $1 ORDER BY direction, reason",
    )
    .bind(id)
    .fetch_all(sql)
    .await?;
    rows.into_iter()
        .map(|(reason, direction, packets)| {
            Ok(Reason {
                reason: reason.try_into().map_err(|_| StoreError::Value("reason"))?,
                direction: direction
                    .try_into()
                    .map_err(|_| StoreError::Value("direction"))?,
                packets: super::to_u64(packets),
            })
        })
        .collect()
}

fn parse(row: &AnyRow) -> Result<GatewayRow, StoreError> {
    let key: Option<String> = row.try_get("public_key")?;
    let key = key.map(|key| DeviceKey::from_store(&key).ok_or(StoreError::Value("public key")));
    Ok(GatewayRow {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        location_id: row.try_get("location_id")?,
        location: row.try_get("location")?,
        public_key: key.transpose()?,
        certificate: row.try_get("certificate")?,
        applied_revision: row.try_get("applied_revision")?,
        last_seen_ms: row.try_get("last_seen_ms")?,
        key_pinned: row.try_get::<i64, _>("key_pinned")? != 0,
        removing: row.try_get::<i64, _>("removing_since_ms")? != 0,
        open_until_ms: row.try_get("open_until_ms")?,
    })
}
