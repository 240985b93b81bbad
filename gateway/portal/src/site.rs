//! What the handlers work with.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use portcullis_control::{Logins, Passkeys, PortalName, Sso};
use std::convert::Infallible;

/// The services behind the portal.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) logins: Logins,
    /// None where the portal has no name.
    pub(crate) passkeys: Option<Passkeys>,
    /// None where the portal has no name, or no provider is configured.
    pub(crate) sso: Option<Sso>,
}

impl FromRef<Site> for Logins {
    fn from_ref(site: &Site) -> Self {
        site.logins.clone()
    }
}

/// Whether a page may offer passkeys: browsers have them only where they reached the portal by its
/// name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    Off,
    Here,
    /// On the same page by the portal's name.
    At(String),
}

impl Offer {
    /// For a request with these headers, where passkeys are bound to this name.
    pub(crate) fn from(name: Option<&PortalName>, headers: &HeaderMap) -> Self {
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        match name {
            Some(name) => Self::of(name.as_str(), host),
            None => Self::Off,
        }
    }

    fn of(name: &str, host: Option<&str>) -> Self {
        let Some(host) = host else { return Self::Off };
        let (asked, port) = match host.rsplit_once(':') {
            Some((asked, port)) if !port.contains(']') => (asked, port.parse::<u16>().ok()),
            _ => (host, None),
        };
        if asked.eq_ignore_ascii_case(name) {
            return Self::Here;
        }
        Self::At(match port {
            Some(port) => format!("https://{name}:{port}/"),
            None => format!("https://{name}/"),
        })
    }

    /// For templates.
    pub(crate) fn is_here(&self) -> bool {
        *self == Self::Here
    }

    /// For templates: where else.
    pub(crate) fn elsewhere(&self) -> Option<&str> {
        match self {
            Self::At(url) => Some(url),
            Self::Off | Self::Here => None,
        }
    }
}

impl FromRequestParts<Site> for Offer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Infallible> {
        let name = site.passkeys.as_ref().map(Passkeys::name);
        Ok(Self::from(name, &parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passkeys_are_offered_by_name_alone() {
        let of = |host| Offer::of("login.example.com", Some(host));
        assert_eq!(of("login.example.com"), Offer::Here);
        assert_eq!(of("Login.Example.com:8443"), Offer::Here);
        let at = |url: &str| Offer::At(url.to_owned());
        assert_eq!(of("10.77.0.1"), at("https://login.example.com/"));
        assert_eq!(of("10.77.0.1:8443"), at("https://login.example.com:8443/"));
        assert_eq!(of("[fd77::1]:8443"), at("https://login.example.com:8443/"));
        assert_eq!(of("[fd77::1]"), at("https://login.example.com/"));
        // Whatever the header says, the link leads to our name.
        assert_eq!(of("evil.example:x/"), at("https://login.example.com/"));
        assert_eq!(Offer::of("login.example.com", None), Offer::Off);
    }
}
