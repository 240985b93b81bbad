//! A login before there is a tunnel, by the word of a provider in the browser of the same machine.

use std::time::Duration;

use super::{ConnectStep, Connects, Proof};
use crate::error::OperationError;
use crate::login::{LoginError, LoginId};
use crate::secrets::Secret;
use crate::sso::{Callback, Loopback, Sso, SsoError};

/// A login that waits for a browser on the machine of its device.
#[derive(Debug)]
pub struct BrowserVisit {
    pub attempt: LoginId,
    /// Where the provider is, for that browser.
    pub url: String,
    /// What will be asked for on the port of the loopback address that was named: `/path?state=…`, once.
    pub path: String,
    /// The user has to be back by then.
    pub expires_in: Duration,
}

impl Connects {
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
            url: visit.url,
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
