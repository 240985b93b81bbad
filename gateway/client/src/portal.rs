//! Login, status and logout at the portal's JSON API.

use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

use crate::pin;
use portcullis_trust::Fingerprint;

/// For connecting, and for the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For one whole request: the portal waits for gateways to acknowledge a session.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Five minutes at the provider, and five for what the location wants beside it.
const SIGN_IN_TIME: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_secs(1);
/// Far above any answer of the portal.
const ANSWER_LIMIT: u64 = 64 * 1024;

/// What can go wrong between a device and the portal.
#[derive(Debug, Error)]
pub enum PortalError {
    #[error("`{0}` is not a portal address; it looks like https://10.77.0.1:443")]
    Url(String),
    #[error("cannot reach the portal at {place}: {source} (is the tunnel up?)")]
    Unreachable { place: String, source: io::Error },
    #[error(
        "the portal belongs to another CA: expected {expected}, found {found}; nothing was sent"
    )]
    AnotherCa {
        expected: Fingerprint,
        found: Fingerprint,
    },
    #[error("the portal did not present its CA's certificate; nothing was sent")]
    NoCa,
    #[error("TLS with the portal failed: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the request to the portal failed: {0}")]
    Request(#[from] ureq::Error),
    #[error("login refused: {0}")]
    Refused(String),
    #[error("nobody has signed in within {} minutes: run it again for another try", .0.as_secs() / 60)]
    NotInTime(Duration),
    #[error("too many wrong attempts; try again in {} s", .retry_after.as_secs())]
    Delayed { retry_after: Duration },
    #[error("the portal presented no key of the location; nothing was proven")]
    LocationKey,
    #[error("the portal asked for a password alone; the tunnel is not set up")]
    OneFactor,
    #[error("login refused: {0}")]
    UnknownDevice(String),
    #[error("the portal answered with status {status}: {message}")]
    Unexpected { status: u16, message: String },
}

impl PortalError {
    /// Whether the portal was not reached, or did not answer.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Request(_))
    }

    /// Whether the portal was reached and said no.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused(_) | Self::NotInTime(_) | Self::Delayed { .. } | Self::UnknownDevice(_)
        )
    }
}

/// A login that wants one more factor.
#[derive(Clone, Debug, Deserialize)]
pub struct Attempt {
    #[serde(rename = "attempt")]
    pub(crate) id: String,
    /// How long the portal waits for it, in seconds.
    #[serde(rename = "expires_in_s")]
    pub expires_in_s: u64,
    /// The factors of which any one would do: `totp`, `recovery-code`, `passkey`, `password`.
    #[serde(default = "totp_alone")]
    pub factors: Vec<String>,
}

/// What portals want that do not say it.
fn totp_alone() -> Vec<String> {
    vec!["totp".to_owned()]
}

impl Attempt {
    /// Whether this factor would do.
    pub fn wants(&self, factor: &str) -> bool {
        self.factors.iter().any(|wanted| wanted == factor)
    }

    /// Whether something that is typed would do.
    pub fn can_be_typed(&self) -> bool {
        self.wants("totp") || self.wants("recovery-code")
    }
}

/// A live session, as the portal shows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Session {
    pub id: String,
    pub user: String,
    pub device: String,
    pub location: String,
    /// `mfa` or `phishing-resistant`.
    pub level: String,
    /// RFC 3339.
    pub authenticated_at: String,
    /// RFC 3339.
    pub deadline: String,
    /// 0: none.
    pub idle_timeout_ms: u64,
    /// An administrator has voided factors of the account since the login before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<Reset>,
}

/// When factors were voided, and why.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Reset {
    /// RFC 3339.
    pub at: String,
    /// In the administrator's words.
    pub reason: String,
}

/// The end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct LoggedOut {
    /// Not every gateway has acknowledged it yet.
    #[serde(default)]
    pub pending: bool,
}

