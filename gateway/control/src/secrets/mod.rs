//! Everything that must not be seen: redacted types, encryption at rest, one-time tokens.

mod master_key;
mod recovery_code;
mod token;
mod vault;

use zeroize::Zeroizing;

pub(crate) use recovery_code::RecoveryCode;
pub(crate) use token::{Token, TokenHash};
pub(crate) use vault::{Field, Vault};

pub use master_key::MasterKeyError;
pub use vault::VaultError;

/// A secret text, such as a password: wiped on drop and never shown by `Debug`.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text itself. Name the reason where you call it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The operating system's generator failed; nothing secret can be made.
#[derive(Debug, thiserror::Error)]
#[error("the operating system's random number generator failed: {0}")]
pub struct RandomError(#[from] getrandom::Error);

/// Bytes from the operating system's generator, wiped on drop.
pub(crate) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, RandomError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invariant_10_debug_shows_no_secret() {
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "Secret(…)");
        let token = Token::generate().unwrap();
        assert!(!format!("{token:?}").contains(token.expose()));
    }
}
