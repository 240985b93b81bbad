//! What the gateway tells control unasked: traffic, endpoints, drops, and sessions that the kernel
//! has closed by itself.

mod ended;

use std::collections::HashMap;
use std::net::SocketAddr;

use gateway_common::verdict::Reason;
use portcullis_proto::v1;

use crate::datapath::{self, DatapathError};
use crate::engine::Engine;
use crate::keys::PublicKey;
use crate::wireguard::{Device, PeerStatus};

/// What is told of a peer: its status, the last activity of one that holds a session, its drops.
type PeerSeen = (PeerStatus, Option<u64>, Vec<(Reason, u64)>);

/// Remembers what control has been told, so that only changes are sent.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    peers: HashMap<PublicKey, PeerSeen>,
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
        shield: Vec<v1::ReasonCount>,
    ) -> Result<Option<v1::Report>, DatapathError> {
        let report = v1::Report {
            peers: self.peers(engine, device),
            reasons: self.reasons(engine, shield)?,
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
            // Without an answer of the kernel's, as if there were none: the next report corrects it.
            let drops = engine
                .datapath()
                .peer_drops(peer.key.as_bytes())
                .unwrap_or_default();
            let state = (peer.status, activity, drops);
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
                    drops: state
                        .2
                        .iter()
                        .map(|(reason, packets)| v1::PeerDrops {
                            reason: *reason as u32,
                            packets: *packets,
                        })
                        .collect(),
                });
            }
            told.insert(peer.key, state);
        }
        self.peers = told;
        reports
    }

    fn reasons(
        &mut self,
        engine: &Engine,
        shield: Vec<v1::ReasonCount>,
    ) -> Result<Vec<v1::ReasonCount>, DatapathError> {
        let gate = engine.datapath().counters()?;
        let mut all = shield;
        all.extend(gate.into_iter().map(|counter| v1::ReasonCount {
            reason: counter.reason as u32,
            direction: counter.direction as u32,
            packets: counter.packets,
        }));
        all.retain(|count| {
            let told = self
                .reasons
                .insert((count.reason, count.direction), count.packets);
            told.unwrap_or(0) != count.packets
        });
        Ok(all)
    }
}
