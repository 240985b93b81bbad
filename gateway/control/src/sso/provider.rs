//! A provider: its configuration, read once, and its metadata and keys, fetched when needed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openidconnect::core::CoreProviderMetadata;
use openidconnect::{ClientId, ClientSecret, IssuerUrl};
use portcullis_proto::v1::Level;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::config::SsoConfig;
use super::error::SsoConfigError;
use super::http::{self, Client};
use super::preset::SsoPreset;
use super::token::Mapping;
use crate::domain::Name;
use crate::text::is_hidden;

/// It is on a button of a phone.
const LONGEST_TITLE: usize = 40;
/// How long metadata and keys are taken for current.
const FRESH: Duration = Duration::from_secs(60 * 60);
/// How often they are fetched again at most, however many tokens name keys that are not among them.
const REFETCH: Duration = Duration::from_secs(60);
/// How long a provider that could not be reached is left alone.
const PAUSE: Duration = Duration::from_secs(5);
/// Groups that count for less are gone before anybody has used them.
const SHORTEST_GROUPS: Duration = Duration::from_secs(60);

/// One configured provider.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) name: String,
    /// What users are shown.
    pub(crate) title: String,
    pub(super) preset: SsoPreset,
    pub(crate) issuer: IssuerUrl,
    pub(super) client_id: ClientId,
    /// Redacts itself.
    pub(super) client_secret: ClientSecret,
    pub(super) levels: Vec<Mapping>,
    pub(super) groups_claim: Option<String>,
    /// `None`: a session's.
    pub(super) groups_lifetime_ms: Option<i64>,
    /// Milliseconds.
    pub(super) max_age_ms: i64,
    pub(super) http: Client,
    known: Mutex<Known>,
    /// Held while fetching: however many need it, one fetches. Who needs nothing new never waits for it.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    metadata: Option<(Arc<CoreProviderMetadata>, Instant)>,
    failed: Option<Instant>,
    /// When it was last fetched because of a key that was not known.
    renewed: Option<Instant>,
}

impl Known {
    /// What is held, where it will do.
    fn current(&self, newer: bool) -> Option<Arc<CoreProviderMetadata>> {
        let (metadata, at) = self.metadata.as_ref()?;
        let renew = newer && self.renewed.is_none_or(|at| at.elapsed() >= REFETCH);
        (at.elapsed() < FRESH && !renew).then(|| metadata.clone())
    }
}

/// The provider's metadata cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("the metadata of {issuer} cannot be had: {reason}")]
pub(super) struct Unreachable {
    issuer: String,
    reason: String,
}

