//! Granting, extending and listing sessions.

use std::time::Instant;

use portcullis_proto::v1;
use serde_json::json;

use super::session_key::{self, SessionKey};
use super::{Result, by_admin, found, new_id};
use crate::core::Core;
use crate::domain::{LONGEST_MS, MfaPolicy, Mode, SessionState, level_name};
use crate::error::OperationError;
use crate::store::devices::DeviceRow;
use crate::store::sessions::{Ending, NewSession, Selection, SessionRow};
use crate::store::{
    Entry, Write, accounts, devices, locations, sessions, successors, temporary, to_i64, to_u64,
    users,
};

/// A session to be granted.
pub(crate) struct Grant<'a> {
    pub(crate) user_id: &'a str,
    pub(crate) device_id: &'a str,
    pub(crate) device: &'a str,
    pub(crate) location_id: &'a str,
    pub(crate) level: v1::Level,
    /// `None`: now. Earlier where somebody else vouches for a login of then.
    pub(crate) authenticated_at_ms: Option<i64>,
    pub(crate) lifetime_ms: i64,
    pub(crate) idle_timeout_ms: i64,
    pub(crate) actor: &'a str,
    /// Required at session-key locations, and there alone.
    pub(crate) key: Option<&'a SessionKey>,
}

impl<'a> Grant<'a> {
    /// Of a device of its own user, now, for as long as its location says.
    pub(crate) fn of(
        device: &'a DeviceRow,
        policy: &MfaPolicy,
        level: v1::Level,
        actor: &'a str,
    ) -> Self {
        Self {
            user_id: &device.user_id,
            device_id: &device.id,
            device: &device.name,
            location_id: &device.location_id,
            level,
            authenticated_at_ms: None,
            lifetime_ms: policy.session_lifetime_ms,
            idle_timeout_ms: policy.idle_timeout_ms,
            actor,
            key: None,
        }
    }
}

/// When a session of this device ends that begins now.
pub(crate) async fn deadline(
    write: &mut Write<'_>,
    device_id: &str,
    lifetime_ms: i64,
) -> Result<i64> {
    let wanted_ms = write
        .now_ms()
        .saturating_add(lifetime_ms.clamp(0, LONGEST_MS));
    // A session never outlasts its device.
    let ends_ms = temporary::end_of(write.sql(), device_id).await?;
    Ok(ends_ms.map_or(wanted_ms, |ends_ms| wanted_ms.min(ends_ms)))
}

/// Grants a session within a change; an earlier one of the same device is replaced. Answers its id.
pub(crate) async fn grant(write: &mut Write<'_>, grant: Grant<'_>) -> Result<String> {
    let (revision, now_ms) = (write.revision(), write.now_ms());
    let mode = locations::mode(write.sql(), grant.location_id).await?;
    if (mode == Mode::SessionKey) != grant.key.is_some() {
        return Err(OperationError::Precondition(format!(
            "a session of this kind cannot begin at a {} location",
            mode.as_str()
        )));
    }
    // It is put back if no gateway ever holds the one that takes its place.
    let former = match grant.key {
        Some(_) => successors::former(write.sql(), grant.device_id, now_ms).await?,
        None => None,
    };
    let ending = Ending {
        state: SessionState::Replaced,
        by: grant.actor,
    };
    let earlier = Selection::Device(grant.device_id.into());
    let replaced = sessions::end(write.sql(), &earlier, ending, revision, now_ms).await?;
    let id = grant.key.map_or_else(new_id, |key| key.session_id.clone());
    let session = NewSession {
        id: &id,
        user_id: grant.user_id,
        device_id: grant.device_id,
        location_id: grant.location_id,
        level: grant.level,
        authenticated_at_ms: grant
            .authenticated_at_ms
            .map_or(now_ms, |at_ms| at_ms.min(now_ms)),
        deadline_ms: deadline(write, grant.device_id, grant.lifetime_ms).await?,
        idle_timeout_ms: grant.idle_timeout_ms,
        preshared_key: grant.key.map(|key| key.sealed.as_str()),
    };
    sessions::insert(write.sql(), &session, revision).await?;
    if let Some(former) = &former {
        let settles_ms = now_ms + session_key::SETTLES_MS;
        successors::keep(write.sql(), &id, former, settles_ms).await?;
    }
    // The first login after an administrator voided factors: its user is told, and that is recorded.
    if grant.actor != super::ADMIN
        && let Some(reset) = accounts::tell_reset(write.sql(), grant.user_id, now_ms).await?
    {
        write
            .audit(Entry {
                actor: grant.actor,
                action: "user.reset-told",
                subject: grant.actor,
                detail: json!({ "session": id, "reset_ms": reset.at_ms, "reason": reset.reason }),
            })
            .await?;
    }
    let detail = json!({
        "session": id,
        "deadline_ms": session.deadline_ms,
        "idle_timeout_ms": session.idle_timeout_ms,
        "level": grant.level.as_str_name(),
        "replaced": replaced.first(),
    });
    let subject = format!("device:{}", grant.device);
    write
        .audit(Entry {
            actor: grant.actor,
            action: "session.grant",
            subject: &subject,
            detail,
        })
        .await?;
    Ok(id)
}

