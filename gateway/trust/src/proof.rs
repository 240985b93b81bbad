//! Proof of possession of a device's WireGuard key, for logins that begin before there is a tunnel.
//!
//! ```text
//! shared = X25519(private key, the other side's public key)          RFC 7748, 6.1
//! proof  = HKDF-SHA256(ikm = shared, salt = "portcullis connect v1",  RFC 5869
//!                      info = each field with its length before it, 32 bits, big endian)
//! ```
//!
//! Device and location alike compute it, and nobody else can. Fields, in this order: challenge, location,
//! name of the user, public key of the device, public key of the location. Whoever has seen a proof has one for
//! this challenge, which is good once, and for this login.

use hkdf::Hkdf;
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const CONTEXT: &[u8] = b"portcullis connect v1";

/// What is proven: this device wants this user logged in at this location, in answer to this challenge.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// As the location wrote it.
    pub challenge: &'a str,
    /// The location's name.
    pub location: &'a str,
    /// The name that logs in.
    pub username: &'a str,
    /// The device's public key.
    pub device: &'a [u8; 32],
    /// The location's public key.
    pub location_key: &'a [u8; 32],
}

impl Claim<'_> {
    /// What the device sends, by its private key. `None`: the location's key is none (RFC 7748, 6.1: the all-zero
    /// secret).
    pub fn prove(&self, device: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        self.proof(device, self.location_key)
    }

    /// What the device has to have sent, by the location's private key. `None`: the device's key is none.
    pub fn expected(&self, location: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        self.proof(location, self.device)
    }

    fn proof(&self, own: &[u8; 32], theirs: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let shared = StaticSecret::from(*own).diffie_hellman(&PublicKey::from(*theirs));
        if !shared.was_contributory() {
            return None;
        }
        let fields: [&[u8]; 5] = [
            self.challenge.as_bytes(),
            self.location.as_bytes(),
            self.username.as_bytes(),
            self.device,
            self.location_key,
        ];
        let mut info = Vec::new();
        for field in fields {
            info.extend(u32::try_from(field.len()).ok()?.to_be_bytes());
            info.extend(field);
        }
        let mut proof = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(CONTEXT), shared.as_bytes())
            .expand(&info, proof.as_mut_slice())
            .ok()?;
        Some(proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(private: [u8; 32]) -> [u8; 32] {
        PublicKey::from(&StaticSecret::from(private)).to_bytes()
    }

    #[test]
    fn both_sides_agree_and_each_field_matters() {
        let (device, location) = ([1; 32], [2; 32]);
        let (device_public, location_public) = (public(device), public(location));
        let claim = Claim {
            challenge: "c",
            location: "vault",
            username: "ada",
            device: &device_public,
            location_key: &location_public,
        };
        let proof = claim.prove(&device).unwrap();
        assert_eq!(claim.expected(&location), Some(proof.clone()));
        for other in [
            Claim {
                challenge: "d",
                ..claim
            },
            Claim {
                location: "vaul",
                ..claim
            },
            Claim {
                username: "bob",
                ..claim
            },
            Claim {
                challenge: "",
                location: "cvault",
                ..claim
            },
        ] {
            assert_ne!(other.expected(&location), Some(proof.clone()), "{other:?}");
        }
        assert_ne!(claim.expected(&[3; 32]), Some(proof.clone()));
        assert_ne!(claim.prove(&[3; 32]), Some(proof));
    }

    #[test]
    fn a_key_that_is_none_proves_nothing() {
        let claim = Claim {
            challenge: "c",
            location: "vault",
            username: "ada",
            device: &[0; 32],
            location_key: &[0; 32],
        };
        assert_eq!(claim.prove(&[1; 32]), None);
        assert_eq!(claim.expected(&[1; 32]), None);
    }
}
