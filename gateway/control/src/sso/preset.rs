//! What providers have in common with themselves: issuer, scopes, and what their tokens say.

use serde::Deserialize;

/// A kind of provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SsoPreset {
    /// Any provider that keeps to OpenID Connect Core and RFC 8176.
    #[default]
    Generic,
    Google,
    Microsoft,
    Okta,
    JumpCloud,
}

impl SsoPreset {
    /// The issuer, where all customers have the same.
    pub(super) fn issuer(self) -> Option<&'static str> {
        match self {
            Self::Google => Some("https://accounts.google.com"),
            Self::JumpCloud => Some("https://oauth.id.jumpcloud.com/"),
            Self::Generic | Self::Microsoft | Self::Okta => None,
        }
    }

    /// How an issuer of this kind looks, for those who left it out.
    pub(super) fn issuer_like(self) -> &'static str {
        match self {
            Self::Generic => "https://id.example.com",
            Self::Google => "https://accounts.google.com",
            Self::Microsoft => "https://login.microsoftonline.com/TENANT-ID/v2.0",
            Self::Okta => "https://YOUR-ORG.okta.com",
            Self::JumpCloud => "https://oauth.id.jumpcloud.com/",
        }
    }

    /// What `amr` and `acr` values are taken for.
    pub(super) fn levels(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // RFC 8176, and OpenID Connect Extended Authentication Profile ACR Values 1.0.
            Self::Generic | Self::Okta => &[
                ("amr:mfa", "mfa"),
                ("acr:phr", "phishing-resistant"),
                ("acr:phrh", "phishing-resistant"),
            ],
            Self::Google => &[("amr:mfa", "mfa")],
            // Their ID tokens say nothing dependable: one factor, unless told otherwise.
            Self::Microsoft | Self::JumpCloud => &[],
        }
    }

    /// A scope beside `openid`, needed for the groups claim.
    pub(super) fn groups_scope(self) -> Option<&'static str> {
        match self {
            Self::Okta => Some("groups"),
            _ => None,
        }
    }

    /// Whether it understands `prompt=login` and `max_age`.
    pub(super) fn asks_again(self) -> bool {
        self != Self::Google
    }

    /// How old a login may be, where the configuration does not say: seconds.
    pub(super) fn max_age_s(self) -> u64 {
        match self {
            // Google cannot be asked for a new login: without some age nobody would ever get in.
            Self::Google => 3600,
            _ => 0,
        }
    }
}