impl Provider {
    pub(crate) fn new(config: &SsoConfig) -> Result<Self, SsoConfigError> {
        let refuse = |reason: String| SsoConfigError::Value {
            provider: config.name.clone(),
            reason,
        };
        Name::parse("provider", &config.name).map_err(|error| refuse(error.to_string()))?;
        let preset = config.preset;
        let title = config.title.as_deref().or(preset.title());
        let title = title.unwrap_or(&config.name);
        if title.trim().is_empty()
            || title.chars().count() > LONGEST_TITLE
            || title.chars().any(is_hidden)
        {
            return Err(refuse(format!(
                "title has to be 1 to {LONGEST_TITLE} characters that are seen"
            )));
        }
        let issuer = config
            .issuer
            .as_deref()
            .or(preset.issuer())
            .ok_or_else(|| {
                refuse(format!(
                    "issuer is missing, such as {}",
                    preset.issuer_like()
                ))
            })?;
        let issuer = IssuerUrl::new(issuer.to_owned())
            .map_err(|error| refuse(format!("issuer {issuer:?} is no address: {error}")))?;
        let loopback = http::is_loopback(issuer.url());
        if !loopback && issuer.url().scheme() != "https" {
            return Err(refuse(format!("issuer {:?} is not https", issuer.as_str())));
        }
        if config.client_id.is_empty() {
            return Err(refuse("client_id is empty".into()));
        }
        let levels = match &config.levels {
            Some(levels) => levels
                .iter()
                .map(|(key, level)| Mapping::parse(key, level))
                .collect::<Result<_, _>>(),
            None => preset
                .levels()
                .iter()
                .map(|(key, level)| Mapping::parse(key, level))
                .collect(),
        };
        let max_age = config
            .max_age
            .unwrap_or(Duration::from_secs(preset.max_age_s()));
        if config
            .groups_lifetime
            .is_some_and(|lifetime| lifetime < SHORTEST_GROUPS)
        {
            return Err(refuse("groups_lifetime is less than a minute".into()));
        }
        Ok(Self {
            name: config.name.clone(),
            title: title.to_owned(),
            preset,
            issuer,
            client_id: ClientId::new(config.client_id.clone()),
            client_secret: read_secret(config)?,
            levels: levels.map_err(refuse)?,
            groups_claim: config.groups_claim.clone(),
            groups_lifetime_ms: config.groups_lifetime.map(millis),
            max_age_ms: millis(max_age),
            http: Client::new(loopback).map_err(|source| SsoConfigError::Http {
                provider: config.name.clone(),
                source,
            })?,
            known: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    /// Its endpoints and keys. With `newer`, because a token names a key that is not among them, fetched
    /// again unless that was done a moment ago.
    pub(super) async fn metadata(
        &self,
        newer: bool,
    ) -> Result<Arc<CoreProviderMetadata>, Unreachable> {
        if let Some(metadata) = self.known().current(newer) {
            return Ok(metadata);
        }
        let _fetching = self.fetching.lock().await;
        {
            let mut known = self.known();
            // Somebody else may have been faster.
            if let Some(metadata) = known.current(newer) {
                return Ok(metadata);
            }
            if newer {
                known.renewed = Some(Instant::now());
            }
            if known.failed.is_some_and(|at| at.elapsed() < PAUSE) {
                return Err(self.unreachable("it could not a moment ago".into()));
            }
        }
        let fetched = self.fetch().await;
        let mut known = self.known();
        match fetched {
            Ok(metadata) => {
                let metadata = Arc::new(metadata);
                known.metadata = Some((metadata.clone(), Instant::now()));
                known.failed = None;
                Ok(metadata)
            }
            Err(error) => {
                known.failed = Some(Instant::now());
                Err(error)
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self) -> Result<CoreProviderMetadata, Unreachable> {
        let metadata = CoreProviderMetadata::discover_async(self.issuer.clone(), &self.http)
            .await
            .map_err(|error| self.unreachable(causes(&error)))?;
        // OpenID Connect Discovery 1.0, 4.3: exactly the issuer that was asked.
        if *metadata.issuer() != self.issuer {
            return Err(self.unreachable("it is another's".into()));
        }
        // The user's browser is sent there: as good an address as those that are called from here.
        if !self.http.permits(metadata.authorization_endpoint().url()) {
            return Err(self.unreachable("its authorization endpoint is not https".into()));
        }
        Ok(metadata)
    }

    fn unreachable(&self, reason: String) -> Unreachable {
        Unreachable {
            issuer: self.issuer.as_str().to_owned(),
            reason,
        }
    }

    /// The `acr` values that stand for at least this level.
    pub(super) fn acr_values(&self, level: Level) -> impl Iterator<Item = &str> {
        let enough = self.levels.iter().filter(move |map| map.level >= level);
        enough.filter_map(Mapping::acr)
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// An error with what it comes from.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn read_secret(config: &SsoConfig) -> Result<ClientSecret, SsoConfigError> {
    let path = &config.client_secret_file;
    let failed = |source| SsoConfigError::Secret {
        provider: config.name.clone(),
        path: path.clone(),
        source,
    };
    let refuse = |reason: String| SsoConfigError::Value {
        provider: config.name.clone(),
        reason,
    };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o007 != 0 {
        let path = path.display();
        return Err(refuse(format!(
            "everybody may read client_secret_file {path}: chmod 0600 {path}"
        )));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    let secret = text.trim();
    if secret.is_empty() {
        return Err(refuse(format!(
            "client_secret_file {} is empty",
            path.display()
        )));
    }
    Ok(ClientSecret::new(secret.to_owned()))
}
