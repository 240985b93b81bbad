//! Holding a session for as long as somebody listens.

use portcullis_proto::v1;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{LEASE_MS, RENEW_EVERY, SshSessions, is_live, view};
use crate::Control;
use crate::core::Core;
use crate::domain::SessionState;
use crate::error::OperationError;
use crate::store::sessions::{Ending, Selection, SessionRow};
use crate::store::{Entry, StoreError, sessions, ssh};

/// The session at once, and as it is when it has ended. Dropping it ends the session.
pub type HeldStream = ReceiverStream<Result<v1::Held, Status>>;

impl SshSessions {
    pub(super) fn keep(&self, session: SessionRow, holder: String) -> HeldStream {
        let (answers, stream) = mpsc::channel(2);
        let this = self.clone();
        tokio::spawn(async move {
            let id = session.id.clone();
            let live = is_live(&session);
            let told = answers.send(Ok(held(session))).await;
            if live && (told.is_err() || this.outlive(&id, &holder, &answers).await) {
                this.end(&id).await;
            }
        });
        ReceiverStream::new(stream)
    }

    /// Whether the holder let go while the session was live.
    async fn outlive(
        &self,
        id: &str,
        holder: &str,
        answers: &mpsc::Sender<Result<v1::Held, Status>>,
    ) -> bool {
        let core = &self.core;
        let mut revisions = core.store.revisions();
        let mut stop = self.stop.subscribe();
        let mut renew = tokio::time::interval(RENEW_EVERY);
        loop {
            tokio::select! {
                biased;
                () = async { drop(stop.wait_for(|stop| *stop).await) } => return false,
                () = answers.closed() => return true,
                _ = renew.tick() => match renewed(core, id, holder).await {
                    Ok(true) => {}
                    // Somebody else holds it on.
                    Ok(false) => return false,
                    Err(error) => tracing::warn!(session = id, %error, "a lease could not be renewed"),
                },
                _ = revisions.changed() => {}
            }
            match look(core, id).await {
                Ok(Some(session)) if is_live(&session) => {}
                Ok(session) => {
                    if let Some(session) = session {
                        let _ = answers.send(Ok(held(session))).await;
                    }
                    return false;
                }
                Err(error) => tracing::warn!(session = id, %error, "a session could not be read"),
            }
        }
    }

    /// What cannot be ended now ends with its lease.
    async fn end(&self, id: &str) {
        let ended = async {
            let session = look(&self.core, id).await.map_err(OperationError::from)?;
            match session {
                Some(session) => Control(self.core.clone()).logins().log_out(session).await,
                None => Ok(None),
            }
        };
        if let Err(error) = ended.await {
            tracing::warn!(session = id, %error, "a session outlives its SSH connection for now");
        }
    }
}

fn held(session: SessionRow) -> v1::Held {
    v1::Held {
        session: Some(view(session)),
    }
}

async fn look(core: &Core, id: &str) -> Result<Option<SessionRow>, StoreError> {
    let mut read = core.store.read().await?;
    let session = sessions::find(read.sql(), id).await?;
    read.end().await?;
    Ok(session)
}

async fn renewed(core: &Core, id: &str, holder: &str) -> Result<bool, StoreError> {
    let mut write = core.store.record(core.now_ms()).await?;
    let lease_ms = write.now_ms() + LEASE_MS;
    let renewed = ssh::renew(write.sql(), id, holder, lease_ms).await?;
    write.commit().await?;
    Ok(renewed)
}

/// While control was down nobody could renew: holders have the time of a lease to come back.
pub(crate) async fn grace(core: &Core) -> Result<(), StoreError> {
    let mut write = core.store.record(core.now_ms()).await?;
    let until_ms = write.now_ms() + LEASE_MS;
    ssh::extend_all(write.sql(), until_ms).await?;
    write.commit().await?;
    Ok(())
}

/// Ends sessions whose holder has let go unseen. Answers when the next lease runs out.
pub(crate) async fn lapse(core: &Core) -> Result<Option<i64>, StoreError> {
    let now_ms = core.now_ms();
    let mut read = core.store.read().await?;
    let next = ssh::next_lapse(read.sql()).await?;
    read.end().await?;
    if next.is_none_or(|next_ms| next_ms > now_ms) {
        return Ok(next);
    }
    let mut write = core.store.change(now_ms).await?;
    let revision = write.revision();
    let mut ended = Vec::new();
    for id in ssh::lapsed(write.sql(), now_ms).await? {
        let ending = Ending {
            state: SessionState::Revoked,
            by: "system",
        };
        let one = Selection::Session(id);
        ended.extend(sessions::end(write.sql(), &one, ending, revision, now_ms).await?);
    }
    // None is left where another process was faster; the write is then rolled back.
    if !ended.is_empty() {
        let mut detail = crate::ops::ended(&ended);
        detail["because"] = json!("their SSH connections are gone");
        write
            .audit(Entry {
                actor: "system",
                action: "ssh.lapse",
                subject: "lease",
                detail,
            })
            .await?;
        write.commit().await?;
    }
    Ok(Some(now_ms))
}
