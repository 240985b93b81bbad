//! A session-key location's login by a provider of single sign-on, in a browser of this machine.

use serde::{Deserialize, Serialize};

use crate::KeyPair;
use crate::connect::{Granted, Step};
use crate::portal::{Attempt, PortalClient, PortalError, answer};

/// A login that waits for a browser.
#[derive(Clone, Debug, Deserialize)]
pub struct SsoVisit {
    attempt: String,
    /// Where the provider is.
    pub url: String,
    /// The browser comes back to `http://127.0.0.1:PORT/` and this, once.
    pub path: String,
    /// Seconds.
    pub expires_in_s: u64,
}

/// What the browser has brought, as it was brought. Good for this login alone.
#[derive(Clone, Deserialize, Serialize)]
pub struct SsoAnswer {
    state: String,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// What a provider's word leads to.
#[derive(Debug)]
pub enum SsoStep {
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
    ) -> Result<SsoVisit, PortalError> {
        #[derive(Serialize)]
        struct Begin<'a> {
            location: &'a str,
            public_key: &'a str,
            challenge: &'a str,
            proof: &'a str,
            username: &'a str,
            provider: &'a str,
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
        let url = format!("{}/connect/sso", self.base);
        answer(self.agent.post(&url).send_json(begin)?)
    }

    /// Goes on with what the browser has brought.
    pub fn finish_sso(
        &self,
        visit: &SsoVisit,
        provider: &str,
        brought: &SsoAnswer,
    ) -> Result<SsoStep, PortalError> {
        #[derive(Serialize)]
        struct Finish<'a> {
            provider: &'a str,
            #[serde(flatten)]
            brought: &'a SsoAnswer,
        }
        let url = format!("{}/connect/{}/sso/finish", self.base, visit.attempt);
        let finish = Finish { provider, brought };
        Ok(match answer(self.agent.post(&url).send_json(finish)?)? {
            Step::Granted(granted) => SsoStep::Granted(Box::new((*granted).into())),
            Step::Next(attempt) => SsoStep::Wants(attempt),
        })
    }
}
