//! What gateways report of devices: endpoint, handshake, traffic.

use sqlx::AnyConnection;

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
