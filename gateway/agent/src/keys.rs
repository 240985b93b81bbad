//! WireGuard's three kinds of key.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

/// A key that is not what it should be. The key itself is never part of the message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    #[error("a WireGuard key has 32 bytes, this one {0}")]
    Length(usize),
    #[error("the all-zero key names no peer")]
    Zero,
    #[error("not base64")]
    Base64,
}

/// A peer's public key: its identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&[u8]> for PublicKey {
    type Error = KeyError;

    fn try_from(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::try_from(<[u8; 32]>::try_from(bytes).map_err(|_| KeyError::Length(bytes.len()))?)
    }
}

impl TryFrom<[u8; 32]> for PublicKey {
    type Error = KeyError;

    fn try_from(bytes: [u8; 32]) -> Result<Self, KeyError> {
        // To the kernel and to the datapath's maps this is "no key".
        if bytes == [0; 32] {
            Err(KeyError::Zero)
        } else {
            Ok(Self(bytes))
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The symmetric key mixed into a peer's handshakes. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct PresharedKey(Zeroizing<[u8; 32]>);

impl PresharedKey {
    /// `None` for no bytes and for the all-zero key, which to the kernel is the same as none.
    pub fn from_wire(bytes: &[u8]) -> Result<Option<Self>, KeyError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let key = <[u8; 32]>::try_from(bytes).map_err(|_| KeyError::Length(bytes.len()))?;
        Ok(Self::from_kernel(key))
    }

    /// As the kernel reports it: all zeroes where there is none.
    pub fn from_kernel(key: [u8; 32]) -> Option<Self> {
        let key = Zeroizing::new(key);
        (*key != [0; 32]).then_some(Self(key))
    }

    /// The 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(redacted)")
    }
}

/// The gateway's own private key. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct PrivateKey(Zeroizing<[u8; 32]>);

impl PrivateKey {
    /// From the operating system's generator.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key)?;
        Ok(Self(key))
    }

    /// As wg(8) writes it; white space around it is ignored.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| KeyError::Base64)?);
        let key =
            <[u8; 32]>::try_from(bytes.as_slice()).map_err(|_| KeyError::Length(bytes.len()))?;
        if key == [0; 32] {
            Err(KeyError::Zero)
        } else {
            Ok(Self(Zeroizing::new(key)))
        }
    }

    /// As wg(8) writes it.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.0))
    }

    /// The 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key that belongs to this one.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(x25519_dalek::PublicKey::from(&StaticSecret::from(*self.0)).to_bytes())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_key_is_the_one_that_wg_8_computes() {
        // Given: RFC 7748, section 6.1, Alice's pair.
        let private = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        let public = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
        let key = PrivateKey::from_base64(private).expect("valid");
        assert_eq!(key.public_key().to_string(), public);
        assert_eq!(*key.to_base64(), private);
    }

    #[test]
    fn inv10_secret_keys_are_redacted() {
        let psk = PresharedKey::from_wire(&[7; 32])
            .expect("valid")
            .expect("present");
        assert_eq!(format!("{psk:?}"), "PresharedKey(redacted)");
        let key = PrivateKey::generate().expect("random");
        assert_eq!(format!("{key:?}"), "PrivateKey(redacted)");
    }

    #[test]
    fn keys_of_another_length_and_zero_keys_are_refused() {
        assert_eq!(PublicKey::try_from(&[1; 31][..]), Err(KeyError::Length(31)));
        assert_eq!(PublicKey::try_from([0; 32]), Err(KeyError::Zero));
        assert_eq!(PresharedKey::from_wire(&[1; 33]), Err(KeyError::Length(33)));
        assert_eq!(PresharedKey::from_wire(&[0; 32]), Ok(None));
        assert_eq!(PresharedKey::from_wire(&[]), Ok(None));
    }
}
