//! A session-key location's login in a browser of this machine: by a passkey, or by a provider of single sign-on.

use serde::{Deserialize, Serialize};

use crate::KeyPair;
use crate::connect::{Granted, Step};
use crate::portal::{Attempt, PortalClient, PortalError, answer};

/// A login that waits for a browser.
#[derive(Clone, Debug, Deserialize)]
pub struct BrowserVisit {
    attempt: String,
    /// Names the login: for the browser alone.
    pub url: String,
    /// The browser comes back to `http://127.0.0.1:PORT/` and this, once.
    pub path: String,
    /// Seconds.
    pub expires_in_s: u64,
}

/// What the browser has brought, as it was brought. Good for this login alone.
#[derive(Clone, Deserialize, Serialize)]
pub struct Brought {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// What a passkey, or a provider's word, leads to.
#[derive(Debug)]
pub enum BrowserStep {
    /// It was enough.
    Granted(Box<Granted>),
    /// The location wants one more factor.
    Wants(Attempt),
}

impl PortalClient {
    /// Proves the device's key to the location, and asks for the address of a provider. The answer comes to this port of
    /// 127.0.0.1.
    pub fn begin_sso(
        &self,
        location: &str,
        device: &KeyPair,
        username: &str,
        provider: &str,
        port: u16,
        renew: bool,
    ) -> Result<BrowserVisit, PortalError> {
        self.begin_in_browser(location, device, username, Some(provider), port, renew)
    }

    /// The same for a passkey of the user's, which the browser has.
    pub fn begin_passkey(
        &self,
        location: &str,
        device: &KeyPair,
        username: &str,
        port: u16,
        renew: bool,
    ) -> Result<BrowserVisit, PortalError> {
        self.begin_in_browser(location, device, username, None, port, renew)
    }

    fn begin_in_browser(
        &self,
        location: &str,
        device: &KeyPair,
        username: &str,
        provider: Option<&str>,
        port: u16,
        renew: bool,
    ) -> Result<BrowserVisit, PortalError> {
        #[derive(Serialize)]
        struct Begin<'a> {
            location: &'a str,
            public_key: &'a str,
            challenge: &'a str,
            proof: &'a str,
            username: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            provider: Option<&'a str>,
            port: u16,
            renew: bool,
        }
        let proven = self.prove_device(location, device, username)?;
        let begin = Begin {
            location,
            public_key: &proven.public_key,
            challenge: &proven.challenge,
            proof: &proven.proof,
            username,
            provider,
            port,
            renew,
        };
        let by = if provider.is_some() { "sso" } else { "passkey" };
        let url = format!("{}/connect/{by}", self.base);
        answer(self.agent.post(&url).send_json(begin)?)
    }

    /// Goes on with what the page with the passkey has sent the browser back with.
    pub fn finish_passkey(
        &self,
        visit: &BrowserVisit,
        brought: &Brought,
    ) -> Result<BrowserStep, PortalError> {
        #[derive(Serialize)]
        struct Finish<'a> {
            code: &'a str,
        }
        let url = format!("{}/connect/{}/passkey/finish", self.base, visit.attempt);
        let code = brought.code.as_deref().unwrap_or_default();
        let step = answer(self.agent.post(&url).send_json(Finish { code })?)?;
        Ok(leads_to(step))
    }

    /// Goes on with what the browser has brought.
    pub fn finish_sso(
        &self,
        visit: &BrowserVisit,
        provider: &str,
        brought: &Brought,
    ) -> Result<BrowserStep, PortalError> {
        #[derive(Serialize)]
        struct Finish<'a> {
            provider: &'a str,
            #[serde(flatten)]
            brought: &'a Brought,
        }
        let url = format!("{}/connect/{}/sso/finish", self.base, visit.attempt);
        let finish = Finish { provider, brought };
        let step = answer(self.agent.post(&url).send_json(finish)?)?;
        Ok(leads_to(step))
    }
}

fn leads_to(step: Step) -> BrowserStep {
    match step {
        Step::Granted(granted) => BrowserStep::Granted(Box::new((*granted).into())),
        Step::Next(attempt) => BrowserStep::Wants(attempt),
    }
}
