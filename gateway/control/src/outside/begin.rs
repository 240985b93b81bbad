//! The first step: a name with its password.

use std::time::Duration;

use serde_json::json;

use super::{Outside, OutsideStep, Stranger, delayed, left};
use crate::login::{Browser, LoginError, WITHIN_MS};
use crate::secrets::Secret;
use crate::store::outside::{self, NewAttempt};
use crate::store::outside_limits::{self, Reserved, Share};
use crate::store::{Entry, users};

/// For those who come when too many are waiting to have a password compared.
const BUSY: Duration = Duration::from_secs(5);

impl Outside {
    /// Begins with a password. The browser gets a new cookie, by which the login goes on.
    pub async fn begin(
        &self,
        stranger: Stranger,
        username: &str,
        password: &Secret,
    ) -> Result<(Browser, OutsideStep), LoginError> {
        let core = self.core();
        let turn = core.passwords.strangers_turn().await;
        let _turn = turn.ok_or(LoginError::Delayed { retry_after: BUSY })?;
        let shares = vec![
            Share::name_from(username, stranger.network),
            Share::name(username),
            Share::network(stranger.network),
        ];
        let reserved = self.reserve(shares).await?;
        let mut read = core.store.read().await?;
        let user = users::find(read.sql(), username).await?;
        read.end().await?;
        // A name, not an id. Whatever is wrong, it takes as long, and is answered and counted alike.
        let user = user.filter(|user| user.name == username && !user.disabled);
        let stored = user.as_ref().map(|user| user.password.as_str());
        let stored = stored.filter(|password| !password.is_empty());
        let right = self.logins.verify(password, stored).await?;
        let Some(user) = user.filter(|_| right) else {
            tracing::info!(network = %stranger.network, "a sign-in from outside was refused");
            return Err(LoginError::Refused);
        };
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        // As things are now, not as they were before the password was compared.
        let factors = self.wanted(write.sql(), &user.id).await?;
        let browser = Browser::new()?;
        let attempt = NewAttempt {
            id: &browser.hash(),
            user_id: &user.id,
            password: &user.password,
            expires_ms: now_ms + WITHIN_MS,
        };
        if factors.is_empty() || !outside::insert(write.sql(), &attempt).await? {
            return Err(LoginError::Refused);
        }
        outside_limits::give_back(write.sql(), &reserved).await?;
        outside::delete_expired(write.sql(), now_ms).await?;
        let name = format!("user:{}", user.name);
        write
            .audit(Entry {
                actor: &name,
                action: "outside.begin",
                subject: &name,
                detail: json!({ "from": stranger.network }),
            })
            .await?;
        write.commit().await?;
        let step = OutsideStep::Wants {
            factors,
            expires_in: left(attempt.expires_ms, now_ms),
        };
        Ok((browser, step))
    }

    /// Counts an attempt before it is evaluated.
    pub(super) async fn reserve(&self, shares: Vec<Share>) -> Result<Reserved, LoginError> {
        let core = self.core();
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        match outside_limits::reserve(write.sql(), shares, now_ms).await? {
            Ok(reserved) => {
                write.commit().await?;
                Ok(reserved)
            }
            Err(until_ms) => Err(delayed(until_ms, now_ms)),
        }
    }
}
