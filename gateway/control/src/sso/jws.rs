//! Signed tokens that are no ID tokens. The signature itself is checked by openidconnect.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::{CoreJsonWebKey, CoreJsonWebKeySet, CoreJwsSigningAlgorithm};
use openidconnect::{
    JsonWebKey as _, JsonWebKeyAlgorithm, JsonWebKeyId, JsonWebKeyUse as _,
    JwsSigningAlgorithm as _,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::token::{ALGORITHMS, TokenError};

#[derive(Deserialize)]
struct Header {
    alg: CoreJwsSigningAlgorithm,
    kid: Option<JsonWebKeyId>,
    typ: Option<String>,
    /// Extensions that must be understood (RFC 7515, 4.1.11). None is.
    crit: Option<Value>,
}

/// Reads the claims of a token of one of these types, where one of the keys has signed it.
pub(super) fn read<T: DeserializeOwned>(
    keys: &CoreJsonWebKeySet,
    types: &[&str],
    token: &str,
) -> Result<T, TokenError> {
    let bad = |text: &str| TokenError::Bad(text.to_owned());
    let mut parts = token.split('.');
    let (Some(head), Some(body), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad("no JWT"));
    };
    let decode = |part: &str| {
        let decoded = URL_SAFE_NO_PAD.decode(part);
        decoded.map_err(|_| bad("a JWT that is not base64url"))
    };
    let header: Header = serde_json::from_slice(&decode(head)?)
        .map_err(|_| bad("a JWT whose header is not known here"))?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(bad("a JWT signed in a way that is not accepted"));
    }
    if header.crit.is_some() {
        return Err(bad("a JWT with critical extensions"));
    }
    let is_type = |typ: &String| types.iter().any(|good| typ.eq_ignore_ascii_case(good));
    if !header.typ.as_ref().is_none_or(is_type) {
        return Err(bad("a JWT of another type"));
    }
    let fits = |key: &&CoreJsonWebKey| {
        let named = header.kid.is_none() || key.key_id() == header.kid.as_ref();
        let signs = key.key_use().is_none_or(|usage| usage.allows_signature());
        let algorithm = match key.signing_alg() {
            JsonWebKeyAlgorithm::Algorithm(alg) => *alg == header.alg,
            JsonWebKeyAlgorithm::Unspecified => true,
            JsonWebKeyAlgorithm::Unsupported => false,
        };
        named && signs && algorithm && header.alg.key_type().as_ref() == Some(key.key_type())
    };
    let mut fitting = keys.keys().iter().filter(fits).peekable();
    if fitting.peek().is_none() {
        return Err(TokenError::NoKey);
    }
    let signature = decode(signature)?;
    let signed = format!("{head}.{body}");
    let mut checked = fitting.map(|key| {
        let verified = key.verify_signature(&header.alg, signed.as_bytes(), &signature);
        verified.is_ok()
    });
    if !checked.any(|good| good) {
        return Err(bad("a JWT whose signature is wrong"));
    }
    serde_json::from_slice(&decode(body)?).map_err(|_| bad("a JWT without the claims it needs"))
}