/// The portal as seen from a device.
#[derive(Debug)]
pub struct PortalClient {
    pub(crate) agent: Agent,
    pub(crate) base: String,
}

impl PortalClient {
    /// Checks the portal's CA against `ca` before anything is sent, and trusts that CA alone.
    pub fn connect(url: &str, ca: Fingerprint) -> Result<Self, PortalError> {
        let (host, port) = host_and_port(url).ok_or_else(|| PortalError::Url(url.to_owned()))?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let certificate = pin::fetch_ca(bare, port, ca, CONNECT_TIMEOUT)?;
        let root = Certificate::from_der(&certificate).to_owned();
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            // As in `pin`: the portal may have another CA's certificate at its name.
            .use_sni(false)
            .root_certs(RootCerts::new_with_certs(&[root]))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            // The portal is inside the tunnel: a proxy could only be in the way of the secrets.
            .proxy(None)
            // A machine that has changed networks cannot use the connections that it had.
            .max_idle_connections(0)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(CALL_TIMEOUT))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            base: format!("https://{host}:{port}/api/v1"),
        })
    }

    /// Where the portal is, by the machine's resolver.
    pub fn addresses(&self) -> Result<Vec<IpAddr>, PortalError> {
        let place = self.base.trim_start_matches("https://");
        let place = place.trim_end_matches("/api/v1");
        let found = place.to_socket_addrs();
        let found = found.map_err(|source| PortalError::Unreachable {
            place: place.to_owned(),
            source,
        })?;
        Ok(found.map(|address| address.ip()).collect())
    }

    /// The first factor.
    pub fn begin(&self, username: &str, password: &str) -> Result<Attempt, PortalError> {
        #[derive(Serialize)]
        struct Login<'a> {
            username: &'a str,
            password: &'a str,
        }
        let url = format!("{}/login", self.base);
        answer(
            self.agent
                .post(&url)
                .send_json(Login { username, password })?,
        )
    }

    /// The second factor: a code of six digits.
    pub fn totp(&self, attempt: &Attempt, code: &str) -> Result<Session, PortalError> {
        #[derive(Serialize)]
        struct Totp<'a> {
            code: &'a str,
        }
        let url = format!("{}/login/{}/totp", self.base, attempt.id);
        answer(self.agent.post(&url).send_json(Totp { code })?)
    }

    /// A recovery code in place of the second factor's. Case, spaces and dashes do not matter.
    pub fn recovery(&self, attempt: &Attempt, code: &str) -> Result<Session, PortalError> {
        #[derive(Serialize)]
        struct Recovery<'a> {
            code: &'a str,
        }
        let url = format!("{}/login/{}/recovery", self.base, attempt.id);
        answer(self.agent.post(&url).send_json(Recovery { code })?)
    }

    /// The page on which a browser of this device begins a login by this provider.
    pub fn sign_in_page(&self, provider: &str) -> Result<String, PortalError> {
        #[derive(Deserialize)]
        struct Offered {
            providers: Vec<String>,
            pages: Vec<String>,
        }
        let url = format!("{}/login/sso", self.base);
        let offered: Offered = answer(self.agent.get(&url).call()?)?;
        let mut pages = offered.providers.iter().zip(&offered.pages);
        match pages.find(|(name, _)| *name == provider) {
            Some((_, page)) => Ok(page.clone()),
            None if offered.providers.is_empty() => Err(PortalError::Refused(
                "this location offers no single sign-on".to_owned(),
            )),
            None => Err(PortalError::Refused(format!(
                "this location offers no sign-in by {provider:?}: there are {}",
                offered.providers.join(", ")
            ))),
        }
    }

    /// Waits until this device has another session than the one that it has now, if any.
    pub fn wait_for_session(&self, before: Option<&Session>) -> Result<Session, PortalError> {
        let begun = Instant::now();
        while begun.elapsed() < SIGN_IN_TIME {
            match self.session() {
                Ok(Some(session)) if before.is_none_or(|before| before.id != session.id) => {
                    return Ok(session);
                }
                // A portal that restarts meanwhile forgets nothing.
                Ok(_) | Err(PortalError::Request(_)) => std::thread::sleep(POLL),
                Err(error) => return Err(error),
            }
        }
        Err(PortalError::NotInTime(SIGN_IN_TIME))
    }

    /// This device's session, if it has one.
    pub fn session(&self) -> Result<Option<Session>, PortalError> {
        let response = self.agent.get(&format!("{}/session", self.base)).call()?;
        if response.status() == 404 {
            return Ok(None);
        }
        answer(response).map(Some)
    }

    /// Ends this device's session. `None` when there was none.
    pub fn logout(&self) -> Result<Option<LoggedOut>, PortalError> {
        let response = self
            .agent
            .delete(&format!("{}/session", self.base))
            .call()?;
        if response.status() == 404 {
            return Ok(None);
        }
        answer(response).map(Some)
    }
}

