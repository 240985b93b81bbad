//! One's own sessions.

use std::net::IpAddr;
use std::time::Instant;

use super::{SelfService, SelfServiceError, note};
use crate::domain::SessionState;
use crate::fresh::SignedIn;
use crate::login::{self, SessionView};
use crate::ops::ended;
use crate::store::sessions::{self, Ending, Selection};
use crate::store::{StoreError, Write, devices};

/// A live session of the user.
#[derive(Clone, Debug)]
pub struct OwnSession {
    pub session: SessionView,
    /// The one of the device that asks.
    pub is_this: bool,
    /// As last reported.
    pub last_activity_ms: i64,
}

/// Sessions that their user has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedSessions {
    pub ended: usize,
    /// Some gateway has not acknowledged the end in time: until it does, or the deadlines pass, it may
    /// let packets pass.
    pub pending: bool,
}

impl SelfService {
    /// The live sessions of the user who is signed in, newest first.
    pub async fn sessions(&self, from: IpAddr) -> Result<Vec<OwnSession>, SelfServiceError> {
        let now_ms = self.0.now_ms();
        let mut read = self.0.store.read().await?;
        let signed_in = self.0.signed_in(read.sql(), from, now_ms).await?;
        let rows = sessions::list(read.sql(), &signed_in.device.user_id, "", false).await?;
        read.end().await?;
        let live = rows.into_iter().filter(|row| row.deadline_ms > now_ms);
        let live = live.map(|row| OwnSession {
            is_this: row.id == signed_in.session.id,
            last_activity_ms: row.last_activity_ms,
            session: login::view(row),
        });
        Ok(live.collect())
    }

    /// Ends one of them.
    pub async fn end_session(
        &self,
        from: IpAddr,
        id: &str,
    ) -> Result<EndedSessions, SelfServiceError> {
        let mut write = self.0.store.change(self.0.now_ms()).await?;
        let now_ms = write.now_ms();
        let signed_in = self.0.signed_in(write.sql(), from, now_ms).await?;
        let live = sessions::list(write.sql(), &signed_in.device.user_id, "", false).await?;
        let row = live.into_iter().find(|row| row.id == id);
        let row = row.ok_or(SelfServiceError::UnknownSession)?;
        let selection = Selection::Session(row.id);
        let ids = end(&mut write, &signed_in, &selection).await?;
        let user = &signed_in.device.user;
        note(&mut write, user, "session.logout", &row.device, ended(&ids)).await?;
        self.settle(write, ids.len(), &[row.location_id]).await
    }

    /// Ends all but the one of the device that asks.
    pub async fn end_other_sessions(
        &self,
        from: IpAddr,
    ) -> Result<EndedSessions, SelfServiceError> {
        let mut write = self.0.store.change(self.0.now_ms()).await?;
        let now_ms = write.now_ms();
        let signed_in = self.0.signed_in(write.sql(), from, now_ms).await?;
        let (ended, locations) = end_others(&mut write, &signed_in, None).await?;
        self.settle(write, ended, &locations).await
    }

    /// Commits, and waits for the gateways where sessions have ended.
    pub(super) async fn settle(
        &self,
        write: Write<'_>,
        ended: usize,
        locations: &[String],
    ) -> Result<EndedSessions, SelfServiceError> {
        let committed = Instant::now();
        let revision = write.commit().await?;
        let pending = match ended {
            0 => false,
            _ => login::pending(&self.0, locations, revision, committed).await?,
        };
        Ok(EndedSessions { ended, pending })
    }
}

/// Ends the user's sessions on other devices, within a change. Answers how many there were, and the ids of
/// the locations that have to hear of it.
pub(crate) async fn end_others(
    write: &mut Write<'_>,
    signed_in: &SignedIn,
    because: Option<&str>,
) -> Result<(usize, Vec<String>), StoreError> {
    let mine = &signed_in.device;
    let mut ids = Vec::new();
    for id in sessions::live_ids(write.sql(), &mine.user_id, "").await? {
        if id != signed_in.session.id {
            ids.extend(end(write, signed_in, &Selection::Session(id)).await?);
        }
    }
    if ids.is_empty() {
        return Ok((0, Vec::new()));
    }
    let mut detail = ended(&ids);
    if let Some(because) = because {
        detail["because"] = because.into();
    }
    let actor = format!("user:{}", mine.user);
    let entry = crate::store::Entry {
        actor: &actor,
        action: "session.logout",
        subject: &actor,
        detail,
    };
    write.audit(entry).await?;
    let owned = devices::list(write.sql(), &mine.user_id, "").await?;
    let mut locations: Vec<String> = owned.into_iter().map(|device| device.location_id).collect();
    locations.sort();
    locations.dedup();
    Ok((ids.len(), locations))
}

async fn end(
    write: &mut Write<'_>,
    signed_in: &SignedIn,
    selection: &Selection,
) -> Result<Vec<String>, StoreError> {
    let (revision, now_ms) = (write.revision(), write.now_ms());
    let ending = Ending {
        state: SessionState::Revoked,
        by: &format!("user:{}", signed_in.device.user),
    };
    sessions::end(write.sql(), selection, ending, revision, now_ms).await
}
