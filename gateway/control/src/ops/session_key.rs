//! Sessions of session-key locations: each has a pre-shared key of its own, which is shown once, after a
//! gateway has said that its kernel holds it.

use std::time::{Duration, Instant};

use serde_json::json;
use zeroize::Zeroizing;

use super::{Result, new_id};
use crate::core::Core;
use crate::domain::SessionState;
use crate::error::OperationError;
use crate::secrets::{Field, random};
use crate::store::sessions::{self, Ending, Selection, SessionRow};
use crate::store::{Entry, successors};

/// How long a gateway has for saying that its kernel holds the peer.
const WITHIN: Duration = Duration::from_secs(5);
/// Whoever waits for that has an answer by then, or is no more.
pub(super) const SETTLES_MS: i64 = 3 * WITHIN.as_millis() as i64;
/// How often it is asked whether some gateway, if not all, holds the peer.
const AGAIN: Duration = Duration::from_millis(50);

/// A pre-shared key for a session that is to be granted.
pub(crate) struct SessionKey {
    /// The id that the session gets: the seal is bound to it.
    pub(crate) session_id: String,
    pub(crate) sealed: String,
    plain: Zeroizing<[u8; 32]>,
}

/// Where a session's pre-shared key is sealed.
pub(crate) fn field(session_id: &str) -> Field<'_> {
    Field {
        table: "sessions",
        column: "preshared_key",
        row: session_id,
    }
}

impl SessionKey {
    /// A new one, from the operating system's generator.
    pub(crate) fn generate(core: &Core) -> Result<Self> {
        Self::for_session(core, new_id())
    }

    /// One for the session of this id.
    pub(crate) fn for_session(core: &Core, session_id: String) -> Result<Self> {
        let plain = random::<32>()?;
        let sealed = core.vault.seal(field(&session_id), plain.as_slice())?;
        Ok(Self {
            session_id,
            sealed,
            plain,
        })
    }

    pub(crate) fn plain(&self) -> &[u8; 32] {
        &self.plain
    }

    /// The key itself, to be shown once.
    pub(crate) fn into_plain(self) -> Zeroizing<[u8; 32]> {
        self.plain
    }
}

impl Core {
    /// Waits until a gateway holds the session's peer as of this revision. False when none does in time.
    pub(crate) async fn held(
        &self,
        session: &SessionRow,
        revision: u64,
        committed: Instant,
    ) -> Result<bool> {
        let locations = [session.location_id.clone()];
        let until = committed + WITHIN;
        // One that is away must not keep the others waiting: this asks again instead of for all.
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let gateways = self
                .acknowledged(&locations, revision, Instant::now(), left.min(AGAIN))
                .await?;
            if gateways.iter().any(|gateway| gateway.acknowledged) {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// Waits until a gateway holds the session's peer. If none does in time, ends the session: nobody
    /// has its key then, nor ever will. The one whose place it was to take goes on.
    pub(crate) async fn held_or_ended(
        &self,
        session: &SessionRow,
        revision: u64,
        committed: Instant,
    ) -> Result<()> {
        if self.held(session, revision, committed).await? {
            let mut read = self.store.read().await?;
            let replaced = successors::replaced_by(read.sql(), &session.id).await?;
            read.end().await?;
            if replaced.is_some() {
                let mut write = self.store.record(self.now_ms()).await?;
                successors::settle(write.sql(), &session.id).await?;
                write.commit().await?;
            }
            return Ok(());
        }
        self.undo_grant(&session.id).await?;
        Err(OperationError::Precondition(format!(
            "no gateway of location {:?} has acknowledged the session, so it was ended again: look at `portcullis gateway list`",
            session.location
        )))
    }

    /// Ends a session that no gateway has acknowledged, and puts the one back whose place it was to take. One that has
    /// ended by somebody's will meanwhile takes the former one along.
    async fn undo_grant(&self, session_id: &str) -> Result<()> {
        let mut write = self.store.change(self.now_ms()).await?;
        let (revision, now_ms) = (write.revision(), write.now_ms());
        let former = successors::replaced_by(write.sql(), session_id).await?;
        let ending = Ending {
            state: SessionState::Revoked,
            by: "system",
        };
        let selection = Selection::Session(session_id.to_owned());
        let ended = sessions::end(write.sql(), &selection, ending, revision, now_ms).await?;
        let restored = match former {
            Some(former) if !ended.is_empty() => {
                let back = successors::put_back(write.sql(), &former, revision, now_ms).await?;
                back.then_some(former)
            }
            _ => None,
        };
        // A session that is live again has its key; what is left of others is wiped.
        successors::settle(write.sql(), session_id).await?;
        let entry = Entry {
            actor: "system",
            action: "session.revoke",
            subject: &format!("session:{session_id}"),
            detail: json!({
                "sessions": ended,
                "because": "no gateway has acknowledged it",
                "restored": restored,
            }),
        };
        write.audit(entry).await?;
        write.commit().await?;
        Ok(())
    }
}

/// Undoes what a process has left that ended while it waited for a gateway. Answers when it has to be looked at again.
pub(crate) async fn settle_left(core: &Core) -> Result<Option<i64>> {
    let mut read = core.store.read().await?;
    let next = successors::next_unsettled(read.sql()).await?;
    read.end().await?;
    match next {
        Some((session_id, settles_ms)) if settles_ms <= core.now_ms() => {
            core.undo_grant(&session_id).await?;
            Ok(Some(core.now_ms()))
        }
        next => Ok(next.map(|(_, settles_ms)| settles_ms)),
    }
}
