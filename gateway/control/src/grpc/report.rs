//! What a gateway reports, written down in the order it came, beside the stream so that no
//! revocation waits for it.

use std::sync::Arc;

use portcullis_proto::v1::{self, session_ended::Cause};
use serde_json::json;
use tokio::sync::mpsc;

use crate::core::Core;
use crate::domain::{DeviceKey, SessionState};
use crate::error::OperationError;
use crate::store::devices::{self, Seen};
use crate::store::gateways::{self, GatewayRow, Reason};
use crate::store::sessions::{self, Ending, Selection};
use crate::store::{Entry, to_i64};

/// Reports that may wait; the stream stops reading when there are more.
const WAITING: usize = 64;
/// What a gateway may say in one event.
const LONGEST_EVENT: usize = 1024;

/// Takes reports until the returned sender is dropped.
pub(super) fn recorder(core: Arc<Core>, gateway: GatewayRow) -> mpsc::Sender<v1::Report> {
    let (sender, mut reports) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        while let Some(report) = reports.recv().await {
            if let Err(error) = record(&core, &gateway, &report).await {
                tracing::warn!(gateway = gateway.name, %error, "a report was not recorded");
            }
        }
    });
    sender
}

async fn record(
    core: &Core,
    gateway: &GatewayRow,
    report: &v1::Report,
) -> Result<(), OperationError> {
    if !report.ended.is_empty() {
        end_sessions(core, gateway, &report.ended).await?;
    }
    if report.peers.is_empty() && report.reasons.is_empty() && report.events.is_empty() {
        return Ok(());
    }
    let mut write = core.store.record(core.now_ms()).await?;
    let now_ms = write.now_ms();
    for peer in &report.peers {
        // A peer that control does not know is the reconciler's business.
        let Ok(public_key) = DeviceKey::parse(&peer.public_key) else {
            continue;
        };
        let seen = Seen {
            public_key,
            endpoint: &peer.endpoint,
            last_handshake_ms: peer.last_handshake_ms,
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
        };
        core.traffic
            .saw(&gateway.name, public_key, peer, std::time::Instant::now());
        devices::saw(write.sql(), &gateway.location_id, &seen).await?;
        let active_ms = now_ms.saturating_sub(to_i64(peer.idle_ms));
        sessions::saw_activity(write.sql(), &gateway.location_id, public_key, active_ms).await?;
    }
    for count in &report.reasons {
        let reason = Reason {
            reason: count.reason,
            direction: count.direction,
            packets: count.packets,
        };
        gateways::set_reason(write.sql(), &gateway.id, &reason).await?;
    }
    let actor = format!("gateway:{}", gateway.name);
    for event in &report.events {
        let text: String = event.chars().take(LONGEST_EVENT).collect();
        tracing::info!(gateway = gateway.name, event = text, "gateway event");
        let detail = json!({ "event": text });
        let entry = Entry {
            actor: &actor,
            action: "gateway.event",
            subject: &gateway.name,
            detail,
        };
        write.audit(entry).await?;
    }
    write.commit().await?;
    Ok(())
}

/// Ends sessions that a gateway's kernel has closed.
async fn end_sessions(
    core: &Core,
    gateway: &GatewayRow,
    ended: &[v1::SessionEnded],
) -> Result<(), OperationError> {
    let mut write = core.store.change(core.now_ms()).await?;
    let (revision, now_ms) = (write.revision(), write.now_ms());
    let actor = format!("gateway:{}", gateway.name);
    let mut any = false;
    for report in ended {
        let state = match report.cause() {
            Cause::Idle => SessionState::Idle,
            Cause::Deadline => SessionState::Expired,
            Cause::Unspecified => continue,
        };
        let Ok(id) = uuid::Uuid::from_slice(&report.id) else {
            continue;
        };
        let Some(session) = sessions::find(write.sql(), &id.to_string()).await? else {
            continue;
        };
        // Extended in the meantime: the gateway is about to hear of it.
        let extended = state == SessionState::Expired && session.deadline_ms > now_ms;
        if session.location_id != gateway.location_id || extended {
            continue;
        }
        let subject = format!("device:{}", session.device);
        let detail = json!({ "session": session.id, "state": state.as_str() });
        let ending = Ending { state, by: &actor };
        let selection = Selection::Session(session.id);
        if sessions::end(write.sql(), &selection, ending, revision, now_ms).await? > 0 {
            any = true;
            write
                .audit(Entry {
                    actor: &actor,
                    action: "session.end",
                    subject: &subject,
                    detail,
                })
                .await?;
        }
    }
    if any {
        write.commit().await?;
    }
    Ok(())
}
