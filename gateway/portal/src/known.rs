//! Whether an address is a device's. Only devices are spoken to, and one look at the store serves many
//! connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portcullis_control::Logins;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long an answer holds. A new device waits this long at most.
const FRESH: Duration = Duration::from_secs(2);
/// Answers held.
const MOST: usize = 4096;
/// Looks at the store at once, and connections that may wait for one; further ones are closed.
const LOOKS: usize = 8;
const WAITING: usize = 1024;

/// Remembers which addresses are devices'; clones share it.
#[derive(Clone)]
pub(crate) struct Known {
    logins: Logins,
    answers: Arc<Mutex<HashMap<IpAddr, (bool, Instant)>>>,
    looks: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Known {
    pub(crate) fn new(logins: Logins) -> Self {
        Self {
            logins,
            answers: Arc::default(),
            looks: Arc::new(Semaphore::new(LOOKS)),
            waiting: Arc::new(Semaphore::new(WAITING)),
        }
    }

    /// False also when the store cannot be asked.
    pub(crate) async fn is_device(&self, address: IpAddr) -> bool {
        let now = Instant::now();
        if let Some(known) = self.remembered(address, now) {
            return known;
        }
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return false;
        };
        let Ok(_look) = self.looks.acquire().await else {
            return false;
        };
        match self.logins.knows(address).await {
            Ok(known) => {
                self.remember(address, known, now);
                known
            }
            Err(error) => {
                tracing::warn!(%error, "the portal cannot look up a device");
                false
            }
        }
    }

    fn remembered(&self, address: IpAddr, now: Instant) -> Option<bool> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let &(known, at) = answers.get(&address)?;
        (now < at + FRESH).then_some(known)
    }

    fn remember(&self, address: IpAddr, known: bool, now: Instant) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MOST {
            answers.clear();
        }
        answers.insert(address, (known, now));
    }
}
