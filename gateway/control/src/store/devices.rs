//! Devices, their addresses, and the tombstones of removed ones.

use std::collections::HashMap;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{StoreError, can_be_named};
use crate::domain::DeviceKey;

pub(crate) struct DeviceRow {
    pub(crate) id: String,
    pub(crate) name: String,
    /// What its user calls it; empty where an administrator named it.
    pub(crate) label: String,
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
    /// When it is removed; 0 when it stays.
    pub(crate) ends_ms: i64,
}

pub(crate) struct NewDevice<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) label: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) location_id: &'a str,
    pub(crate) public_key: DeviceKey,
    /// Sealed.
    pub(crate) preshared_key: Option<String>,
    pub(crate) revision: i64,
    pub(crate) created_ms: i64,
    /// 0: stays.
    pub(crate) ends_ms: i64,
}

impl DeviceRow {
    /// As its user knows it.
    pub(crate) fn called(&self) -> &str {
        if self.label.is_empty() {
            &self.name
        } else {
            &self.label
        }
    }
}

const SELECT: &str = "
    SELECT d.id, d.name, d.label, d.user_id, u.name AS user_name, u.disabled, d.location_id,
        l.name AS location, d.public_key, d.preshared_key, d.created_ms, d.endpoint,
        d.last_handshake_ms, d.rx_bytes, d.tx_bytes, d.delayed_until_ms, d.ends_ms
    FROM devices d JOIN users u ON u.id = d.user_id JOIN locations l ON l.id = d.location_id";

pub(crate) async fn insert(
    sql: &mut AnyConnection,
    device: &NewDevice<'_>,
) -> Result<(), StoreError> {
    let key = device.public_key.to_base64();
    sqlx::query(
        "INSERT INTO devices
            (id, name, label, user_id, location_id, public_key, preshared_key, revision, created_ms,
             ends_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(device.id)
    .bind(device.name)
    .bind(device.label)
    .bind(device.user_id)
    .bind(device.location_id)
    .bind(&key)
    .bind(&device.preshared_key)
    .bind(device.revision)
    .bind(device.created_ms)
    .bind(device.ends_ms)
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
    if !can_be_named(name_or_id) {
        return Ok(None);
    }
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

/// Temporary devices whose time is over.
pub(crate) async fn ended(
    sql: &mut AnyConnection,
    now_ms: i64,
) -> Result<Vec<DeviceRow>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!("{SELECT} WHERE d.ends_ms > 0 AND d.ends_ms <= $1"));
    let rows = sqlx::query(query).bind(now_ms).fetch_all(sql).await?;
    rows.iter().map(parse).collect()
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
        label: row.try_get("label")?,
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
        ends_ms: row.try_get("ends_ms")?,
    })
}
