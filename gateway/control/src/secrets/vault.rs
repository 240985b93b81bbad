//! Seals secrets for the store with XChaCha20-Poly1305 under the master key.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::master_key::{self, MasterKeyError};
use super::{RandomError, random};

const NONCE: usize = 24;

/// The place of a sealed value. It is authenticated with the value, so that one row's secret
/// cannot be moved to another row by somebody who can write to the database.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) table: &'static str,
    pub(crate) column: &'static str,
    pub(crate) row: &'a str,
}

/// Why a secret could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error(
        "{table}.{column} of {row} does not open with this master key: is it the right state directory?"
    )]
    Open {
        table: &'static str,
        column: &'static str,
        row: String,
    },
    #[error("cannot seal a value of {0} bytes")]
    Seal(usize),
    #[error("cannot derive a key")]
    Derive,
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Seals and opens, and derives keys; cheap to clone.
#[derive(Clone)]
pub(crate) struct Vault(Arc<Keys>);

struct Keys {
    seal: XChaCha20Poly1305,
    derive: Hkdf<Sha256>,
}

impl Vault {
    pub(crate) fn open(state_dir: &Path) -> Result<Self, MasterKeyError> {
        let key = master_key::load_or_create(state_dir)?;
        Ok(Self(Arc::new(Keys {
            seal: XChaCha20Poly1305::new(&(*key).into()),
            derive: Hkdf::new(Some(b"portcullis derive v1"), key.as_slice()),
        })))
    }

    /// The key that belongs to these parts, the first of which names its use (RFC 5869). Whoever has the
    /// database alone cannot make it.
    pub(crate) fn derive(&self, parts: &[&[u8]]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        let mut info = Vec::new();
        for part in parts {
            info.extend((part.len() as u64).to_be_bytes());
            info.extend(*part);
        }
        let mut key = Zeroizing::new([0; 32]);
        let derived = self.0.derive.expand(&info, key.as_mut_slice());
        derived.map_err(|_| VaultError::Derive)?;
        Ok(key)
    }

    /// Nonce and ciphertext, base64.
    pub(crate) fn seal(&self, field: Field<'_>, secret: &[u8]) -> Result<String, VaultError> {
        let nonce = random::<NONCE>()?;
        let sealed = self
            .0
            .seal
            .encrypt(
                &XNonce::from(*nonce),
                Payload {
                    msg: secret,
                    aad: &aad(field),
                },
            )
            .map_err(|_| VaultError::Seal(secret.len()))?;
        Ok(STANDARD.encode([nonce.as_slice(), &sealed].concat()))
    }

    pub(crate) fn unseal(
        &self,
        field: Field<'_>,
        sealed: &str,
    ) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let refused = || VaultError::Open {
            table: field.table,
            column: field.column,
            row: field.row.into(),
        };
        let bytes = STANDARD.decode(sealed).map_err(|_| refused())?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>().ok_or_else(refused)?;
        let secret = self
            .0
            .seal
            .decrypt(
                &XNonce::from(*nonce),
                Payload {
                    msg: sealed,
                    aad: &aad(field),
                },
            )
            .map_err(|_| refused())?;
        Ok(Zeroizing::new(secret))
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(…)")
    }
}

/// Table and column names are ours and contain no slash, so the encoding is unambiguous.
fn aad(field: Field<'_>) -> Vec<u8> {
    format!("{}/{}/{}", field.table, field.column, field.row).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_only_in_its_own_place() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        let field = Field {
            table: "devices",
            column: "preshared_key",
            row: "a",
        };
        let sealed = vault.seal(field, b"psk").unwrap();
        assert_eq!(vault.unseal(field, &sealed).unwrap().as_slice(), b"psk");
        assert!(vault.unseal(Field { row: "b", ..field }, &sealed).is_err());
        assert!(vault.unseal(field, "").is_err());
        let other = tempfile::tempdir().unwrap();
        assert!(
            Vault::open(other.path())
                .unwrap()
                .unseal(field, &sealed)
                .is_err()
        );
        assert_eq!(format!("{vault:?}"), "Vault(…)");
    }
}
