//! Who asks browsers for passkeys: the portal's name and its origins.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;
use webauthn_rs::prelude::{Url, Webauthn, WebauthnBuilder};

use crate::domain::Invalid;

/// The DNS name that the portal is reached by. Passkeys are bound to it: with another name, those
/// registered before are of no use. An IP address cannot be one (WebAuthn 3, "effective domain").
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PortalName(String);

impl PortalName {
    /// Takes a host name of letters, digits and hyphens (RFC 1123, 2.1), in lower case as browsers
    /// write it in an origin; an international one as `xn--…`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        };
        // What ends in a number is read as an IPv4 address by browsers (URL Standard, 3.5).
        let is_number = |label: &str| {
            label.chars().all(|c| c.is_ascii_digit())
                || label
                    .strip_prefix("0x")
                    .is_some_and(|hex| hex.chars().all(|c| c.is_ascii_hexdigit()))
        };
        let last = text.rsplit('.').next().unwrap_or_default();
        if text.parse::<IpAddr>().is_ok() || is_number(last) && !last.is_empty() {
            return Err(Invalid(format!(
                "{text:?} is an address: passkeys need a DNS name, such as login.example.com"
            )));
        }
        if text.len() > 253 || !text.split('.').all(is_label) {
            return Err(Invalid(format!(
                "{text:?} is no DNS name: write it like login.example.com, in lower case, without scheme and port"
            )));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PortalName {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl fmt::Display for PortalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The portal as WebAuthn knows it: its name is the RP ID, and `https://name:port` its origins.
#[derive(Debug)]
pub(super) struct RelyingParty {
    pub(super) webauthn: Webauthn,
    pub(super) name: PortalName,
}

impl RelyingParty {
    pub(super) fn new(name: PortalName, ports: &[u16], timeout: Duration) -> Result<Self, Invalid> {
        let refused = |why: &dyn fmt::Display| {
            Invalid(format!("passkeys cannot be offered as {name}: {why}"))
        };
        // `Url` leaves 443 out, as browsers do.
        let origins: Vec<Url> = ports
            .iter()
            .map(|port| Url::parse(&format!("https://{name}:{port}")))
            .collect::<Result<_, _>>()
            .map_err(|error| refused(&error))?;
        let (first, others) = origins
            .split_first()
            .ok_or_else(|| refused(&"the portal listens on no port"))?;
        let mut builder = WebauthnBuilder::new(name.as_str(), first)
            .map_err(|error| refused(&error))?
            .rp_name("Portcullis")
            .timeout(timeout);
        for origin in others {
            builder = builder.append_allowed_origin(origin);
        }
        let webauthn = builder.build().map_err(|error| refused(&error))?;
        Ok(Self { webauthn, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_no_name_for_passkeys() {
        for good in [
            "login.example.com",
            "vpn",
            "xn--bcher-kva.example",
            "a-1.b2",
        ] {
            assert_eq!(PortalName::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "10.77.0.1",
            "fd77::1",
            "[fd77::1]",
            "1.2.3",
            "a.0x1f",
            "https://login.example.com",
            "login.example.com:8443",
            "login.example.com.",
            "Login.example.com",
            "*.example.com",
            "-a.example",
            "bücher.example",
            &"a.".repeat(130),
        ] {
            assert!(PortalName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_standard_port_is_left_out_of_the_origin() {
        let name = PortalName::parse("login.example.com").unwrap();
        let rp = RelyingParty::new(name.clone(), &[443, 8443], Duration::from_secs(1)).unwrap();
        let origins: Vec<_> = rp
            .webauthn
            .get_allowed_origins()
            .iter()
            .map(|origin| origin.origin().ascii_serialization())
            .collect();
        assert_eq!(
            origins,
            [
                "https://login.example.com",
                "https://login.example.com:8443"
            ]
        );
        assert!(RelyingParty::new(name, &[], Duration::from_secs(1)).is_err());
    }
}
