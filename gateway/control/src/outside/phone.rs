//! The second step: the user's phone approves.

use sqlx::AnyConnection;

use super::{Outside, OutsideStep, Stranger, candidates, delayed, opens};
use crate::approval::{Answer, Asked, PhonePrompt, PhoneState, PhoneStep, Place};
use crate::domain::Factor;
use crate::login::{Browser, LoginError};
use crate::store::outside_limits::{self, Share};
use crate::store::{StoreError, outside};

impl Outside {
    /// Asks the phone of the account whose password was right, in place of what it was asked before.
    pub async fn ask_phone(
        &self,
        stranger: Stranger,
        browser: &Browser,
    ) -> Result<PhonePrompt, LoginError> {
        let core = self.core();
        let id = browser.hash();
        let mut read = core.store.read().await?;
        let attempt = outside::find(read.sql(), &id, core.now_ms()).await?;
        read.end().await?;
        let attempt = attempt.filter(|attempt| attempt.second.is_none());
        let attempt = attempt.ok_or(LoginError::UnknownAttempt)?;
        let reserved = self.reserve(vec![Share::codes(&attempt.user_id)]).await?;
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let wanted = self.wanted(write.sql(), &attempt.user_id).await?;
        if !wanted.contains(Factor::Phone) {
            drop(write);
            return self.refuse(stranger, &attempt.user, Factor::Phone).await;
        }
        let current = outside::find(write.sql(), &id, now_ms).await?;
        let current = current.filter(|attempt| attempt.second.is_none());
        let attempt = current.ok_or(LoginError::UnknownAttempt)?;
        outside_limits::give_back(write.sql(), &reserved).await?;
        let asked = Asked {
            attempt: &id,
            place: Place::Outside,
            user_id: &attempt.user_id,
            user: &attempt.user,
            subject: &format!("user:{}", attempt.user),
            network: stranger.network,
            expires_ms: attempt.expires_ms,
            counted: &attempt.user_id,
            back_to: None,
        };
        let prompt = core.ask_phone(&mut write, asked).await?;
        write.commit().await?;
        prompt.map_err(|until_ms| delayed(until_ms, now_ms))
    }

    /// How that stands.
    pub async fn phone(
        &self,
        stranger: Stranger,
        browser: &Browser,
    ) -> Result<PhoneState, LoginError> {
        let core = self.core();
        let id = browser.hash();
        let mut read = core.store.read().await?;
        let attempt = outside::find(read.sql(), &id, core.now_ms()).await?;
        attempt.ok_or(LoginError::UnknownAttempt)?;
        let state = core.phone_state(read.sql(), &id, stranger.network).await?;
        read.end().await?;
        Ok(state)
    }

    /// Takes what the phone has approved; until then nothing is counted.
    pub async fn finish_phone(
        &self,
        stranger: Stranger,
        browser: &Browser,
    ) -> Result<PhoneStep<OutsideStep>, LoginError> {
        let core = self.core();
        let (id, network) = (browser.hash(), stranger.network);
        let mut read = core.store.read().await?;
        let attempt = outside::find(read.sql(), &id, core.now_ms()).await?;
        let attempt = attempt.ok_or(LoginError::UnknownAttempt)?;
        let answer = core.phone_answer(read.sql(), &id, network).await?;
        read.end().await?;
        if let Answer::Waiting { expires_in } = answer {
            return Ok(PhoneStep::Waiting { expires_in });
        }
        let reserved = self.reserve(vec![Share::codes(&attempt.user_id)]).await?;
        let mut write = core.store.record(core.now_ms()).await?;
        let share = Share::approvals(&attempt.user_id, Place::Outside.as_str());
        let noted = self.note(&mut write, &id, Factor::Phone).await?.is_some();
        if !noted
            || !core
                .spend_approval(&mut write, &id, network, None, &share)
                .await?
        {
            drop(write);
            return self.refuse(stranger, &attempt.user, Factor::Phone).await;
        }
        outside_limits::give_back(write.sql(), &reserved).await?;
        write.commit().await?;
        Ok(PhoneStep::Done(self.step(browser).await?))
    }
}

/// The locations of the user's devices that a password and a phone open.
pub(crate) async fn opened_by_phone(
    sql: &mut AnyConnection,
    user_id: &str,
) -> Result<Vec<String>, StoreError> {
    let candidates = candidates(sql, user_id).await?;
    let opened = candidates
        .into_iter()
        .filter(|(_, policy)| opens(policy, Factor::Phone).is_some());
    let mut locations: Vec<String> = opened.map(|(device, _)| device.location).collect();
    locations.sort_unstable();
    locations.dedup();
    Ok(locations)
}
