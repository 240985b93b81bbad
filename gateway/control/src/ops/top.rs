//! Every device with its session, traffic and drops.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use portcullis_proto::v1;

use super::Result;
use super::sessions::view;
use crate::core::Core;
use crate::store::{devices, sessions, to_u64};

impl Core {
    pub(crate) async fn top(&self) -> Result<v1::TopResponse> {
        let mut read = self.store.read().await?;
        let rows = devices::list(read.sql(), "", "").await?;
        let mut addresses = devices::addresses(read.sql(), "").await?;
        let live = sessions::list(read.sql(), "", "", false).await?;
        read.end().await?;
        let now_ms = self.now_ms();
        let mut sessions: HashMap<String, v1::SessionInfo> = live
            .into_iter()
            .filter(|session| session.deadline_ms > now_ms)
            .map(|session| (session.device_id.clone(), view(session)))
            .collect();
        let keys: HashSet<_> = rows.iter().map(|row| row.public_key).collect();
        self.traffic.keep(|key| keys.contains(key));
        let now = Instant::now();
        let peers = rows.into_iter().map(|row| {
            let traffic = self.traffic.get(row.public_key);
            let (rx_rate, tx_rate) = traffic.as_ref().map_or((0, 0), |seen| seen.rates(now));
            v1::TopPeer {
                addresses: addresses.remove(&row.id).unwrap_or_default(),
                session: sessions.remove(&row.id),
                gateway: traffic
                    .as_ref()
                    .map(|seen| seen.gateway.clone())
                    .unwrap_or_default(),
                // What the store has is of the gateway that reported last, perhaps to another
                // control process.
                rx_bytes: traffic
                    .as_ref()
                    .map_or(to_u64(row.rx_bytes), |seen| seen.rx_bytes),
                tx_bytes: traffic
                    .as_ref()
                    .map_or(to_u64(row.tx_bytes), |seen| seen.tx_bytes),
                rx_rate,
                tx_rate,
                drops: traffic.map(|seen| seen.drops).unwrap_or_default(),
                device: row.name,
                user: row.user,
                location: row.location,
            }
        });
        Ok(v1::TopResponse {
            peers: peers.collect(),
        })
    }
}
