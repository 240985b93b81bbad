//! Time-based one-time passwords (RFC 6238): SHA-1, six digits, 30 s steps, which is what every
//! authenticator understands.

use subtle::ConstantTimeEq as _;
use totp_rs::{Builder, Totp};
use zeroize::Zeroizing;

use crate::secrets::{RandomError, random};

/// RFC 4226, 4: 160 bits.
pub(crate) const SECRET_BYTES: usize = 20;
const STEP_S: u64 = 30;

/// A seed or an account name that no authenticator would take.
#[derive(Debug, thiserror::Error)]
pub enum TotpError {
    #[error("not a TOTP secret: {0}")]
    Secret(String),
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// A user's authenticator, as control sees it.
pub(crate) struct Authenticator(Totp);

impl Authenticator {
    pub(crate) fn generate() -> Result<Zeroizing<[u8; SECRET_BYTES]>, RandomError> {
        random()
    }

    pub(crate) fn new(secret: &[u8], account: &str) -> Result<Self, TotpError> {
        Builder::new()
            .with_secret(secret.to_vec())
            .with_account_name(account)
            .with_issuer(Some("Portcullis"))
            .build()
            .map(Self)
            .map_err(|error| TotpError::Secret(error.to_string()))
    }

    /// `otpauth://…`, for a QR code.
    pub(crate) fn uri(&self) -> Result<Zeroizing<String>, TotpError> {
        self.0
            .to_url()
            .map(Zeroizing::new)
            .map_err(|error| TotpError::Secret(error.to_string()))
    }

    pub(crate) fn base32(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.secret().to_base32())
    }

    /// The newest time step, of the current one and its two neighbours, whose code this is.
    /// Newest, because accepting it spends all older ones too. Always computes all three.
    pub(crate) fn step_of(&self, code: &str, now_ms: i64) -> Option<i64> {
        let current = u64::try_from(now_ms).ok()? / 1000 / STEP_S;
        let mut found = None;
        for step in current.saturating_sub(1)..=current + 1 {
            let expected = self.0.generate(step * STEP_S).to_string();
            if bool::from(expected.as_bytes().ct_eq(code.as_bytes())) {
                found = i64::try_from(step).ok();
            }
        }
        found
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, SHA-1, cut to six digits.
    #[test]
    fn rfc_6238_vectors() {
        let totp = Authenticator::new(b"12345678901234567890", "alice").unwrap();
        for (time_s, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(totp.step_of(code, time_s * 1000), Some(time_s / 30));
            assert_eq!(totp.step_of(code, (time_s + 30) * 1000), Some(time_s / 30));
            assert_eq!(totp.step_of(code, (time_s + 60) * 1000), None);
        }
        for bad in ["", "28708", "2870820", "28708a", " 287082"] {
            assert_eq!(totp.step_of(bad, 59_000), None);
        }
        assert!(!format!("{totp:?}").contains("GEZDGNBV"));
    }
}
