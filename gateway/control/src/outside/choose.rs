//! The last step, which device is meant, and what a browser may do afterwards.

use serde_json::json;

use super::{Outside, Stranger, candidates, opens};
use crate::domain::SessionState;
use crate::login::{Browser, LoggedOut, LoginError, SessionView, view};
use crate::ops::sessions::{Grant, grant};
use crate::store::outside_limits::{self, Share};
use crate::store::sessions::SessionRow;
use crate::store::{Entry, outside, sessions};

/// A session that was opened from outside.
#[derive(Debug)]
pub struct Opened {
    /// By a new cookie, whatever the browser had before.
    pub browser: Browser,
    pub session: SessionView,
}

impl Outside {
    /// Grants a session of this device, as a login through its tunnel would. The device has to be one of
    /// those that were offered; the answer is the same for another's and for none.
    pub async fn choose(
        &self,
        stranger: Stranger,
        browser: &Browser,
        device_id: &str,
    ) -> Result<Opened, LoginError> {
        let core = self.core();
        let id = browser.hash();
        let mut write = core.store.change(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let attempt = outside::find(write.sql(), &id, now_ms).await?;
        let attempt = attempt.ok_or(LoginError::UnknownAttempt)?;
        let second = attempt.second.ok_or(LoginError::UnknownAttempt)?;
        let candidates = candidates(write.sql(), &attempt.user_id).await?;
        let mut chosen = candidates
            .into_iter()
            .filter(|(device, _)| device.id == device_id);
        let (device, policy) = chosen.next().ok_or(LoginError::Refused)?;
        let level = opens(&policy, second).ok_or(LoginError::Refused)?;
        if !outside::complete(write.sql(), &id).await? {
            return Err(LoginError::UnknownAttempt);
        }
        // Not what was counted by the network: an account of one's own buys no guesses at others.
        for share in [
            Share::codes(&attempt.user_id),
            Share::name(&attempt.user),
            Share::name_from(&attempt.user, stranger.network),
        ] {
            outside_limits::forgive(write.sql(), &share).await?;
        }
        let actor = format!("user:{}", attempt.user);
        let grant_of = Grant::of(&device, &policy, level, &actor);
        let session = grant(&mut write, grant_of).await?;
        let browser = Browser::new()?;
        outside::opened(write.sql(), &browser.hash(), &session).await?;
        write
            .audit(Entry {
                actor: &actor,
                action: "outside.grant",
                subject: &format!("device:{}", device.name),
                detail: json!({ "session": session, "from": stranger.network }),
            })
            .await?;
        let found = sessions::find(write.sql(), &session).await?;
        let session = found.ok_or(LoginError::UnknownAttempt)?;
        let revision = write.commit().await?;
        self.logins.until_acknowledged(&session, revision).await?;
        Ok(Opened {
            browser,
            session: view(session),
        })
    }

    /// The live session that a browser has opened.
    pub async fn session(&self, browser: &Browser) -> Result<Option<SessionView>, LoginError> {
        Ok(self.live(browser).await?.map(view))
    }

    /// Ends it. `None` when there is none.
    pub async fn end(&self, browser: &Browser) -> Result<Option<LoggedOut>, LoginError> {
        match self.live(browser).await? {
            Some(session) => self.logins.log_out(session).await,
            None => Ok(None),
        }
    }

    async fn live(&self, browser: &Browser) -> Result<Option<SessionRow>, LoginError> {
        let core = self.core();
        let now_ms = core.now_ms();
        let mut read = core.store.read().await?;
        let session = match outside::session_of(read.sql(), &browser.hash()).await? {
            Some(id) => sessions::find(read.sql(), &id).await?,
            None => None,
        };
        read.end().await?;
        Ok(session.filter(|session| {
            session.state == SessionState::Live.as_str() && session.deadline_ms > now_ms
        }))
    }
}
