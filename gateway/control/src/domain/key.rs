//! WireGuard public keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x25519_dalek::{PublicKey, StaticSecret};

use super::Invalid;

/// A peer's Curve25519 public key. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DeviceKey([u8; 32]);

impl DeviceKey {
    /// Takes 32 bytes that can take part in a key exchange: with a point of low order (the
    /// all-zero key among them) every exchange yields zero, and kernel WireGuard ignores the peer.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| {
            Invalid(format!(
                "a public key has 32 bytes, this one has {}",
                bytes.len()
            ))
        })?;
        // Scalars are clamped to multiples of the cofactor: any one of them finds every such point.
        let probe = StaticSecret::from([1; 32]).diffie_hellman(&PublicKey::from(bytes));
        if !probe.was_contributory() {
            return Err(Invalid(
                "this public key is a point of low order: not a real key".into(),
            ));
        }
        Ok(Self(bytes))
    }

    /// Takes any 32 bytes, to look up a key that was checked when it was stored.
    pub(crate) fn for_lookup(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The usual text form, which is also what the store keeps.
    pub(crate) fn to_base64(self) -> String {
        STANDARD.encode(self.0)
    }

    /// Reads back what [`Self::to_base64`] wrote to the store.
    pub(crate) fn from_store(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_base64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_no_exchange_can_use_are_refused() {
        assert!(DeviceKey::parse(&[0; 32]).is_err());
        assert!(DeviceKey::parse(&[1; 31]).is_err());
        let mut one = [0; 32];
        one[0] = 1;
        assert!(DeviceKey::parse(&one).is_err());
        one[31] = 0x80; // the ignored top bit does not hide it
        assert!(DeviceKey::parse(&one).is_err());
        let mut minus_one = [0xff; 32];
        minus_one[0] = 0xec;
        minus_one[31] = 0x7f;
        assert!(DeviceKey::parse(&minus_one).is_err());
        let good = PublicKey::from(&StaticSecret::from([7; 32]));
        let key = DeviceKey::parse(good.as_bytes()).unwrap();
        assert_eq!(DeviceKey::from_store(&key.to_base64()), Some(key));
    }
}
