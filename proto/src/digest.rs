//! The digest by which control checks that a gateway's kernel holds what was asked for.
//!
//! It is the wrapping sum of one hash per peer, so that either end can keep it up to date in
//! constant time for each change, whatever the number of peers. The agent computes it from what
//! it read back from the kernel, control from the store.

use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use crate::v1::Session;

/// What of one peer goes into the digest. Deadlines stay out, because each end keeps them on a
/// clock of its own: the session's tag stands for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerEntry<'a> {
    pub public_key: &'a [u8; 32],
    pub preshared_key: Option<&'a [u8; 32]>,
    /// Network address and prefix length, in any order.
    pub allowed_ips: &'a [(IpAddr, u8)],
    pub persistent_keepalive_s: u16,
    /// [`session_tag`] of the session, where the peer has one.
    pub session: Option<u64>,
    /// Number of the peer's class in the policy; 0 where there is no policy.
    pub policy: u32,
}

/// Names one grant: another session, level, login time, deadline or idle timeout has another tag.
/// The agent writes it to the kernel with the grant. Never 0, which there means "no session".
pub fn session_tag(session: &Session) -> u64 {
    let hash = Sha256::new()
        .chain_update(b"portcullis session v1")
        .chain_update((session.id.len() as u64).to_le_bytes())
        .chain_update(&session.id)
        .chain_update(session.level.to_le_bytes())
        .chain_update(session.authenticated_at_ms.to_le_bytes())
        .chain_update(session.deadline_ms.to_le_bytes())
        .chain_update(session.idle_timeout_ms.to_le_bytes())
        .finalize();
    let mut tag = [0; 8];
    tag.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(tag).max(1)
}

/// Tells a pre-shared key from others without telling it.
pub fn key_mark(preshared_key: &[u8; 32]) -> [u8; 32] {
    Sha256::new()
        .chain_update(b"portcullis pre-shared key v1")
        .chain_update(preshared_key)
        .finalize()
        .into()
}

/// A multiset hash over peers: add an entry, subtract it again, compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateDigest([u64; 4]);

impl StateDigest {
    pub fn add(&mut self, entry: &PeerEntry<'_>) {
        self.combine(entry, u64::wrapping_add);
    }

    pub fn subtract(&mut self, entry: &PeerEntry<'_>) {
        self.combine(entry, u64::wrapping_sub);
    }

    /// Takes the policy of this id in; 0, which stands for none, changes nothing.
    pub fn add_policy(&mut self, id: u64) {
        self.combine_hash(policy_hash(id), u64::wrapping_add);
    }

    /// Takes the policy of this id out again.
    pub fn subtract_policy(&mut self, id: u64) {
        self.combine_hash(policy_hash(id), u64::wrapping_sub);
    }

    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn combine(&mut self, entry: &PeerEntry<'_>, with: fn(u64, u64) -> u64) {
        self.combine_hash(hash(entry), with);
    }

    fn combine_hash(&mut self, hash: [u8; 32], with: fn(u64, u64) -> u64) {
        for (word, chunk) in self.0.iter_mut().zip(hash.chunks_exact(8)) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(chunk);
            *word = with(*word, u64::from_le_bytes(bytes));
        }
    }
}

fn policy_hash(id: u64) -> [u8; 32] {
    if id == 0 {
        return [0; 32];
    }
    Sha256::new()
        .chain_update(b"portcullis policy v1")
        .chain_update(id.to_le_bytes())
        .finalize()
        .into()
}

fn hash(entry: &PeerEntry<'_>) -> [u8; 32] {
    let mut allowed_ips = entry.allowed_ips.to_vec();
    allowed_ips.sort_unstable();
    let mut hasher = Sha256::new();
    hasher.update(b"portcullis peer v2");
    hasher.update(entry.public_key);
    // A peer without a key and one with the all-zero key are the same to the kernel.
    hasher.update(entry.preshared_key.unwrap_or(&[0; 32]));
    hasher.update(entry.persistent_keepalive_s.to_le_bytes());
    hasher.update((allowed_ips.len() as u64).to_le_bytes());
    for (address, prefix) in allowed_ips {
        match address {
            IpAddr::V4(v4) => hasher.update(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => hasher.update(v6.octets()),
        }
        hasher.update([u8::from(address.is_ipv6()), prefix]);
    }
    hasher.update(entry.session.unwrap_or(0).to_le_bytes());
    hasher.update(entry.policy.to_le_bytes());
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &[u8; 32], session: Option<u64>) -> PeerEntry<'_> {
        PeerEntry {
            public_key: key,
            preshared_key: None,
            allowed_ips: &[],
            persistent_keepalive_s: 0,
            session,
            policy: 0,
        }
    }

    #[test]
    fn order_of_changes_does_not_matter_and_subtracting_undoes_adding() {
        let (a, b) = ([1; 32], [2; 32]);
        let mut forward = StateDigest::default();
        forward.add(&entry(&a, Some(7)));
        forward.add(&entry(&b, None));
        let mut backward = StateDigest::default();
        backward.add(&entry(&b, None));
        backward.add(&entry(&a, None));
        assert_ne!(forward, backward);
        backward.subtract(&entry(&a, None));
        backward.add(&entry(&a, Some(7)));
        assert_eq!(forward, backward);
    }

    #[test]
    fn a_policy_and_a_class_change_the_digest() {
        let mut digest = StateDigest::default();
        digest.add_policy(0);
        assert_eq!(digest, StateDigest::default());
        digest.add_policy(7);
        assert_ne!(digest, StateDigest::default());
        digest.subtract_policy(7);
        digest.add(&PeerEntry {
            policy: 1,
            ..entry(&[1; 32], None)
        });
        digest.subtract(&entry(&[1; 32], None));
        assert_ne!(digest, StateDigest::default());
    }

    #[test]
    fn an_extended_session_has_another_tag() {
        let session = Session {
            id: vec![1; 16],
            deadline_ms: 1000,
            ..Session::default()
        };
        let extended = Session {
            deadline_ms: 1001,
            ..session.clone()
        };
        assert_ne!(session_tag(&session), session_tag(&extended));
    }
}
