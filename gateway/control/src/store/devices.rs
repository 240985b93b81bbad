//! Devices, their addresses, and the tombstones of removed ones.

use std::collections::HashMap;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{StoreError, to_i64, to_u64};
use crate::domain::DeviceKey;

pub(crate) struct DeviceRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) user_id: String,
    pub(crate) user: String,
    pub(crate) user_disabled: bool,
    pub(crate) location_id: String,
    pub(crate) location: String,
    pub(crate) public_key: DeviceKey,
    pub(crate) has_preshared_key: bool,
    pub(crate) created_ms: i64,
    pub(crate) endpoint: String,
    pub(crate) last_handshake_ms: i64,
    pub(crate) rx_bytes: i64,
    pub(crate) tx_bytes: i64,
    /// No login from it is evaluated before this time.
    pub(crate) delayed_until_ms: i64,
}

pub(crate) struct NewDevice<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) location_id: &'a str,
    pub(crate) public_key: DeviceKey,
    /// Sealed.
    pub(crate) preshared_key: Option<String>,
    pub(crate) revision: i64,
    pub(crate) created_ms: i64,
}

const SELECT: &str = "
    SELECT d.id, d.name, d.user_id, u.name AS user_name, u.disabled, d.location_id,
        l.name AS location, d.public_key, d.preshared_key, d.created_ms, d.endpoint,
        d.last_handshake_ms, d.rx_bytes, d.tx_bytes, d.delayed_until_ms
    FROM devices d JOIN users u ON u.id = d.user_id JOIN locations l ON l.id = d.location_id";

pub(crate) async fn insert(
    sql: &mut AnyConnection,
    device: &NewDevice<'_>,
) -> Result<(), StoreError> {
    let key = device.public_key.to_base64();
    sqlx::query(
        "INSERT INTO devices
            (id, name, user_id, location_id, public_key, preshared_key, revision, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(device.id)
    .bind(device.name)
    .bind(device.user_id)
    .bind(device.location_id)
    .bind(&key)
    .bind(&device.preshared_key)
    .bind(device.revision)
    .bind(device.created_ms)
    .execute(&mut *sql)
    .await?;
    // The key is back: a delta must not remove what it also adds.
    sqlx::query("DELETE FROM tombstones WHERE location_id = $1 AND public_key = $2")
        .bind(device.location_id)
        .bind(&key)
        .execute(sql)
        .await?;
    Ok(())
}

pub(crate) async fn add_address(
    sql: &mut AnyConnection,
    device_id: &str,
    location_id: &str,
    address: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO device_addresses (address, device_id, location_id) VALUES ($1, $2, $3)",
    )
    .bind(address)
    .bind(device_id)
    .bind(location_id)
    .execute(sql)
    .await?;
    Ok(())
}

/// By name or id.
pub(crate) async fn find(
    sql: &mut AnyConnection,
    name_or_id: &str,
) -> Result<Option<DeviceRow>, StoreError> {
    one(sql, "WHERE d.name = $1 OR d.id = $1", name_or_id).await
}

/// The device that a tunnel address belongs to.
pub(crate) async fn find_by_address(
    sql: &mut AnyConnection,
    address: &str,
) -> Result<Option<DeviceRow>, StoreError> {
    let condition = "JOIN device_addresses a ON a.device_id = d.id WHERE a.address = $1";
    one(sql, condition, address).await
}

/// Whether a tunnel address belongs to a device.
pub(crate) async fn is_address(sql: &mut AnyConnection, address: &str) -> Result<bool, StoreError> {
    let query = "SELECT device_id FROM device_addresses WHERE address = $1";
    let found: Option<String> = sqlx::query_scalar(query)
        .bind(address)
        .fetch_optional(sql)
        .await?;
    Ok(found.is_some())
}

pub(crate) async fn find_by_key(
    sql: &mut AnyConnection,
    key: DeviceKey,
) -> Result<Option<DeviceRow>, StoreError> {
    one(sql, "WHERE d.public_key = $1", &key.to_base64()).await
}

async fn one(
    sql: &mut AnyConnection,
    condition: &'static str,
    value: &str,
) -> Result<Option<DeviceRow>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!("{SELECT} {condition}"));
    let row = sqlx::query(query).bind(value).fetch_optional(sql).await?;
    row.as_ref().map(parse).transpose()
}

/// Of a user and a location, by id; an empty one stands for all.
pub(crate) async fn list(
    sql: &mut AnyConnection,
    user_id: &str,
    location_id: &str,
) -> Result<Vec<DeviceRow>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE ($1 = '' OR d.user_id = $1) AND ($2 = '' OR d.location_id = $2)
         ORDER BY d.name"
    ));
    let rows = sqlx::query(query)
        .bind(user_id)
        .bind(location_id)
        .fetch_all(sql)
        .await?;
    rows.iter().map(parse).collect()
}

pub(crate) async fn addresses_of(
    sql: &mut AnyConnection,
    device_id: &str,
) -> Result<Vec<String>, StoreError> {
    let query = "SELECT address FROM device_addresses WHERE device_id = $1 ORDER BY address";
    Ok(sqlx::query_scalar(query)
        .bind(device_id)
        .fetch_all(sql)
        .await?)
}

