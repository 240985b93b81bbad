//! A certificate's SHA-256 fingerprint, the way people copy it: `sha256:` and 64 hex digits.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// SHA-256 of a certificate's DER encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// The text is not a fingerprint.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "a CA fingerprint is `sha256:` followed by 64 hex digits, as `portcullis gateway add` and `device add` print it"
)]
pub struct FingerprintError;

impl Fingerprint {
    /// Of a certificate in DER encoding.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Upper case and colons between the bytes, as openssl prints them, are accepted too.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.strip_prefix("sha256:").ok_or(FingerprintError)?;
        let digits: Option<Vec<u8>> = hex
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let digits = digits
            .filter(|digits| digits.len() == 64)
            .ok_or(FingerprintError)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let fingerprint = Fingerprint::of(b"certificate");
        let text = fingerprint.to_string();
        assert_eq!(text.len(), 7 + 64);
        assert_eq!(text.parse(), Ok(fingerprint));
        let openssl = format!("sha256:{}", text[7..].to_uppercase());
        assert_eq!(openssl.parse(), Ok(fingerprint));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "sha256:",
            "sha256:00",
            "sha256:+f00",
            "md5:00",
            &"0".repeat(64),
            &format!("sha256:{}", "é".repeat(32)),
        ] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError), "{text}");
        }
        let not_hex = format!("sha256:{}", "g".repeat(64));
        assert_eq!(not_hex.parse::<Fingerprint>(), Err(FingerprintError));
    }
}
