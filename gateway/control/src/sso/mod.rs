//! Single sign-on by OpenID Connect: a login at a provider stands for one here.
//!
//! Code flow with PKCE (RFC 7636, S256), state and nonce; a redirect URI of its own for each provider, so
//! that one provider's code never reaches another (RFC 9700, 4.4). The identity is issuer and subject,
//! and has been linked to the user by an administrator: no e-mail address and no name ever is.
//!
//! The login stays one of a device. Who is sent to a provider is the device's user, and the visit is good
//! once, for five minutes, for that device and the browser that it was begun in.

mod backchannel;
mod begin;
mod config;
mod error;
mod finish;
mod groups;
mod http;
mod jws;
mod loopback;
mod preset;
mod provider;
mod token;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::core::Core;
use crate::login::Logins;
use crate::secrets::Field;
use crate::webauthn::PortalName;
use crate::{Control, Invalid};

pub use backchannel::LoggedOutThere;
pub use begin::Visit;
pub use config::SsoConfig;
pub use error::{SsoConfigError, SsoError};
pub use finish::Callback;
pub use preset::SsoPreset;

pub(crate) use backchannel::end;
pub(crate) use groups::lapse;
pub(crate) use loopback::Loopback;
pub(crate) use provider::{Provider, causes};
pub(crate) use token::LONGEST_SUBJECT;

/// How long a user may stay at a provider.
const VISIT_MS: i64 = 5 * 60 * 1000;
/// Visits of one device that are not over.
const MOST_WAITING: i64 = 16;
/// How far a provider's clock may be from ours.
const LEEWAY_MS: i64 = 60 * 1000;

/// Logins by OpenID Providers. There is one only where the portal has a name and a provider is configured.
#[derive(Clone, Debug)]
pub struct Sso {
    logins: Logins,
    name: PortalName,
    ports: Arc<[u16]>,
}

/// Which of our pages a provider sends a user back to.
#[derive(Clone, Copy, Debug)]
enum From {
    /// The portal in the tunnel, at the port that it was reached by.
    Tunnel(Option<u16>),
    /// The one outside.
    Outside,
}

/// What is kept of a visit that nobody else may know.
#[derive(Serialize, Deserialize)]
struct VisitSecrets {
    nonce: String,
    verifier: String,
    redirect: String,
    /// Of the login that may go on here afterwards.
    attempt: String,
    /// Of a login before there is a tunnel.
    #[serde(default)]
    proven: Option<Waiting>,
}

/// The program that has begun a login before there is a tunnel, and has proven its device's key.
#[derive(Serialize, Deserialize)]
struct Waiting {
    /// Where it listens on its own machine: the answer goes to no other.
    back_to: Loopback,
    /// The device's live session is to go on.
    renews: bool,
}

impl Drop for VisitSecrets {
    fn drop(&mut self) {
        self.nonce.zeroize();
        self.verifier.zeroize();
        self.attempt.zeroize();
    }
}

impl Control {
    /// Whether any provider of single sign-on is configured.
    pub fn has_providers(&self) -> bool {
        !self.0.providers.is_empty()
    }

    /// Single sign-on for the portal of this name, reached at these ports. `None` without a provider.
    pub fn sso(&self, name: PortalName, ports: &[u16]) -> Result<Option<Sso>, Invalid> {
        if self.0.providers.is_empty() {
            return Ok(None);
        }
        if ports.is_empty() {
            return Err(Invalid("single sign-on needs a port of the portal".into()));
        }
        Ok(Some(Sso {
            logins: self.logins(),
            name,
            ports: ports.into(),
        }))
    }
}

impl Sso {
    fn core(&self) -> &Core {
        &self.logins.0
    }

    fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.core().provider(name)
    }

    /// What users are shown for the provider of this name.
    pub fn title(&self, provider: &str) -> Option<&str> {
        let provider = self.provider(provider)?;
        Some(&provider.title)
    }

    /// Where a provider sends users back to.
    fn redirect_uri(&self, provider: &str, from: From) -> String {
        match from {
            From::Tunnel(port) => format!("{}/login/sso/{provider}/callback", self.origin(port)),
            From::Outside => format!("{}/connect/sso/{provider}/callback", self.origin(None)),
        }
    }

    /// The portal by its name and a port of ours, whatever the request said.
    fn origin(&self, port: Option<u16>) -> String {
        let first = self.ports.first().copied().unwrap_or(443);
        let port = port
            .filter(|port| self.ports.contains(port))
            .unwrap_or(first);
        let name = &self.name;
        let port = if port == 443 {
            String::new()
        } else {
            format!(":{port}")
        };
        format!("https://{name}{port}")
    }
}

impl Core {
    pub(crate) fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.iter().find(|provider| provider.name == name)
    }
}

/// The provider and the device are part of the place: a visit cannot be moved to another.
fn place(id: &str, provider: &str, device_id: &str) -> String {
    format!("{id}/{provider}/{device_id}")
}

fn field(place: &str) -> Field<'_> {
    Field {
        table: "sso_visits",
        column: "secrets",
        row: place,
    }
}