/// Only https, and no path: the API's own is added.
fn host_and_port(url: &str) -> Option<(String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let plain = uri.scheme_str() == Some("https")
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none();
    let authority = uri.authority().filter(|_| plain)?;
    let no_user = !authority.as_str().contains('@');
    (no_user && !authority.host().is_empty()).then(|| {
        (
            authority.host().to_owned(),
            authority.port_u16().unwrap_or(443),
        )
    })
}

pub(crate) fn answer<T: DeserializeOwned>(mut response: Response<Body>) -> Result<T, PortalError> {
    let status = response.status();
    let body = response
        .body_mut()
        .with_config()
        .limit(ANSWER_LIMIT)
        .read_to_vec()?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| PortalError::Unexpected {
            status: status.as_u16(),
            message: format!("not the JSON of a portal: {error}"),
        });
    }
    Err(refusal(status.as_u16(), &body))
}

fn refusal(status: u16, body: &[u8]) -> PortalError {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
        code: String,
        #[serde(default)]
        retry_after_s: u64,
    }
    match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => match refusal.code.as_str() {
            "refused" | "unknown_attempt" | "no_session" | "no_phone" | "not_approved"
            | "no_invitation" | "approval_over" | "declined" | "not_allowed"
            | "unknown_provider" => PortalError::Refused(refusal.error),
            "delayed" => PortalError::Delayed {
                retry_after: Duration::from_secs(refusal.retry_after_s),
            },
            "unknown_device" => PortalError::UnknownDevice(refusal.error),
            _ => PortalError::Unexpected {
                status,
                message: refusal.error,
            },
        },
        Err(_) => PortalError::Unexpected {
            status,
            message: "no explanation was given".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_portals() {
        let parse = |url| host_and_port(url);
        assert_eq!(
            parse("https://10.77.0.1:8443"),
            Some(("10.77.0.1".into(), 8443))
        );
        assert_eq!(parse("https://10.77.0.1/"), Some(("10.77.0.1".into(), 443)));
        assert_eq!(
            parse("https://[fd77::1]:8443"),
            Some(("[fd77::1]".into(), 8443))
        );
        for bad in [
            "http://10.77.0.1",
            "10.77.0.1",
            "https://a@b",
            "https://a/b",
            "https://a/?b",
            "",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let delayed = refusal(
            429,
            br#"{"error":"later","code":"delayed","retry_after_s":30}"#,
        );
        assert!(
            matches!(delayed, PortalError::Delayed { retry_after } if retry_after.as_secs() == 30)
        );
        assert!(refusal(401, br#"{"error":"no","code":"refused"}"#).is_refusal());
        assert!(refusal(403, br#"{"error":"no","code":"unknown_device"}"#).is_refusal());
        assert!(!refusal(503, br#"{"error":"no","code":"internal"}"#).is_refusal());
        assert!(!refusal(302, b"<html>").is_refusal());
    }
}
