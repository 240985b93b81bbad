//! Ends sessions whose deadline has passed, which is bookkeeping: the kernel stopped their packets at the
//! deadline by itself (invariant 2). Removes temporary devices whose time is over, and with them their
//! peers from the kernel.

use std::time::Duration;

use serde_json::json;

use crate::core::Core;
use crate::domain::SessionState;
use crate::error::OperationError;
use crate::store::sessions::{self, Ending, Selection};
use crate::store::{
    Entry, StoreError, approvals, attempts, audit, devices, enrolments, gateways, invites, limits,
    outside, sso, temporary, to_u64, webauthn,
};

/// Looks at least this often, for clocks that are set and sessions granted by other processes.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(2);
/// A gateway that was away for longer gets a snapshot instead of a delta.
const TOMBSTONES_MS: i64 = 7 * 24 * 60 * 60 * 1000;
const CLEAN_UP_EVERY: Duration = Duration::from_secs(60 * 60);

/// Sweeps until dropped.
pub(crate) async fn run(core: &Core) {
    let mut revisions = core.store.revisions();
    let mut cleaned: Option<tokio::time::Instant> = None;
    if let Err(error) = crate::ssh::grace(core).await {
        tracing::warn!(%error, "sessions of SSH connections may end before their holders are back");
    }
    loop {
        if let Err(error) = finish_removals(core).await {
            tracing::warn!(%error, "removed gateways could not be forgotten");
        }
        let pause = match sweep(core).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(%error, "expired sessions could not be ended");
                RETRY
            }
        };
        let pause = pause.min(match remove_ended(core).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(%error, "temporary devices could not be removed");
                RETRY
            }
        });
        let pause = pause.min(match crate::sso::lapse(core).await {
            Ok(next) => until(next, core.now_ms()),
            Err(error) => {
                tracing::warn!(%error, "groups that a provider told of too long ago could not be taken");
                RETRY
            }
        });
        let pause = pause.min(match crate::ssh::lapse(core).await {
            Ok(next) => until(next, core.now_ms()),
            Err(error) => {
                tracing::warn!(%error, "sessions whose SSH connections are gone could not be ended");
                RETRY
            }
        });
        let pause = pause.min(match crate::ops::session_key::settle_left(core).await {
            Ok(next) => until(next, core.now_ms()),
            Err(error) => {
                tracing::warn!(%error, "sessions that no gateway has acknowledged could not be undone");
                RETRY
            }
        });
        if cleaned.is_none_or(|at| at.elapsed() >= CLEAN_UP_EVERY) {
            match clean_up(core).await {
                Ok(()) => cleaned = Some(tokio::time::Instant::now()),
                Err(error) => tracing::warn!(%error, "old records could not be removed"),
            }
        }
        // A change may bring a nearer deadline.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = revisions.changed() => {}
        }
    }
}

/// How long there is nothing to do.
fn until(next_ms: Option<i64>, now_ms: i64) -> Duration {
    next_ms.map_or(LONGEST_SLEEP, |next_ms| {
        match to_u64(next_ms.saturating_sub(now_ms)) {
            0 => Duration::ZERO,
            left_ms => Duration::from_millis(left_ms.saturating_add(1)).min(LONGEST_SLEEP),
        }
    })
}

/// Ends what is due. Answers how long nothing else will be.
pub(crate) async fn sweep(core: &Core) -> Result<Duration, StoreError> {
    let mut read = core.store.read().await?;
    let next = sessions::next_deadline(read.sql()).await?;
    read.end().await?;
    let Some(next) = next else {
        return Ok(LONGEST_SLEEP);
    };
    let now_ms = core.now_ms();
    if next > now_ms {
        return Ok(until(Some(next), now_ms));
    }
    let mut write = core.store.change(now_ms).await?;
    let revision = write.revision();
    let ending = Ending {
        state: SessionState::Expired,
        by: "system",
    };
    let due = Selection::PastDeadline(now_ms);
    let ended = sessions::end(write.sql(), &due, ending, revision, now_ms).await?;
    if ended.is_empty() {
        return Ok(Duration::ZERO); // another process was faster; the write is rolled back
    }
    let entry = Entry {
        actor: "system",
        action: "session.expire",
        subject: "deadline",
        detail: crate::ops::ended(&ended),
    };
    write.audit(entry).await?;
    write.commit().await?;
    Ok(Duration::ZERO)
}

