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
    /// What its users call it. `None`: it may be anybody's.
    pub(super) fn title(self) -> Option<&'static str> {
        match self {
            Self::Generic => None,
            Self::Google => Some("Google"),
            Self::Microsoft => Some("Microsoft"),
            Self::Okta => Some("Okta"),
            Self::JumpCloud => Some("JumpCloud"),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    /// What each of them documents. A change here is a change of what their tokens are trusted with.
    #[test]
    fn presets_are_what_providers_document() {
        use SsoPreset::{Generic, Google, JumpCloud, Microsoft, Okta};
        let named = |name: &str| serde_json::from_value::<SsoPreset>(name.into()).unwrap();
        for (name, preset) in [
            ("generic", Generic),
            ("google", Google),
            ("microsoft", Microsoft),
            ("okta", Okta),
            ("jumpcloud", JumpCloud),
        ] {
            assert_eq!(named(name), preset);
            // Who has one issuer for all does not need it named, and it is shown as what it is.
            if let Some(issuer) = preset.issuer() {
                assert_eq!(issuer, preset.issuer_like());
            }
        }
        // A token that does not say how its user logged in is worth one factor.
        assert!(Microsoft.levels().is_empty() && JumpCloud.levels().is_empty());
        // Google knows neither `prompt=login` nor `max_age`: logins have to be recent instead.
        assert!(!Google.asks_again() && Google.max_age_s() == 3600);
        for preset in [Generic, Microsoft, Okta, JumpCloud] {
            assert!(preset.asks_again() && preset.max_age_s() == 0, "{preset:?}");
        }
        let of_google = Google.levels().iter().map(|(_, level)| *level);
        assert_eq!(of_google.collect::<Vec<_>>(), ["mfa"], "never more");
        assert_eq!(Okta.groups_scope(), Some("groups"));
    }
}
