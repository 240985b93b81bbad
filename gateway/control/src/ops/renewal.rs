//! A live session of a session-key location gets its next pre-shared key, and the deadline of a new login.
//!
//! It stays the same session: gateways change its peer in place, and its flows go on. If no gateway has said in time
//! that it has done so, the former key is put back: the device never hears of the new one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_proto::digest::key_mark;
use portcullis_proto::v1::Level;
use serde_json::json;

use super::Result;
use super::session_key::{self, SessionKey};
use super::sessions::deadline;
use crate::core::Core;
use crate::domain::{MfaPolicy, SessionState};
use crate::store::sessions::{self, Renewal, SessionRow};
use crate::store::{Entry, Write};

/// A renewal that no gateway has confirmed yet.
pub(crate) struct Renewed {
    /// As it was before.
    former: SessionRow,
    former_key: String,
    /// Sealed.
    key: String,
    /// Of the new key.
    mark: String,
}

/// Renews a session within a change. `None` when it has ended.
pub(crate) async fn renew(
    core: &Core,
    write: &mut Write<'_>,
    id: &str,
    level: Level,
    policy: &MfaPolicy,
    actor: &str,
) -> Result<Option<(SessionKey, Renewed)>> {
    let (revision, now_ms) = (write.revision(), write.now_ms());
    let former = sessions::find(write.sql(), id).await?;
    let held = sessions::key_of(write.sql(), id).await?;
    let (Some(former), Some(former_key)) = (former, held) else {
        return Ok(None);
    };
    if former.state != SessionState::Live.as_str() || former.deadline_ms <= now_ms {
        return Ok(None);
    }
    let key = SessionKey::for_session(core, id.to_owned())?;
    let before = core.vault.unseal(session_key::field(id), &former_key)?;
    let renewal = Renewal {
        level,
        authenticated_at_ms: now_ms,
        deadline_ms: deadline(write, &former.device_id, policy.session_lifetime_ms).await?,
        idle_timeout_ms: policy.idle_timeout_ms,
        key: &key.sealed,
        renews: &mark(&before)?,
    };
    if !sessions::renew(write.sql(), &former, &former_key, &renewal, revision).await? {
        return Ok(None);
    }
    let detail = json!({
        "session": id,
        "deadline_ms": renewal.deadline_ms,
        "idle_timeout_ms": renewal.idle_timeout_ms,
        "level": level.as_str_name(),
    });
    let subject = format!("device:{}", former.device);
    write
        .audit(Entry {
            actor,
            action: "session.renew",
            subject: &subject,
            detail,
        })
        .await?;
    let renewed = Renewed {
        mark: mark(key.plain())?,
        key: key.sealed.clone(),
        former,
        former_key,
    };
    Ok(Some((key, renewed)))
}

impl Core {
    /// Puts the session's former key and deadline back, unless it has ended or been renewed again since.
    pub(crate) async fn undo_renewal(&self, renewed: &Renewed) -> Result<()> {
        let Renewed {
            former,
            former_key,
            key,
            mark,
        } = renewed;
        let mut write = self.store.change(self.now_ms()).await?;
        let revision = write.revision();
        let renewal = Renewal {
            level: former.level,
            authenticated_at_ms: former.authenticated_at_ms,
            deadline_ms: former.deadline_ms,
            idle_timeout_ms: former.idle_timeout_ms,
            key: former_key,
            // A gateway that has put the new one in changes it back in place.
            renews: mark,
        };
        if !sessions::renew(write.sql(), former, key, &renewal, revision).await? {
            return Ok(());
        }
        let entry = Entry {
            actor: "system",
            action: "session.renewal-undone",
            subject: &format!("device:{}", former.device),
            detail: json!({ "session": former.id, "because": "no gateway has acknowledged it" }),
        };
        write.audit(entry).await?;
        write.commit().await?;
        Ok(())
    }
}

fn mark(key: &[u8]) -> Result<String> {
    let key = key
        .try_into()
        .map_err(|_| crate::store::StoreError::Value("pre-shared key"))?;
    Ok(STANDARD.encode(key_mark(key)))
}
