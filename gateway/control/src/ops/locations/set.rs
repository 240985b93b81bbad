//! Changing a location while devices and gateways use it. What is demanded of logins is in force
//! at once: the change itself ends and shortens the sessions that it does not permit any more.

use std::time::{Duration, Instant};

use portcullis_proto::v1;
use serde_json::{Map, Value, json};

use super::{terms_given, view};
use crate::core::Core;
use crate::domain::{FactorSet, MfaChange, MfaPolicy, SessionState, level_name};
use crate::error::OperationError;
use crate::ops::revocation::Affected;
use crate::ops::{Result, by_admin, found};
use crate::store::locations::{self, LocationRow};
use crate::store::sessions::{Ending, Selection};
use crate::store::{Write, attempts, sessions, successors, to_i64};

/// Ids of sessions that a change reached.
struct Reached {
    ended: Vec<String>,
    shortened: Vec<String>,
}

impl Core {
    /// Changes what is given. Where sessions have to end or to shrink for it, waits for the
    /// location's gateways as a revocation does.
    pub(crate) async fn set_location(
        &self,
        request: v1::SetLocationRequest,
    ) -> Result<v1::Location> {
        let change = read(&request)?;
        let switches = [request.answer_drops, request.captive, request.roaming];
        let nothing = switches.iter().all(Option::is_none);
        if nothing && change.is_empty() {
            return Err(OperationError::invalid("nothing to change was given"));
        }
        let mut write = self.store.change(self.now_ms()).await?;
        let name = &request.name;
        let mut location = found("location", name, locations::find(write.sql(), name)).await?;
        let mut detail = Map::new();
        if let Some(answer_drops) = request.answer_drops {
            let revision = write.revision();
            locations::set_answer_drops(write.sql(), &location.id, answer_drops, revision).await?;
            location.answer_drops = answer_drops.into();
            detail.insert("answer_drops".into(), answer_drops.into());
        }
        if let Some(captive) = request.captive {
            let revision = write.revision();
            locations::set_captive(write.sql(), &location.id, captive, revision).await?;
            location.captive = captive.into();
            detail.insert("captive".into(), captive.into());
        }
        if let Some(roaming) = request.roaming {
            locations::set_roaming(write.sql(), &location.id, roaming).await?;
            location.roaming = roaming.into();
            detail.insert("roaming".into(), roaming.into());
        }
        let before = location.mfa;
        let mut reached = None;
        if !change.is_empty() {
            location.mfa = change.apply(before)?;
            locations::set_mfa(write.sql(), &location.id, &location.mfa).await?;
            let sessions = enforce(&mut write, &location, before, change).await?;
            detail.extend(told(&location.mfa, change, &sessions));
            reached = Some(sessions);
        }
        write
            .audit(by_admin("location.set", &location.name, detail.into()))
            .await?;
        let committed = Instant::now();
        let revision = write.commit().await?;
        let mut answer = view(&location);
        if let Some(Reached { ended, shortened }) = reached
            && (location.mfa.is_stricter_than(before) || !ended.is_empty() || !shortened.is_empty())
        {
            // Also with no session to end: an acknowledgement then proves that none is left.
            let affected = Affected {
                revision,
                sessions: crate::ops::count(&ended),
                locations: vec![location.id],
                committed,
            };
            let wait = Duration::from_millis(request.wait_ms);
            let status = self.settle_within(affected, wait).await?;
            answer.revocation = Some(v1::RevocationStatus {
                shortened: u32::try_from(shortened.len()).unwrap_or(u32::MAX),
                ..status
            });
        }
        Ok(answer)
    }
}

fn read(request: &v1::SetLocationRequest) -> Result<MfaChange> {
    let factors = match &request.factors {
        Some(factors) => Some(FactorSet::parse(&factors.names)?),
        None => None,
    };
    let (require, preset) = terms_given(request.require, &request.preset)?;
    Ok(MfaChange {
        factors,
        require,
        session_lifetime_ms: request.session_lifetime_ms.map(to_i64),
        idle_timeout_ms: request.idle_timeout_ms.map(to_i64),
        preset,
    })
}

/// Makes what is there obey the location's new policy. Sessions keep the factors that they were
/// proven with: those are asked for at the next login.
async fn enforce(
    write: &mut Write<'_>,
    location: &LocationRow,
    before: MfaPolicy,
    change: MfaChange,
) -> Result<Reached> {
    let (revision, now_ms) = (write.revision(), write.now_ms());
    let after = location.mfa;
    if (after.require, after.factors) != (before.require, before.factors) {
        // A login in progress was told to prove something else: it begins again.
        attempts::delete_of_location(write.sql(), &location.id).await?;
    }
    // What waits to be put back has not been held against the new policy.
    successors::forget_of_location(write.sql(), &location.id).await?;
    let ending = Ending {
        state: SessionState::Revoked,
        by: crate::ops::ADMIN,
    };
    let below = Selection::Below(location.id.clone(), after.require);
    let ended = sessions::end(write.sql(), &below, ending, revision, now_ms).await?;
    let (lifetime_ms, idle_ms) = change.cuts(before, after);
    let sql = write.sql();
    let shortened = sessions::shorten(sql, &location.id, lifetime_ms, idle_ms, revision).await?;
    Ok(Reached { ended, shortened })
}

/// The change as the audit tells of it: what was given or follows from the preset, and whom it hit.
fn told(policy: &MfaPolicy, change: MfaChange, sessions: &Reached) -> Map<String, Value> {
    let mut detail = Map::new();
    let mut tell = |name: &str, value: Value| detail.insert(name.into(), value);
    tell("require", level_name(policy.require).into());
    tell("factors", policy.factors.names().into());
    tell("session_lifetime_ms", policy.session_lifetime_ms.into());
    tell("idle_timeout_ms", policy.idle_timeout_ms.into());
    if let Some(preset) = change.preset {
        tell("preset", preset.as_str().into());
    }
    tell("ended", crate::ops::ended(&sessions.ended));
    tell("shortened", json!(sessions.shortened.len()));
    detail
}
