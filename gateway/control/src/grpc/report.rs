//! What a gateway reports, written down in the order it came, beside the stream so that no
//! revocation waits for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use portcullis_proto::v1::{self, session_ended::Cause};
use serde_json::{Value, json};

use super::inbox::Pending;
use crate::core::Core;
use crate::domain::{DeviceKey, SessionState};
use crate::error::OperationError;
use crate::outside::network;
use crate::store::gateways::{self, GatewayRow};
use crate::store::seen::{self, Bound, Seen};
use crate::store::sessions::{self, Ending, Selection, SessionRow};
use crate::store::{Entry, Write, locations, to_i64};

pub(super) use super::inbox::Inbox;

/// What one transaction writes: a revocation waits for one of them at most.
const AT_ONCE: usize = 100;

/// Takes reports until the returned inbox is dropped.
pub(super) fn recorder(core: Arc<Core>, gateway: GatewayRow) -> Inbox {
    let (inbox, mut outlet) = Inbox::new();
    tokio::spawn(async move {
        while let Some(pending) = outlet.next().await {
            if let Err(error) = record(&core, &gateway, &pending).await {
                tracing::warn!(gateway = gateway.name, %error, "a report was not recorded");
            }
        }
    });
    inbox
}

async fn record(
    core: &Core,
    gateway: &GatewayRow,
    pending: &Pending,
) -> Result<(), OperationError> {
    for ended in pending.ended.chunks(AT_ONCE) {
        end_sessions(core, gateway, ended).await?;
    }
    for peers in pending.peers.chunks(AT_ONCE) {
        record_peers(core, gateway, peers).await?;
    }
    if pending.reasons.is_empty() && pending.events.is_empty() {
        return Ok(());
    }
    let mut write = core.store.record(core.now_ms()).await?;
    if !may_report(&mut write, gateway).await? {
        return Ok(());
    }
    for reason in &pending.reasons {
        gateways::set_reason(write.sql(), &gateway.id, reason).await?;
    }
    let actor = format!("gateway:{}", gateway.name);
    for event in &pending.events {
        tracing::info!(gateway = gateway.name, event, "gateway event");
        let detail = json!({ "event": event });
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

/// What is to be written of one peer.
struct Change {
    seen: Seen,
    /// From what the store holds.
    differs: bool,
    /// Of its live session, where that is news.
    active_ms: Option<i64>,
    /// The live session that belongs to the network of this report, by its id and that network.
    binds: Option<(String, String)>,
}

/// Writes down what has changed of these peers. What has not is found out without the writers' lock.
async fn record_peers(
    core: &Core,
    gateway: &GatewayRow,
    peers: &[v1::PeerReport],
) -> Result<(), OperationError> {
    let now_ms = core.now_ms();
    let mut changed = Vec::new();
    let mut moved = Vec::new();
    let mut read = core.store.read().await?;
    for peer in peers {
        let Some(public_key) = DeviceKey::for_lookup(&peer.public_key) else {
            continue;
        };
        // A peer that control does not know is the reconciler's business.
        let Some(before) = seen::seen(read.sql(), &gateway.location_id, public_key).await? else {
            continue;
        };
        core.traffic
            .saw(&gateway.name, public_key, peer, Instant::now());
        let seen = Seen {
            public_key,
            endpoint: peer.endpoint.clone(),
            last_handshake_ms: peer.last_handshake_ms,
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
        };
        let active_ms = now_ms.saturating_sub(to_i64(peer.idle_ms));
        let mut binds = None;
        if let Some(bound) = before.bound
            && let Some(network) = network_of(&peer.endpoint)
        {
            match bound.network.as_str() {
                "" => binds = Some((bound.session_id, network)),
                before if before == network => {}
                _ => moved.push(Moved { bound, to: network }),
            }
        }
        let change = Change {
            binds,
            differs: seen != before.seen,
            active_ms: before
                .last_activity_ms
                .filter(|last_ms| *last_ms < active_ms)
                .map(|_| active_ms),
            seen,
        };
        if change.differs || change.active_ms.is_some() || change.binds.is_some() {
            changed.push(change);
        }
    }
    read.end().await?;
    if !moved.is_empty() {
        end_moved(core, gateway, moved).await?;
    }
    if changed.is_empty() {
        return Ok(());
    }
    let mut write = core.store.record(now_ms).await?;
    if !may_report(&mut write, gateway).await? {
        return Ok(());
    }
    for change in changed {
        let (location, key) = (&gateway.location_id, change.seen.public_key);
        if change.differs {
            seen::saw(write.sql(), location, &change.seen).await?;
        }
        if let Some((session_id, network)) = &change.binds {
            seen::bind(write.sql(), session_id, network).await?;
        }
        if let Some(at_ms) = change.active_ms {
            sessions::saw_activity(write.sql(), location, key, at_ms).await?;
        }
    }
    write.commit().await?;
    Ok(())
}

/// A session that belongs to one network, and was heard from another.
struct Moved {
    bound: Bound,
    to: String,
}

/// The network of an endpoint: ports change behind a NAT by themselves.
fn network_of(endpoint: &str) -> Option<String> {
    let endpoint: SocketAddr = endpoint.parse().ok()?;
    Some(network(endpoint.ip()).to_canonical().to_string())
}

/// Ends sessions whose devices are where they may not be.
async fn end_moved(
    core: &Core,
    gateway: &GatewayRow,
    moved: Vec<Moved>,
) -> Result<(), OperationError> {
    let mut write = core.store.change(core.now_ms()).await?;
    if !may_report(&mut write, gateway).await? {
        return Ok(());
    }
    // As things are now: it may be allowed by now, or the session belong to another network.
    let location = locations::find(write.sql(), &gateway.location_id).await?;
    if location.is_none_or(|location| location.roaming != 0) {
        return Ok(());
    }
    let mut any = false;
    for Moved { bound, to } in moved {
        let network = seen::network_of(write.sql(), &bound.session_id).await?;
        if network != bound.network {
            continue;
        }
        if let Some(session) = sessions::find(write.sql(), &bound.session_id).await? {
            let networks = json!({ "from": network, "to": to });
            any |= end(&mut write, gateway, session, SessionState::Moved, networks).await?;
        }
    }
    if any {
        write.commit().await?;
    }
    Ok(())
}

/// Ends a session by a gateway's word, and leaves a record with what else is known. False when it had ended before.
async fn end(
    write: &mut Write<'_>,
    gateway: &GatewayRow,
    session: SessionRow,
    state: SessionState,
    mut detail: Value,
) -> Result<bool, OperationError> {
    let (revision, now_ms) = (write.revision(), write.now_ms());
    let actor = format!("gateway:{}", gateway.name);
    detail["session"] = json!(session.id);
    detail["state"] = json!(state.as_str());
    let ending = Ending { state, by: &actor };
    let selection = Selection::Session(session.id);
    let ended = sessions::end(write.sql(), &selection, ending, revision, now_ms).await?;
    if ended.is_empty() {
        return Ok(false);
    }
    let entry = Entry {
        actor: &actor,
        action: "session.end",
        subject: &format!("device:{}", session.device),
        detail,
    };
    write.audit(entry).await?;
    Ok(true)
}

/// Whether the gateway is still what it was when its stream began: not removed, not about to be, and
/// not enrolled again.
async fn may_report(write: &mut Write<'_>, gateway: &GatewayRow) -> Result<bool, OperationError> {
    let row = gateways::find(write.sql(), &gateway.id).await?;
    Ok(row.is_some_and(|row| !row.removing && row.certificate == gateway.certificate))
}

/// Whether some gateway has seen the session's peer within its idle timeout. A report says how long
/// ago, and takes a moment to arrive: that much may be missing.
fn is_active(session: &SessionRow, now_ms: i64) -> bool {
    const ON_ITS_WAY_MS: i64 = 1000;
    let timeout_ms = session.idle_timeout_ms;
    let slack_ms = ON_ITS_WAY_MS.min(timeout_ms / 2);
    now_ms.saturating_sub(session.last_activity_ms) < timeout_ms - slack_ms
}

/// Ends sessions that a gateway's kernel has closed.
async fn end_sessions(
    core: &Core,
    gateway: &GatewayRow,
    ended: &[v1::SessionEnded],
) -> Result<(), OperationError> {
    let mut write = core.store.change(core.now_ms()).await?;
    let now_ms = write.now_ms();
    if !may_report(&mut write, gateway).await? {
        return Ok(());
    }
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
        // Silent here, and not at another gateway of the location.
        if state == SessionState::Idle && is_active(&session, now_ms) {
            continue;
        }
        any |= end(&mut write, gateway, session, state, json!({})).await?;
    }
    if any {
        write.commit().await?;
    }
    Ok(())
}
