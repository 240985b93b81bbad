//! What the gateway tells control unasked: traffic, endpoints, drops, and sessions that the kernel
//! has closed by itself.

mod ended;

use std::collections::HashMap;
use std::net::SocketAddr;

use portcullis_proto::v1;

use crate::datapath::{self, DatapathError};
use crate::engine::Engine;
use crate::keys::PublicKey;
use crate::wireguard::{Device, PeerStatus};

/// Remembers what control has been told, so that only changes are sent.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    /// Status, and the last activity of a peer that holds a session.
    peers: HashMap<PublicKey, (PeerStatus, Option<u64>)>,
    reasons: HashMap<(u32, u32), u64>,
}

impl Reporter {
    /// Everything is told again: control has been away, or is another one.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// What changed since the last report, or `None` where nothing did.
    pub(crate) fn report(
        &mut self,
        engine: &mut Engine,
        device: &Device,
    ) -> Result<Option<v1::Report>, DatapathError> {
        let report = v1::Report {
            peers: self.peers(engine, device),
            reasons: self.reasons(engine)?,
            ended: ended::newly(engine),
            events: engine.take_events(),
        };
        let empty = report == v1::Report::default();
        Ok((!empty).then_some(report))
    }

    fn peers(&mut self, engine: &Engine, device: &Device) -> Vec<v1::PeerReport> {
        let now = datapath::now();
        let mut told = HashMap::with_capacity(device.peers.len());
        let mut reports = Vec::new();
        for peer in &device.peers {
            let activity = engine
                .desired()
                .and_then(|desired| desired.peer(&peer.key)?.session.as_ref())
                .and_then(|_| engine.datapath().activity(peer.key.as_bytes()));
            let state = (peer.status, activity);
            if self.peers.get(&peer.key) != Some(&state) {
                reports.push(v1::PeerReport {
                    public_key: peer.key.as_bytes().to_vec(),
                    endpoint: peer
                        .status
                        .endpoint
                        .as_ref()
                        .map_or_else(String::new, SocketAddr::to_string),
                    last_handshake_ms: peer.status.last_handshake_ms,
                    rx_bytes: peer.status.rx_bytes,
                    tx_bytes: peer.status.tx_bytes,
                    idle_ms: activity.map_or(0, |at| now.saturating_sub(at) / 1_000_000),
                });
            }
            told.insert(peer.key, state);
        }
        self.peers = told;
        reports
    }

    fn reasons(&mut self, engine: &Engine) -> Result<Vec<v1::ReasonCount>, DatapathError> {
        let mut changed = Vec::new();
        for counter in engine.datapath().counters()? {
            let key = (counter.reason as u32, counter.direction as u32);
            if self.reasons.insert(key, counter.packets).unwrap_or(0) != counter.packets {
                changed.push(v1::ReasonCount {
                    reason: key.0,
                    direction: key.1,
                    packets: counter.packets,
                });
            }
        }
        Ok(changed)
    }
}
