//! What a gateway must know: everything of its location that is newer than what it has.

use std::collections::HashMap;

use portcullis_proto::v1::Level;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::locations::{self, LocationRow};
use super::{Store, StoreError, to_i64, to_u64};
use crate::domain::{DeviceKey, Mode, level_from_store};

/// The difference between two revisions of one location.
pub(crate) struct Changes {
    pub(crate) revision: u64,
    /// Hash of the gateway's certificate: a stream of an older one has no business here any more.
    pub(crate) certificate: Option<String>,
    /// Everything there is, though perhaps less was asked for: no difference can be told.
    pub(crate) whole: bool,
    /// The gateway is being removed: it is to hold no peer.
    pub(crate) removing: bool,
    /// How sessions begin here, and with it which devices are peers.
    pub(crate) mode: Mode,
    /// Set when it changed.
    pub(crate) location: Option<LocationRow>,
    pub(crate) peers: Vec<PeerRow>,
    pub(crate) removed: Vec<DeviceKey>,
}

pub(crate) struct PeerRow {
    pub(crate) device_id: String,
    pub(crate) user_id: String,
    pub(crate) public_key: DeviceKey,
    /// Sealed.
    pub(crate) preshared_key: Option<String>,
    /// When the device is removed; 0 when it stays.
    pub(crate) ends_ms: i64,
    pub(crate) addresses: Vec<String>,
    pub(crate) session: Option<LiveSession>,
}

pub(crate) struct LiveSession {
    pub(crate) id: String,
    pub(crate) level: Level,
    pub(crate) authenticated_at_ms: i64,
    pub(crate) deadline_ms: i64,
    pub(crate) idle_timeout_ms: i64,
    pub(crate) last_activity_ms: i64,
    /// Sealed. At session-key locations.
    pub(crate) preshared_key: Option<String>,
    /// Mark of the key that the session had before.
    pub(crate) renews: Option<String>,
}

/// Revision, pruned; location, its revision and mode; certificate, and since when it is being removed.
type Head = (i64, i64, String, i64, String, Option<String>, i64);

impl Store {
    /// Whether a delta from this revision can be told: it is of this store's past, and no
    /// tombstone after it has been forgotten.
    pub(crate) async fn can_resume(&self, store_id: &str, since: u64) -> Result<bool, StoreError> {
        if store_id != self.store_id() || since == 0 {
            return Ok(false);
        }
        let (revision, pruned): (i64, i64) = sqlx::query_as("SELECT revision, pruned FROM meta")
            .fetch_one(&self.0.pool)
            .await?;
        Ok(to_u64(pruned) <= since && since <= to_u64(revision))
    }
}

/// What changed for a gateway after `since`; 0 for everything there is. `None` when there is no such
/// gateway any more.
pub(crate) async fn changes(
    sql: &mut AnyConnection,
    gateway_id: &str,
    since: u64,
) -> Result<Option<Changes>, StoreError> {
    let since = to_i64(since);
    let head: Option<Head> = sqlx::query_as(
        "SELECT m.revision, m.pruned, l.id, l.revision, l.mode, g.certificate, g.removing_since_ms
         FROM meta m, gateways g JOIN locations l ON l.id = g.location_id WHERE g.id = $1",
    )
    .bind(gateway_id)
    .fetch_optional(&mut *sql)
    .await?;
    let Some((revision, pruned, location_id, location_revision, mode, certificate, removing)) =
        head
    else {
        return Ok(None);
    };
    let removing = removing != 0;
    let mode = locations::mode_from_store(&mode)?;
    // Tombstones that such a difference needs may be forgotten.
    let whole = since == 0 || since < pruned || removing;
    let since = if whole { 0 } else { since };
    let location = if location_revision > since {
        locations::find(sql, &location_id).await?
    } else {
        None
    };
    if removing {
        return Ok(Some(Changes {
            revision: to_u64(revision),
            certificate,
            whole,
            removing,
            mode,
            location,
            peers: Vec::new(),
            removed: Vec::new(),
        }));
    }
    let mut peers = peers(sql, &location_id, since).await?;
    if !peers.is_empty() {
        let mut addresses = addresses(sql, &location_id, since).await?;
        for peer in &mut peers {
            peer.addresses = addresses.remove(&peer.device_id).unwrap_or_default();
        }
    }
    let removed: Vec<String> = sqlx::query_scalar(
        "SELECT public_key FROM tombstones WHERE location_id = $1 AND revision > $2",
    )
    .bind(&location_id)
    .bind(since)
    .fetch_all(sql)
    .await?;
    let removed = removed
        .iter()
        .map(|key| DeviceKey::from_store(key).ok_or(StoreError::Value("public key")))
        .collect::<Result<_, _>>()?;
    Ok(Some(Changes {
        revision: to_u64(revision),
        certificate,
        whole,
        removing,
        mode,
        location,
        peers,
        removed,
    }))
}

async fn peers(
    sql: &mut AnyConnection,
    location_id: &str,
    since: i64,
) -> Result<Vec<PeerRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT d.id, d.user_id, d.public_key, d.preshared_key, d.ends_ms, s.id AS session_id, s.level,
            s.authenticated_at_ms, s.deadline_ms, s.idle_timeout_ms, s.last_activity_ms,
            s.preshared_key AS session_key, s.renews
         FROM devices d LEFT JOIN sessions s ON s.device_id = d.id AND s.state = 'live'
         WHERE d.location_id = $1 AND d.revision > $2",
    )
    .bind(location_id)
    .bind(since)
    .fetch_all(sql)
    .await?;
    rows.iter().map(peer).collect()
}

async fn addresses(
    sql: &mut AnyConnection,
    location_id: &str,
    since: i64,
) -> Result<HashMap<String, Vec<String>>, StoreError> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT a.device_id, a.address FROM devices d JOIN device_addresses a ON a.device_id = d.id
         WHERE d.location_id = $1 AND d.revision > $2",
    )
    .bind(location_id)
    .bind(since)
    .fetch_all(sql)
    .await?;
    let mut addresses: HashMap<String, Vec<String>> = HashMap::new();
    for (device, address) in rows {
        addresses.entry(device).or_default().push(address);
    }
    Ok(addresses)
}

fn peer(row: &AnyRow) -> Result<PeerRow, StoreError> {
    let key: String = row.try_get("public_key")?;
    let session = match row.try_get::<Option<String>, _>("session_id")? {
        None => None,
        Some(id) => Some(LiveSession {
            id,
            level: level_from_store(row.try_get("level")?),
            authenticated_at_ms: row.try_get("authenticated_at_ms")?,
            deadline_ms: row.try_get("deadline_ms")?,
            idle_timeout_ms: row.try_get("idle_timeout_ms")?,
            last_activity_ms: row.try_get("last_activity_ms")?,
            preshared_key: row.try_get("session_key")?,
            renews: row.try_get("renews")?,
        }),
    };
    Ok(PeerRow {
        device_id: row.try_get("id")?,
        user_id: row.try_get("user_id")?,
        public_key: DeviceKey::from_store(&key).ok_or(StoreError::Value("public key"))?,
        preshared_key: row.try_get("preshared_key")?,
        ends_ms: row.try_get("ends_ms")?,
        addresses: Vec::new(),
        session,
    })
}
