//! The second step: a code.

use serde_json::json;

use super::{Choice, Outside, OutsideStep, Stranger, candidates, left, opens};
use crate::domain::Factor;
use crate::login::{Browser, LoginError, spend_code, totp_step};
use crate::secrets::{RecoveryCode, TokenHash};
use crate::store::outside::{self, Attempt};
use crate::store::outside_limits::{self, Share};
use crate::store::{Entry, Write, attempts};

/// A code that is good, as far as can be told without spending it.
enum Code {
    Totp { step: i64 },
    Recovery { hash: TokenHash },
}

impl Code {
    fn factor(&self) -> Factor {
        match self {
            Self::Totp { .. } => Factor::Totp,
            Self::Recovery { .. } => Factor::RecoveryCode,
        }
    }
}

impl Outside {
    /// A code of the user's authenticator.
    pub async fn totp(
        &self,
        stranger: Stranger,
        browser: &Browser,
        code: &str,
    ) -> Result<OutsideStep, LoginError> {
        self.second(stranger, browser, Factor::Totp, |outside, attempt| {
            let (id, user, sealed) = (&attempt.user_id, &attempt.user, &attempt.totp_secret);
            let step = totp_step(outside.core(), id, user, sealed, code)?;
            Ok(step.map(|step| Code::Totp { step }))
        })
        .await
    }

    /// A recovery code, in place of the authenticator's.
    pub async fn recovery(
        &self,
        stranger: Stranger,
        browser: &Browser,
        code: &str,
    ) -> Result<OutsideStep, LoginError> {
        self.second(stranger, browser, Factor::RecoveryCode, |_, _| {
            Ok(RecoveryCode::hash_of(code).map(|hash| Code::Recovery { hash }))
        })
        .await
    }

    /// Where the login of a browser is.
    pub async fn step(&self, browser: &Browser) -> Result<OutsideStep, LoginError> {
        let core = self.core();
        let now_ms = core.now_ms();
        let mut read = core.store.read().await?;
        let attempt = outside::find(read.sql(), &browser.hash(), now_ms).await?;
        let attempt = attempt.ok_or(LoginError::UnknownAttempt)?;
        let Some(second) = attempt.second else {
            return Ok(OutsideStep::Wants {
                factors: self.wanted(read.sql(), &attempt.user_id).await?,
                expires_in: left(attempt.expires_ms, now_ms),
            });
        };
        let candidates = candidates(read.sql(), &attempt.user_id).await?;
        read.end().await?;
        let done = candidates
            .into_iter()
            .filter(|(_, policy)| opens(policy, second).is_some());
        let choices = done.map(|(device, _)| Choice {
            device: device.called().to_owned(),
            id: device.id,
            location: device.location,
        });
        Ok(OutsideStep::Choose(choices.collect()))
    }

    /// Counts the code as wrong, evaluates it, and takes it in.
    async fn second(
        &self,
        stranger: Stranger,
        browser: &Browser,
        factor: Factor,
        evaluate: impl FnOnce(&Self, &Attempt) -> Result<Option<Code>, LoginError>,
    ) -> Result<OutsideStep, LoginError> {
        let core = self.core();
        let id = browser.hash();
        let mut read = core.store.read().await?;
        let attempt = outside::find(read.sql(), &id, core.now_ms()).await?;
        read.end().await?;
        let attempt = attempt.ok_or(LoginError::UnknownAttempt)?;
        let reserved = self.reserve(vec![Share::codes(&attempt.user_id)]).await?;
        let Some(code) = evaluate(self, &attempt)? else {
            return self.refuse(stranger, &attempt.user, factor).await;
        };
        let mut write = core.store.record(core.now_ms()).await?;
        if !self.take_in(&mut write, &id, &code).await? {
            drop(write);
            return self.refuse(stranger, &attempt.user, factor).await;
        }
        // A right code is not a wrong one, but what was counted before it stays until the login is complete.
        outside_limits::give_back(write.sql(), &reserved).await?;
        write.commit().await?;
        self.step(browser).await
    }

    /// Whoever gets here has the account's password: its owner is told.
    pub(super) async fn refuse<T>(
        &self,
        stranger: Stranger,
        user: &str,
        factor: Factor,
    ) -> Result<T, LoginError> {
        let core = self.core();
        let mut write = core.store.record(core.now_ms()).await?;
        let name = format!("user:{user}");
        write
            .audit(Entry {
                actor: &name,
                action: "outside.refuse",
                subject: &name,
                detail: json!({ "step": factor.as_str(), "from": stranger.network }),
            })
            .await?;
        write.commit().await?;
        Err(LoginError::Refused)
    }

    /// Spends the code, and writes it down. False where it is not wanted, or somebody has spent it.
    async fn take_in(
        &self,
        write: &mut Write<'_>,
        id: &TokenHash,
        code: &Code,
    ) -> Result<bool, LoginError> {
        let Some(attempt) = self.note(write, id, code.factor()).await? else {
            return Ok(false);
        };
        match code {
            Code::Totp { step } => {
                Ok(attempts::spend_step(write.sql(), &attempt.user_id, *step).await?)
            }
            Code::Recovery { hash } => {
                let name = format!("user:{}", attempt.user);
                spend_code(write, &attempt.user_id, &name, &name, hash).await
            }
        }
    }

    /// Writes the second factor down. `None` where it is not wanted now, with nobody else at it.
    pub(super) async fn note(
        &self,
        write: &mut Write<'_>,
        id: &TokenHash,
        factor: Factor,
    ) -> Result<Option<Attempt>, LoginError> {
        let now_ms = write.now_ms();
        let Some(attempt) = outside::find(write.sql(), id, now_ms).await? else {
            return Ok(None);
        };
        let wanted = self.wanted(write.sql(), &attempt.user_id).await?;
        let noted = wanted.contains(factor) && outside::set_second(write.sql(), id, factor).await?;
        Ok(noted.then_some(attempt))
    }
}