/// Addresses of every device of a location (an empty id: of all), by device id.
pub(crate) async fn addresses(
    sql: &mut AnyConnection,
    location_id: &str,
) -> Result<HashMap<String, Vec<String>>, StoreError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT device_id, address FROM device_addresses
         WHERE $1 = '' OR location_id = $1 ORDER BY device_id, address",
    )
    .bind(location_id)
    .fetch_all(sql)
    .await?;
    let mut addresses: HashMap<String, Vec<String>> = HashMap::new();
    for (device, address) in rows {
        addresses.entry(device).or_default().push(address);
    }
    Ok(addresses)
}

/// Removes a device with its sessions, and leaves a tombstone for the gateways' deltas.
pub(crate) async fn delete(
    sql: &mut AnyConnection,
    device: &DeviceRow,
    revision: i64,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO tombstones (public_key, location_id, revision, created_ms)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (location_id, public_key) DO UPDATE
         SET revision = excluded.revision, created_ms = excluded.created_ms",
    )
    .bind(device.public_key.to_base64())
    .bind(&device.location_id)
    .bind(revision)
    .bind(now_ms)
    .execute(&mut *sql)
    .await?;
    sqlx::query("DELETE FROM devices WHERE id = $1")
        .bind(&device.id)
        .execute(sql)
        .await?;
    Ok(())
}

/// Forgets tombstones made before a time. Gateways that know less than the newest of them get a
/// snapshot from then on.
pub(crate) async fn prune_tombstones(
    sql: &mut AnyConnection,
    before_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE meta SET pruned =
            (SELECT MAX(revision) FROM tombstones WHERE created_ms < $1)
         WHERE pruned < (SELECT MAX(revision) FROM tombstones WHERE created_ms < $1)",
    )
    .bind(before_ms)
    .execute(&mut *sql)
    .await?;
    sqlx::query("DELETE FROM tombstones WHERE created_ms < $1")
        .bind(before_ms)
        .execute(sql)
        .await?;
    Ok(())
}

/// Marks the user's devices as changed.
pub(crate) async fn touch_of_user(
    sql: &mut AnyConnection,
    user_id: &str,
    revision: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE devices SET revision = $2 WHERE user_id = $1")
        .bind(user_id)
        .bind(revision)
        .execute(sql)
        .await?;
    Ok(())
}

/// What a gateway saw of a peer of its location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) public_key: DeviceKey,
    pub(crate) endpoint: String,
    pub(crate) last_handshake_ms: i64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
}

/// What the store holds of it, with the last activity of the peer's live session.
pub(crate) struct SeenBefore {
    pub(crate) seen: Seen,
    pub(crate) last_activity_ms: Option<i64>,
}

/// What was written down of a peer of this location last; `None` when there is no such peer.
pub(crate) async fn seen(
    sql: &mut AnyConnection,
    location_id: &str,
    public_key: DeviceKey,
) -> Result<Option<SeenBefore>, StoreError> {
    let row: Option<(String, i64, i64, i64, Option<i64>)> = sqlx::query_as(
        "SELECT d.endpoint, d.last_handshake_ms, d.rx_bytes, d.tx_bytes, s.last_activity_ms
         FROM devices d LEFT JOIN sessions s ON s.device_id = d.id AND s.state = 'live'
         WHERE d.public_key = $1 AND d.location_id = $2",
    )
    .bind(public_key.to_base64())
    .bind(location_id)
    .fetch_optional(sql)
    .await?;
    Ok(row.map(
        |(endpoint, last_handshake_ms, rx_bytes, tx_bytes, last_activity_ms)| SeenBefore {
            seen: Seen {
                public_key,
                endpoint,
                last_handshake_ms,
                rx_bytes: to_u64(rx_bytes),
                tx_bytes: to_u64(tx_bytes),
            },
            last_activity_ms,
        },
    ))
}

pub(crate) async fn saw(
    sql: &mut AnyConnection,
    location_id: &str,
    seen: &Seen,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE devices SET endpoint = $3, last_handshake_ms = $4, rx_bytes = $5, tx_bytes = $6
         WHERE public_key = $1 AND location_id = $2",
    )
    .bind(seen.public_key.to_base64())
    .bind(location_id)
    .bind(&seen.endpoint)
    .bind(seen.last_handshake_ms)
    .bind(to_i64(seen.rx_bytes))
    .bind(to_i64(seen.tx_bytes))
    .execute(sql)
    .await?;
    Ok(())
}

pub(crate) async fn count(sql: &mut AnyConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar("SELECT COUNT(*) FROM devices")
        .fetch_one(sql)
        .await?)
}

fn parse(row: &AnyRow) -> Result<DeviceRow, StoreError> {
    let key: String = row.try_get("public_key")?;
    Ok(DeviceRow {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        user_id: row.try_get("user_id")?,
        user: row.try_get("user_name")?,
        user_disabled: row.try_get::<i64, _>("disabled")? != 0,
        location_id: row.try_get("location_id")?,
        location: row.try_get("location")?,
        public_key: DeviceKey::from_store(&key).ok_or(StoreError::Value("public key"))?,
        has_preshared_key: row.try_get::<Option<String>, _>("preshared_key")?.is_some(),
        created_ms: row.try_get("created_ms")?,
        endpoint: row.try_get("endpoint")?,
        last_handshake_ms: row.try_get("last_handshake_ms")?,
        rx_bytes: row.try_get("rx_bytes")?,
        tx_bytes: row.try_get("tx_bytes")?,
        delayed_until_ms: row.try_get("delayed_until_ms")?,
    })
}