impl Core {
    /// A grant by an administrator, at level `mfa`. Where the location requires more there is none:
    /// an administrator's word is no passkey. At a session-key location the answer, once a gateway
    /// holds the peer, is the one time that the session's pre-shared key is shown.
    pub(crate) async fn add_session(
        &self,
        request: v1::AddSessionRequest,
    ) -> Result<v1::AddSessionResponse> {
        let mut write = self.store.change(self.now_ms()).await?;
        let device = found(
            "device",
            &request.device,
            devices::find(write.sql(), &request.device),
        )
        .await?;
        if device.user_disabled {
            return Err(OperationError::Precondition(format!(
                "user {:?} is disabled",
                device.user
            )));
        }
        let location = locations::find(write.sql(), &device.location_id);
        let location = found("location", &device.location, location).await?;
        permitted(v1::Level::Mfa, location.mfa.require, &location.name)?;
        let key = match location.mode {
            Mode::Gate => None,
            Mode::SessionKey => Some(SessionKey::generate(self)?),
        };
        let or_default =
            |value: u64, default: i64| if value == 0 { default } else { to_i64(value) };
        let grant_of = Grant {
            lifetime_ms: or_default(request.lifetime_ms, location.mfa.session_lifetime_ms),
            idle_timeout_ms: or_default(request.idle_timeout_ms, location.mfa.idle_timeout_ms),
            key: key.as_ref(),
            ..Grant::of(&device, &location.mfa, v1::Level::Mfa, super::ADMIN)
        };
        let id = grant(&mut write, grant_of).await?;
        let session = found("session", &id, sessions::find(write.sql(), &id)).await?;
        let committed = Instant::now();
        let revision = write.commit().await?;
        let preshared_key = match key {
            None => Vec::new(),
            Some(key) => {
                self.held_or_ended(&session, revision, committed).await?;
                key.into_plain().to_vec()
            }
        };
        Ok(v1::AddSessionResponse {
            session: Some(view(session)),
            preshared_key,
        })
    }

    pub(crate) async fn extend_session(
        &self,
        request: v1::ExtendSessionRequest,
    ) -> Result<v1::SessionInfo> {
        let mut write = self.store.change(self.now_ms()).await?;
        let (revision, now_ms) = (write.revision(), write.now_ms());
        let session = found(
            "session",
            &request.id,
            sessions::find(write.sql(), &request.id),
        )
        .await?;
        let live = session.state == SessionState::Live.as_str() && session.deadline_ms > now_ms;
        if !live {
            return Err(OperationError::Precondition(format!(
                "session {} has ended",
                session.id
            )));
        }
        // Raising the location's level has ended whatever is below it; this holds come what may.
        let location = locations::find(write.sql(), &session.location_id);
        let location = found("location", &session.location, location).await?;
        permitted(session.level, location.mfa.require, &location.name)?;
        let deadline_ms = session
            .deadline_ms
            .saturating_add(to_i64(request.by_ms))
            .min(now_ms.saturating_add(LONGEST_MS));
        let ends_ms = temporary::end_of(write.sql(), &session.device_id).await?;
        let deadline_ms = ends_ms.map_or(deadline_ms, |ends_ms| deadline_ms.min(ends_ms));
        sessions::set_deadline(write.sql(), &session, deadline_ms, revision).await?;
        let detail = json!({ "from_ms": session.deadline_ms, "to_ms": deadline_ms });
        let subject = format!("session:{}", session.id);
        write
            .audit(by_admin("session.extend", &subject, detail))
            .await?;
        write.commit().await?;
        Ok(view(SessionRow {
            deadline_ms,
            ..session
        }))
    }

    pub(crate) async fn list_sessions(
        &self,
        request: v1::ListSessionsRequest,
    ) -> Result<v1::Sessions> {
        let mut read = self.store.read().await?;
        let user = match request.user.as_str() {
            "" => String::new(),
            name => found("user", name, users::find(read.sql(), name)).await?.id,
        };
        let location = match request.location.as_str() {
            "" => String::new(),
            name => {
                found("location", name, locations::find(read.sql(), name))
                    .await?
                    .id
            }
        };
        let sessions = sessions::list(read.sql(), &user, &location, request.all).await?;
        read.end().await?;
        Ok(v1::Sessions {
            sessions: sessions.into_iter().map(view).collect(),
        })
    }

    pub(crate) async fn get_session(&self, id: &str) -> Result<v1::SessionInfo> {
        let mut read = self.store.read().await?;
        let session = found("session", id, sessions::find(read.sql(), id)).await?;
        read.end().await?;
        Ok(view(session))
    }
}

/// Refuses a session below what its location requires.
pub(crate) fn permitted(level: v1::Level, require: v1::Level, location: &str) -> Result<()> {
    if level >= require {
        return Ok(());
    }
    let (level, require) = (level_name(level), level_name(require));
    Err(OperationError::Precondition(format!(
        "location {location:?} requires {require}, and this session would be {level}: let the user log in, or lower it with `portcullis location set {location} --require {level}`"
    )))
}

pub(crate) fn view(session: SessionRow) -> v1::SessionInfo {
    v1::SessionInfo {
        id: session.id,
        user: session.user,
        device: session.device,
        location: session.location,
        level: session.level.into(),
        state: session.state,
        authenticated_at_ms: session.authenticated_at_ms,
        deadline_ms: session.deadline_ms,
        idle_timeout_ms: to_u64(session.idle_timeout_ms),
        last_activity_ms: session.last_activity_ms,
        ended_ms: session.ended_ms,
        ended_by: session.ended_by,
    }
}
