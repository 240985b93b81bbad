//! What gateways report of devices: endpoint, handshake, traffic.

use sqlx::{AnyConnection, Row as _};

use super::{StoreError, to_i64, to_u64};
use crate::domain::DeviceKey;

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
    /// Its live session, where that may not move.
    pub(crate) bound: Option<Bound>,
}

/// A session that belongs to one network.
pub(crate) struct Bound {
    pub(crate) session_id: String,
    /// Empty: the one that it is heard from next.
    pub(crate) network: String,
}

/// What was written down of a peer of this location last; `None` when there is no such peer.
pub(crate) async fn seen(
    sql: &mut AnyConnection,
    location_id: &str,
    public_key: DeviceKey,
) -> Result<Option<SeenBefore>, StoreError> {
    let row = sqlx::query(
        "SELECT d.endpoint, d.last_handshake_ms, d.rx_bytes, d.tx_bytes, s.last_activity_ms,
            CASE WHEN l.roaming = 0 THEN s.id END AS bound, s.network
         FROM devices d
         JOIN locations l ON l.id = d.location_id
         LEFT JOIN sessions s ON s.device_id = d.id AND s.state = 'live'
         WHERE d.public_key = $1 AND d.location_id = $2",
    )
    .bind(public_key.to_base64())
    .bind(location_id)
    .fetch_optional(sql)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let bound: Option<String> = row.try_get("bound")?;
    let network: Option<String> = row.try_get("network")?;
    Ok(Some(SeenBefore {
        seen: Seen {
            public_key,
            endpoint: row.try_get("endpoint")?,
            last_handshake_ms: row.try_get("last_handshake_ms")?,
            rx_bytes: to_u64(row.try_get("rx_bytes")?),
            tx_bytes: to_u64(row.try_get("tx_bytes")?),
        },
        last_activity_ms: row.try_get("last_activity_ms")?,
        bound: bound.map(|session_id| Bound {
            session_id,
            network: network.unwrap_or_default(),
        }),
    }))
}

/// The network that a session is bound to; empty: none.
pub(crate) async fn network_of(
    sql: &mut AnyConnection,
    session_id: &str,
) -> Result<String, StoreError> {
    let found = sqlx::query_scalar("SELECT network FROM sessions WHERE id = $1")
        .bind(session_id)
        .fetch_optional(sql)
        .await?;
    Ok(found.unwrap_or_default())
}

/// Binds a live session to a network, where it is bound to none.
pub(crate) async fn bind(
    sql: &mut AnyConnection,
    session_id: &str,
    network: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE sessions SET network = $2 WHERE id = $1 AND state = 'live' AND network = ''",
    )
    .bind(session_id)
    .bind(network)
    .execute(sql)
    .await?;
    Ok(())
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
