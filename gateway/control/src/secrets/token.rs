//! One-time tokens: 32 random bytes, of which the store keeps a hash.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{RandomError, random};

/// What every token begins with: no token looks like an option of a command line, and scanners
/// for leaked secrets can recognise one.
const PREFIX: &str = "portcullis_";

/// A token in the clear, as it is shown once.
#[derive(Clone)]
pub(crate) struct Token(Zeroizing<String>);

/// What the store keeps. A token has 256 bits of entropy: a plain hash cannot be searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenHash(String);

impl Token {
    pub(crate) fn generate() -> Result<Self, RandomError> {
        Ok(Self::of_bytes(&*random::<32>()?))
    }

    /// The token of these bytes, which nobody else knows.
    pub(crate) fn of_bytes(bytes: &[u8; 32]) -> Self {
        let mut token = Zeroizing::new(PREFIX.to_owned());
        URL_SAFE_NO_PAD.encode_string(bytes, &mut token);
        Self(token)
    }

    /// Whether a text could be a token of ours, which says nothing about whether it is.
    pub(crate) fn looks_like_one(text: &str) -> bool {
        text.strip_prefix(PREFIX).is_some_and(|rest| {
            let bytes = URL_SAFE_NO_PAD.decode(rest);
            bytes.is_ok_and(|bytes| bytes.len() == 32)
        })
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    pub(crate) fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

impl TokenHash {
    /// The hash of a token as somebody presents it.
    pub(crate) fn of(presented: &str) -> Self {
        Self(URL_SAFE_NO_PAD.encode(Sha256::digest(presented.as_bytes())))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_taken_for_an_option() {
        for _ in 0..200 {
            let token = Token::generate().unwrap();
            assert!(token.expose().starts_with(PREFIX));
            assert_eq!(token.expose().len(), PREFIX.len() + 43);
        }
    }
}
