//! Challenges that the store need not remember: strangers ask for them, and must not fill it.
//!
//! ```text
//! challenge = base64url(expires_ms, 64 bits, big endian ‖ 24 random bytes ‖ tag, 32 bytes)
//! tag       = a key of the vault, derived from all of this, the location and the device
//! ```
//!
//! Only one that was answered rightly is written down, as spent.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

use crate::secrets::{Vault, VaultError, random};

/// How long a challenge may be answered.
pub(super) const WITHIN_MS: i64 = 60 * 1000;

const NONCE: usize = 24;
const BODY: usize = 8 + NONCE;

/// A challenge that is ours and in time.
pub(super) struct Answered {
    /// Unlike any other's.
    pub(super) id: String,
    pub(super) expires_ms: i64,
}

fn tag(vault: &Vault, body: &[u8], location: &str, device: &str) -> Result<[u8; 32], VaultError> {
    let parts: [&[u8]; 4] = [
        b"connect challenge",
        body,
        location.as_bytes(),
        device.as_bytes(),
    ];
    Ok(*vault.derive(&parts)?)
}

/// A new one for this location and this device, whether or not there are such.
pub(super) fn new(
    vault: &Vault,
    now_ms: i64,
    location: &str,
    device: &str,
) -> Result<String, VaultError> {
    let mut bytes = (now_ms + WITHIN_MS).to_be_bytes().to_vec();
    bytes.extend(random::<NONCE>()?.iter());
    bytes.extend(tag(vault, &bytes, location, device)?);
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Whether it was given for this location and this device, and not too long ago.
pub(super) fn check(
    vault: &Vault,
    now_ms: i64,
    challenge: &str,
    location: &str,
    device: &str,
) -> Result<Option<Answered>, VaultError> {
    let Ok(bytes) = URL_SAFE_NO_PAD.decode(challenge) else {
        return Ok(None);
    };
    let Some((body, presented)) = bytes.split_first_chunk::<BODY>() else {
        return Ok(None);
    };
    let ours = tag(vault, body, location, device)?;
    if !bool::from(ours.as_slice().ct_eq(presented)) {
        return Ok(None);
    }
    let Some((expires, nonce)) = body.split_first_chunk::<8>() else {
        return Ok(None);
    };
    let expires_ms = i64::from_be_bytes(*expires);
    // Also one from a time when the clock was far ahead is over.
    let in_time = now_ms < expires_ms && expires_ms <= now_ms.saturating_add(WITHIN_MS);
    Ok(in_time.then(|| Answered {
        id: URL_SAFE_NO_PAD.encode(nonce),
        expires_ms,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_of_its_time_its_location_and_its_device() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        let challenge = new(&vault, 1_000, "vault", "key").unwrap();
        let good = |now_ms, challenge: &str, location, device| {
            check(&vault, now_ms, challenge, location, device)
                .unwrap()
                .is_some()
        };
        assert!(good(1_000, &challenge, "vault", "key"));
        assert!(good(WITHIN_MS + 999, &challenge, "vault", "key"));
        assert!(!good(WITHIN_MS + 1_000, &challenge, "vault", "key"));
        assert!(!good(999, &challenge, "vault", "key"), "from the future");
        assert!(!good(1_000, &challenge, "office", "key"));
        assert!(!good(1_000, &challenge, "vault", "other"));
        assert!(!good(1_000, "", "vault", "key"));
        let mut other = challenge.clone().into_bytes();
        other[12] ^= 1;
        assert!(!good(
            1_000,
            &String::from_utf8(other).unwrap(),
            "vault",
            "key"
        ));
        assert_ne!(challenge, new(&vault, 1_000, "vault", "key").unwrap());
    }
}