/// Removes temporary devices whose time is over. Answers how long there will be no other.
async fn remove_ended(core: &Core) -> Result<Duration, OperationError> {
    let now_ms = core.now_ms();
    let mut read = core.store.read().await?;
    let next = temporary::next_end(read.sql()).await?;
    read.end().await?;
    match next {
        None => return Ok(LONGEST_SLEEP),
        Some(next) if next > now_ms => return Ok(until(Some(next), now_ms)),
        Some(_) => {}
    }
    let mut write = core.store.change(now_ms).await?;
    // None is left where another process was faster; the write is then rolled back.
    let ended = devices::ended(write.sql(), now_ms).await?;
    if ended.is_empty() {
        return Ok(Duration::ZERO);
    }
    for device in &ended {
        let sessions = crate::ops::devices::unmake(&mut write, device).await?;
        let detail = json!({
            "user": device.user,
            "called": device.called(),
            "sessions": sessions.len(),
        });
        let entry = Entry {
            actor: "system",
            action: "device.expire",
            subject: &device.name,
            detail,
        };
        write.audit(entry).await?;
    }
    write.commit().await?;
    Ok(Duration::ZERO)
}

/// Forgets gateways that were removed while they could not be told, once nothing that they can hold
/// is open any more.
async fn finish_removals(core: &Core) -> Result<(), StoreError> {
    let mut read = core.store.read().await?;
    let closed = gateways::closed(read.sql(), core.now_ms()).await?;
    read.end().await?;
    if closed.is_empty() {
        return Ok(());
    }
    let mut write = core.store.change(core.now_ms()).await?;
    for gateway in closed {
        gateways::delete(write.sql(), &gateway.id).await?;
        write
            .audit(Entry {
                actor: "system",
                action: "gateway.removed",
                subject: &gateway.name,
                detail: json!({ "because": "the last deadline has passed" }),
            })
            .await?;
    }
    write.commit().await?;
    Ok(())
}

async fn clean_up(core: &Core) -> Result<(), StoreError> {
    let mut write = core.store.record(core.now_ms()).await?;
    let now_ms = write.now_ms();
    devices::prune_tombstones(write.sql(), now_ms - TOMBSTONES_MS).await?;
    attempts::delete_expired(write.sql(), now_ms).await?;
    approvals::delete_expired(write.sql(), now_ms).await?;
    invites::delete_expired(write.sql(), now_ms).await?;
    webauthn::delete_expired(write.sql(), now_ms).await?;
    enrolments::delete_expired(write.sql(), now_ms).await?;
    sso::delete_expired(write.sql(), now_ms).await?;
    outside::delete_expired(write.sql(), now_ms).await?;
    for (user, device, refused) in limits::take_unnoted(write.sql(), now_ms).await? {
        write
            .audit(Entry {
                actor: &format!("user:{user}"),
                action: "login.refuse",
                subject: &format!("device:{device}"),
                detail: json!({ "refused": refused }),
            })
            .await?;
    }
    write.commit().await?;
    let retention_ms = core.config.audit_retention.as_millis();
    let before_ms = now_ms.saturating_sub(i64::try_from(retention_ms).unwrap_or(i64::MAX));
    loop {
        let mut write = core.store.record(core.now_ms()).await?;
        if audit::prune(write.sql(), before_ms).await? == 0 {
            return Ok(());
        }
        write.commit().await?;
    }
}
