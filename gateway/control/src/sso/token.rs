//! What an ID token has to be, and what it says.

use std::str::FromStr as _;
use std::time::{Duration, SystemTime};

use openidconnect::core::{
    CoreGenderClaim, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm,
    CoreProviderMetadata,
};
use openidconnect::{
    AdditionalClaims, ClaimsVerificationError, IdToken, IdTokenClaims, IdTokenVerifier, Nonce,
    SignatureVerificationError,
};
use portcullis_proto::v1::Level;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::LEEWAY_MS;
use super::provider::Provider;
use crate::domain::Name;
use crate::store::to_u64;

/// Signatures that only the provider can make. No `none`, and no MAC.
pub(super) const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];
/// OpenID Connect Core, section 2: a subject has 255 characters at most.
pub(crate) const LONGEST_SUBJECT: usize = 255;
const LONGEST_SID: usize = 255;
/// Groups of one user by one provider.
const MOST_GROUPS: usize = 256;

/// What one `amr` or `acr` value is taken for.
#[derive(Debug)]
pub(super) struct Mapping {
    is_acr: bool,
    value: String,
    pub(super) level: Level,
}

/// What a provider's token says of a user.
#[derive(Debug)]
pub(super) struct Vouch {
    pub(super) subject: String,
    /// The provider's own session; empty where it does not say.
    pub(super) sid: String,
    /// `None`: one factor.
    pub(super) level: Level,
    /// Where it is one factor: whether that is something known.
    pub(super) one_is_known: bool,
    /// When the user logged in there.
    pub(super) authenticated_at_ms: i64,
    /// Where the provider is asked about them.
    pub(super) groups: Option<Vec<String>>,
}

/// Why a token is refused, for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    /// The key that signed it is not among those that are known.
    #[error("no such key")]
    NoKey,
    #[error("{0}")]
    Bad(String),
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Others {
    #[serde(flatten)]
    claims: Map<String, Value>,
}

impl AdditionalClaims for Others {}

type Token =
    IdToken<Others, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;
type Claims = IdTokenClaims<Others, CoreGenderClaim>;

impl Mapping {
    pub(super) fn parse(key: &str, level: &str) -> Result<Self, String> {
        let level = match level {
            "mfa" => Level::Mfa,
            "phishing-resistant" => Level::PhishingResistant,
            _ => {
                return Err(format!(
                    "levels: {level:?} is no level: there are mfa and phishing-resistant"
                ));
            }
        };
        let (is_acr, value) = match key.split_once(':') {
            Some(("acr", value)) if !value.is_empty() => (true, value),
            Some(("amr", value)) if !value.is_empty() => (false, value),
            _ => {
                return Err(format!(
                    "levels: {key:?} is neither amr:VALUE nor acr:VALUE, such as \"amr:mfa\""
                ));
            }
        };
        Ok(Self {
            is_acr,
            value: value.to_owned(),
            level,
        })
    }

    pub(super) fn acr(&self) -> Option<&str> {
        self.is_acr.then_some(self.value.as_str())
    }
}

