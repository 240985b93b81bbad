//! A `[[control.sso]]` table of the configuration file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::preset::SsoPreset;

/// An OpenID Provider, and what its word is good for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SsoConfig {
    /// Its name: in the addresses given to the provider, and in `--sso NAME:SUBJECT`.
    pub name: String,
    /// What users are shown. Left out: what the preset's users call it, or the name.
    pub title: Option<String>,
    /// What is filled in where it is left out here.
    #[serde(default)]
    pub preset: SsoPreset,
    /// Its issuer identifier, exactly as in its tokens.
    pub issuer: Option<String>,
    /// As registered with the provider.
    pub client_id: String,
    /// A file that holds the client secret, and that nobody else may read.
    pub client_secret_file: PathBuf,
    /// `amr:VALUE` or `acr:VALUE` → `mfa` or `phishing-resistant`. A token without any of these is one factor.
    pub levels: Option<BTreeMap<String, String>>,
    /// The claim that names the user's groups. Left out, the provider says nothing about groups.
    pub groups_claim: Option<String>,
    /// How long the groups that it tells of count after a login. Left out: as long as a session of the
    /// location where that login was.
    #[serde(default, with = "humantime_serde")]
    pub groups_lifetime: Option<Duration>,
    /// How old the login at the provider may be. 0: it has to be made anew each time.
    #[serde(default, with = "humantime_serde")]
    pub max_age: Option<Duration>,
}
