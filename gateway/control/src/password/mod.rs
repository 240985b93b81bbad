//! Passwords: the rules for new ones, and hashing with argon2id.

mod rules;

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::secrets::Secret;
use rules::{MAX_BYTES, MAX_CHARACTERS, MIN_CHARACTERS};

/// OWASP's password storage cheat sheet: argon2id, 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Hashes at a time: bounds memory, and the share of the machine that guessing can take.
const CONCURRENT: usize = 2;
/// Strangers who wait for a turn, of however many networks.
const STRANGERS_WAITING: usize = 16;

/// Why a password could not be hashed or compared.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("a password needs at least {MIN_CHARACTERS} characters")]
    Short,
    #[error("a password may have at most {MAX_CHARACTERS} characters")]
    Long,
    #[error(
        "this password is one of the most common ones, or like them, which are tried first: choose another"
    )]
    Common,
    #[error("a password may not contain the user's name")]
    Name,
    #[error("password hashing failed: {0}")]
    Hash(String),
}

/// Hashes and verifies on the blocking pool, a bounded number at a time.
#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    slots: Arc<Semaphore>,
    /// Strangers take turns, so that they never hold all of the slots; more may not even wait.
    strangers: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// What an unknown user's password is compared with, so that both take the same time.
    dummy: Arc<str>,
}

impl Passwords {
    pub(crate) fn new() -> Result<Self, PasswordError> {
        let dummy = hash("portcullis: nobody's password")?.into();
        Ok(Self {
            slots: Arc::new(Semaphore::new(CONCURRENT)),
            strangers: Arc::new(Semaphore::new(CONCURRENT - 1)),
            waiting: Arc::new(Semaphore::new(STRANGERS_WAITING)),
            dummy,
        })
    }

    /// Waits for a stranger's turn, to be held while a password of theirs is compared. `None` where too
    /// many are waiting for one.
    pub(crate) async fn strangers_turn(&self) -> Option<OwnedSemaphorePermit> {
        let _waiting = self.waiting.try_acquire().ok()?;
        self.strangers.clone().acquire_owned().await.ok()
    }

    /// The PHC string of a new password of this user, if it may be one.
    pub(crate) async fn hash(
        &self,
        password: &Secret,
        user: &str,
    ) -> Result<String, PasswordError> {
        let (password, user) = (password.clone(), user.to_owned());
        self.run(move || {
            rules::check(password.expose(), &user)?;
            hash(password.expose())
        })
        .await?
    }

    /// Whether the password is the one that was hashed. Without a hash it works as long as with
    /// one, and says no.
    pub(crate) async fn verify(
        &self,
        password: &Secret,
        stored: Option<&str>,
    ) -> Result<bool, PasswordError> {
        if password.expose().len() > MAX_BYTES {
            return Ok(false);
        }
        let known = stored.is_some();
        let stored: Arc<str> = stored.map_or_else(|| self.dummy.clone(), Into::into);
        let password = password.clone();
        let matches = self
            .run(move || verify(password.expose(), &stored))
            .await??;
        Ok(matches && known)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let slot = self.slots.clone().acquire_owned().await;
        let slot = slot.map_err(|error| PasswordError::Hash(error.to_string()))?;
        tokio::task::spawn_blocking(move || {
            let _slot = slot;
            work()
        })
        .await
        .map_err(|error| PasswordError::Hash(error.to_string()))
    }
}

fn hasher() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)
        .map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &str) -> Result<String, PasswordError> {
    hasher()?
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|error| PasswordError::Hash(error.to_string()))
}

fn verify(password: &str, stored: &str) -> Result<bool, PasswordError> {
    let stored =
        PasswordHash::new(stored).map_err(|error| PasswordError::Hash(error.to_string()))?;
    // The comparison inside is constant-time.
    Ok(hasher()?
        .verify_password(password.as_bytes(), &stored)
        .is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_matches_and_nobody_never_does() {
        let passwords = Passwords::new().unwrap();
        let stored = passwords
            .hash(&"correct horse".into(), "ada")
            .await
            .unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(
            passwords
                .verify(&"correct horse".into(), Some(&stored))
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .verify(&"correct hors".into(), Some(&stored))
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .verify(&"portcullis: nobody's password".into(), None)
                .await
                .unwrap()
        );
        assert!(matches!(
            passwords.hash(&"seven77".into(), "ada").await,
            Err(PasswordError::Short)
        ));
    }
}