/// Checks a token by OpenID Connect Core, 3.1.3.7, and reads it. `begun_ms` is when the user was sent there.
pub(super) fn read(
    provider: &Provider,
    metadata: &CoreProviderMetadata,
    token: &str,
    nonce: &str,
    begun_ms: i64,
    now_ms: i64,
) -> Result<Vouch, TokenError> {
    let bad = |text: &str| TokenError::Bad(text.to_owned());
    let token = Token::from_str(token).map_err(|_| bad("no JWT with the claims of an ID token"))?;
    // As of a public client: it knows no secret that a MAC could be made with.
    let verifier = IdTokenVerifier::<CoreJsonWebKey>::new_public_client(
        provider.client_id.clone(),
        provider.issuer.clone(),
        metadata.jwks().clone(),
    );
    let oldest_ms = begun_ms.saturating_sub(provider.max_age_ms) - LEEWAY_MS;
    let latest_ms = now_ms + LEEWAY_MS;
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(to_u64(now_ms));
    let verifier = verifier
        .set_allowed_algs(ALGORITHMS)
        .set_time_fn(move || now.into())
        .set_issue_time_verifier_fn(move |issued| {
            let issued_ms = issued.timestamp_millis();
            match (begun_ms - LEEWAY_MS..=latest_ms).contains(&issued_ms) {
                true => Ok(()),
                false => Err("issued before it was asked for, or in the future".to_owned()),
            }
        })
        .set_auth_time_verifier_fn(move |at| match at {
            None => Err("auth_time is missing".to_owned()),
            Some(at) if at.timestamp_millis() > latest_ms => {
                Err("auth_time is in the future".to_owned())
            }
            // Told in whole seconds, rounded down.
            Some(at) if at.timestamp_millis() + 999 < oldest_ms => {
                Err("the login at the provider is too old".to_owned())
            }
            Some(_) => Ok(()),
        });
    let nonce = Nonce::new(nonce.to_owned());
    let claims = token
        .claims(&verifier, &nonce)
        .map_err(|error| match error {
            ClaimsVerificationError::SignatureVerification(
                SignatureVerificationError::NoMatchingKey,
            ) => TokenError::NoKey,
            error => TokenError::Bad(super::provider::causes(&error)),
        })?;
    // The library leaves it to its users (3.1.3.7, points 4 and 5).
    if claims
        .authorized_party()
        .is_some_and(|azp| *azp != provider.client_id)
    {
        return Err(bad("it was made for another party (azp)"));
    }
    let subject = claims.subject().as_str();
    if subject.is_empty() || subject.len() > LONGEST_SUBJECT {
        return Err(bad("a subject that is none"));
    }
    let others = &claims.additional_claims().claims;
    let sid = others
        .get("sid")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if sid.len() > LONGEST_SID {
        return Err(bad("a sid that is none"));
    }
    let groups = provider.groups_claim.as_ref();
    Ok(Vouch {
        level: level(provider, claims),
        one_is_known: one_is_known(claims),
        authenticated_at_ms: claims
            .auth_time()
            .ok_or_else(|| bad("auth_time is missing"))?
            .timestamp_millis(),
        groups: groups.map(|claim| groups_in(provider, others.get(claim))),
        subject: subject.to_owned(),
        sid: sid.to_owned(),
    })
}

/// The highest level that any value stands for.
fn level(provider: &Provider, claims: &Claims) -> Level {
    let acr = claims.auth_context_ref().map(|acr| acr.as_str());
    let holds = |map: &&Mapping| match map.is_acr {
        true => acr == Some(map.value.as_str()),
        false => claims
            .auth_method_refs()
            .is_some_and(|amr| amr.iter().any(|method| method.as_str() == map.value)),
    };
    let levels = provider.levels.iter().filter(holds).map(|map| map.level);
    levels.max().unwrap_or(Level::None)
}

/// Whether a login with one factor was with something known (RFC 8176). A provider that does not say is
/// taken at its best-known word: a password.
fn one_is_known(claims: &Claims) -> bool {
    claims.auth_method_refs().is_none_or(|amr| {
        amr.is_empty()
            || amr
                .iter()
                .any(|method| matches!(method.as_str(), "pwd" | "pin" | "kba"))
    })
}

/// Those that can be groups of a policy; the others are left out.
fn groups_in(provider: &Provider, claim: Option<&Value>) -> Vec<String> {
    let told: Vec<&str> = match claim {
        Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(one)) => vec![one],
        _ => Vec::new(),
    };
    let mut groups: Vec<String> = told
        .iter()
        .filter(|name| Name::parse("group", name).is_ok())
        .map(|name| (*name).to_owned())
        .collect();
    groups.sort();
    groups.dedup();
    groups.truncate(MOST_GROUPS);
    if groups.len() < told.len() {
        tracing::debug!(
            provider = provider.name,
            told = told.len(),
            taken = groups.len(),
            "not every group that the provider told of is one here"
        );
    }
    groups
}
