//! A login whose user's phone approves it.

use std::net::IpAddr;

use super::machine::{Next, Proof, next};
use super::prove::{Advance, left};
use super::{Begun, LoginError, LoginId, LoginStep, Logins};
use crate::approval::{Answer, Asked, PhonePrompt, PhoneState, PhoneStep, Place};
use crate::domain::Factor;
use crate::secrets::TokenHash;
use crate::store::{attempts, limits, locations};

impl Logins {
    /// Asks the user's phone, in place of what it was asked before by this login.
    pub async fn ask_phone(
        &self,
        from: IpAddr,
        login: &LoginId,
    ) -> Result<PhonePrompt, LoginError> {
        let begun = Begun::InTunnel(from);
        self.try_ask_phone(begun, from, login).await
    }

    /// How that stands.
    pub async fn phone(&self, from: IpAddr, login: &LoginId) -> Result<PhoneState, LoginError> {
        let core = &self.0;
        let id = TokenHash::of(login.as_str());
        let mut read = core.store.read().await?;
        let begun = Begun::InTunnel(from);
        let found = attempts::find(read.sql(), id.as_str(), begun, core.now_ms()).await?;
        found.ok_or(LoginError::UnknownAttempt)?;
        let state = core.phone_state(read.sql(), &id, from).await?;
        read.end().await?;
        Ok(state)
    }

    /// Takes what the phone has approved; until then nothing is counted.
    pub async fn finish_phone(
        &self,
        from: IpAddr,
        login: &LoginId,
    ) -> Result<PhoneStep<LoginStep>, LoginError> {
        let begun = Begun::InTunnel(from);
        match self.try_finish_phone(begun, from, login).await? {
            PhoneStep::Done(advance) => Ok(PhoneStep::Done(self.step(login, advance).await?)),
            PhoneStep::Waiting { expires_in } => Ok(PhoneStep::Waiting { expires_in }),
        }
    }

    /// Asking is counted like any factor, so that a delayed account's phone is left alone, and given back.
    pub(crate) async fn try_ask_phone(
        &self,
        begun: Begun,
        network: IpAddr,
        login: &LoginId,
    ) -> Result<PhonePrompt, LoginError> {
        let core = &self.0;
        let open = self.open(begun, login).await?;
        let attempt = &open.attempt;
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let current = attempts::current(write.sql(), open.id.as_str(), now_ms).await?;
        let location = locations::find(write.sql(), &attempt.location_id).await?;
        let wants = match current.zip(location) {
            Some(((proven, _), location)) => next(&location.mfa, proven),
            None => return Err(LoginError::UnknownAttempt),
        };
        let wanted = match wants {
            Next::Wants(factors) => {
                let offered = core.offered(write.sql(), factors, &attempt.user_id).await?;
                offered.contains(Factor::Phone)
            }
            Next::Done(_) => false,
        };
        if !wanted {
            drop(write);
            return self.refuse_factor(&open, Factor::Phone.as_str()).await;
        }
        limits::give_back(write.sql(), &attempt.user_id, open.delayed_until_ms).await?;
        let asked = Asked {
            attempt: &open.id,
            place: Place::of(begun),
            user_id: &attempt.user_id,
            user: &attempt.user,
            subject: &format!("device:{}", attempt.device),
            network,
            expires_ms: attempt.expires_ms,
            counted: &attempt.user_id,
            back_to: None,
        };
        let prompt = core.ask_phone(&mut write, asked).await?;
        write.commit().await?;
        prompt.map_err(|until_ms| LoginError::Delayed {
            retry_after: left(until_ms, now_ms),
        })
    }

    pub(crate) async fn try_finish_phone(
        &self,
        begun: Begun,
        network: IpAddr,
        login: &LoginId,
    ) -> Result<PhoneStep<Advance>, LoginError> {
        let core = &self.0;
        let id = TokenHash::of(login.as_str());
        let mut read = core.store.read().await?;
        let found = attempts::find(read.sql(), id.as_str(), begun, core.now_ms()).await?;
        found.ok_or(LoginError::UnknownAttempt)?;
        let answer = core.phone_answer(read.sql(), &id, network).await?;
        read.end().await?;
        match answer {
            Answer::Waiting { expires_in } => Ok(PhoneStep::Waiting { expires_in }),
            Answer::Approved => {
                let open = self.open(begun, login).await?;
                let attempt = id;
                let proof = Proof::Phone { attempt, network };
                Ok(PhoneStep::Done(self.prove(&open, proof).await?))
            }
            Answer::Elsewhere => {
                let open = self.open(begun, login).await?;
                self.refuse_factor(&open, Factor::Phone.as_str()).await
            }
        }
    }

    /// Takes what a browser has approved that has brought its program this code. It is a factor like any other: a wrong
    /// one is counted.
    pub(crate) async fn try_finish_browser(
        &self,
        network: IpAddr,
        login: &LoginId,
        code: &str,
    ) -> Result<Advance, LoginError> {
        let open = self.open(Begun::WithProof, login).await?;
        let proof = Proof::Browser {
            attempt: TokenHash::of(login.as_str()),
            network,
            code: TokenHash::of(code),
        };
        self.prove(&open, proof).await
    }
}
