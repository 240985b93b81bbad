//! A login before there is a tunnel, in the browser of the same machine: by a passkey, or by the word of a provider.
//!
//! What the browser brings goes to a port of that machine, and is good for the program alone that has begun the login. A
//! link that somebody else is made to open leads to their own machine.

use std::time::Duration;

use serde_json::json;

use super::{ConnectStep, Connects, Proof};
use crate::approval::{Asked, Place};
use crate::domain::Factor;
use crate::error::OperationError;
use crate::login::{
    Claimed, LoginError, LoginId, Next, Proven, WITHIN_MS, left, next, renews_live,
};
use crate::outside::Stranger;
use crate::secrets::{Secret, Token};
use crate::sso::{Callback, Loopback, Sso, SsoError};
use crate::store::attempts::{self, NewAttempt};
use crate::store::{Entry, locations, users};

/// A login that waits for a browser on the machine of its device.
#[derive(Debug)]
pub struct BrowserVisit {
    pub attempt: LoginId,
    /// Where the passkey is asked for, or where the provider is; for that browser.
    pub url: Secret,
    /// What will be asked for on the port of the loopback address that was named: `/path?state=…`, once.
    pub path: String,
    /// The user has to be back by then.
    pub expires_in: Duration,
}

impl Connects {
    /// Begins a login with a proof alone, which a passkey of the device's own user completes. What the browser
    /// brings is sent to this port of its machine.
    pub async fn begin_passkey(
        &self,
        stranger: Stranger,
        proof: &Proof,
        port: u16,
    ) -> Result<BrowserVisit, SsoError> {
        let core = self.core();
        let Claimed { device, .. } = self.claimed(proof).await?;
        let back_to = Loopback::at(port).map_err(OperationError::from)?;
        let back_to = back_to.ok_or(SsoError::Port)?;
        let now_ms = core.now_ms();
        if device.delayed_until_ms > now_ms {
            let retry_after = left(device.delayed_until_ms, now_ms);
            return Err(LoginError::Delayed { retry_after }.into());
        }
        let token = Token::generate().map_err(OperationError::from)?;
        let id = token.hash();
        let mut write = core.store.record(now_ms).await?;
        let now_ms = write.now_ms();
        attempts::delete_expired(write.sql(), now_ms).await?;
        let user = users::find(write.sql(), &device.user_id).await?;
        let location = locations::find(write.sql(), &device.location_id).await?;
        let (Some(user), Some(location)) = (user, location) else {
            return Err(LoginError::Refused.into());
        };
        let proven = Proven::default();
        let wanted = matches!(
            next(&location.mfa, proven),
            Next::Wants(factors) if factors.contains(Factor::Passkey)
        );
        let attempt = NewAttempt {
            id: id.as_str(),
            user_id: &user.id,
            password: &user.password,
            device_id: &device.id,
            expires_ms: now_ms + WITHIN_MS,
            proven,
        };
        if !wanted
            || !core.has_passkey(write.sql(), &user.id).await?
            || !attempts::insert(write.sql(), &attempt).await?
        {
            return Err(LoginError::Refused.into());
        }
        if proof.renew {
            renews_live(&mut write, &id, &device.id).await?;
        }
        let subject = format!("device:{}", device.name);
        let entry = Entry {
            actor: &format!("user:{}", user.name),
            action: "login.begin",
            subject: &subject,
            detail: json!({ "step": "browser" }),
        };
        write.audit(entry).await?;
        let asked = Asked {
            attempt: &id,
            place: Place::Browser,
            user_id: &user.id,
            user: &user.name,
            subject: &subject,
            network: stranger.network,
            expires_ms: attempt.expires_ms,
            counted: &device.id,
            back_to: Some(&back_to),
        };
        let asked = core.ask_phone(&mut write, asked).await?;
        let prompt = asked.map_err(|until_ms| LoginError::Delayed {
            retry_after: left(until_ms, now_ms),
        })?;
        write.commit().await?;
        Ok(BrowserVisit {
            attempt: LoginId::from(token.expose().to_owned()),
            url: prompt.url,
            path: back_to.path().to_owned(),
            expires_in: prompt.expires_in,
        })
    }

    /// Takes what the browser has brought from the page with the passkey.
    pub async fn finish_passkey(
        &self,
        stranger: Stranger,
        login: &LoginId,
        code: &str,
    ) -> Result<ConnectStep, LoginError> {
        let network = stranger.network;
        let advance = self.logins.try_finish_browser(network, login, code).await?;
        self.step(login, advance).await
    }

    /// Begins a login with a proof alone: the user is the device's own, whatever name and password it has. What the
    /// provider answers is sent to this port of the machine that the browser runs on.
    pub async fn begin_sso(
        &self,
        proof: &Proof,
        provider: &str,
        port: u16,
    ) -> Result<BrowserVisit, SsoError> {
        let sso = self.providers()?;
        let claimed = self.claimed(proof).await?;
        let location = claimed.location.ok_or(LoginError::Refused)?;
        let back_to = Loopback::at(port).map_err(OperationError::from)?;
        let back_to = back_to.ok_or(SsoError::Port)?;
        let path = back_to.path().to_owned();
        let visit = sso
            .begin_proven(&claimed.device, &location, provider, back_to, proof.renew)
            .await?;
        Ok(BrowserVisit {
            attempt: visit.attempt,
            url: Secret::from(visit.url),
            path,
            expires_in: visit.expires_in,
        })
    }

    /// Where a browser that is back from a provider has to go, with what it has brought. Spends nothing.
    pub async fn waits_at(&self, provider: &str, callback: &Callback) -> Result<Secret, SsoError> {
        let url = self.providers()?.waits_at(provider, callback).await?;
        Ok(Secret::from(String::from(url)))
    }

    /// Takes what the browser has brought from the provider.
    pub async fn finish_sso(
        &self,
        login: &LoginId,
        provider: &str,
        callback: &Callback,
    ) -> Result<ConnectStep, SsoError> {
        let sso = self.providers()?;
        let advance = sso.finish_proven(login, provider, callback).await?;
        Ok(self.step(login, advance).await?)
    }

    fn providers(&self) -> Result<&Sso, SsoError> {
        self.sso.as_ref().ok_or(SsoError::UnknownProvider)
    }
}
