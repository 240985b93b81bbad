//! The steps: the link, a password, a code of the new authenticator.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use zeroize::Zeroizing;

use super::{
    EnrolError, EnrolStep, Enrolled, EnrolmentId, Enrolments, MOST_TRIES, NewAuthenticator,
    WITHIN_MS, seed_field,
};
use crate::error::OperationError;
use crate::login::GATEWAYS_WITHIN;
use crate::ops::recovery::generate;
use crate::ops::revocation::locations_of_user;
use crate::ops::users::{end_all, totp_field};
use crate::secrets::{Secret, Token, TokenHash};
use crate::store::enrolments::{self, Enrolment};
use crate::store::{Entry, accounts, attempts, limits, recovery, to_u64, users};
use crate::totp::Authenticator;

impl Enrolments {
    /// Begins with a link's token. The link stays good. `from` is for the audit alone.
    pub async fn begin(&self, from: IpAddr, token: &Secret) -> Result<EnrolStep, EnrolError> {
        let core = &self.core;
        let hash = TokenHash::of(token.expose());
        // Strangers cost a look, and no write.
        let mut read = core.store.read().await?;
        let now_ms = core.now_ms();
        let good = enrolments::find_link(read.sql(), hash.as_str(), now_ms, MOST_TRIES - 1).await?;
        read.end().await?;
        if good.is_none() {
            return Err(EnrolError::Over);
        }
        let token = Token::generate().map_err(OperationError::from)?;
        let id = token.hash();
        let seed = Authenticator::generate().map_err(OperationError::from)?;
        let sealed = core
            .vault
            .seal(seed_field(id.as_str()), seed.as_slice())
            .map_err(OperationError::from)?;
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let link =
            enrolments::find_link(write.sql(), hash.as_str(), now_ms, MOST_TRIES - 1).await?;
        let link = link.ok_or(EnrolError::Over)?;
        enrolments::count_try(write.sql(), &link.id).await?;
        enrolments::delete_expired(write.sql(), now_ms).await?;
        let expires_ms = link.expires_ms.min(now_ms + WITHIN_MS);
        enrolments::insert(write.sql(), id.as_str(), &link.id, &sealed, expires_ms).await?;
        let actor = format!("user:{}", link.user);
        write
            .audit(Entry {
                actor: &actor,
                action: "enrolment.begin",
                subject: &link.user,
                detail: json!({ "from": from.to_canonical().to_string() }),
            })
            .await?;
        write.commit().await?;
        Ok(EnrolStep {
            enrolment: EnrolmentId::new(&token),
            user: link.user,
            expires_in: Duration::from_millis(to_u64(expires_ms.saturating_sub(now_ms))),
        })
    }

    /// Chooses the password, and answers the authenticator that is to be set up next. Until the last
    /// step another one may be chosen.
    pub async fn password(
        &self,
        enrolment: &EnrolmentId,
        password: &Secret,
    ) -> Result<NewAuthenticator, EnrolError> {
        let core = &self.core;
        let found = self.try_one(enrolment).await?;
        let hashed = core.passwords.hash(password, &found.user).await;
        let hashed = hashed.map_err(OperationError::from)?;
        let mut write = core.store.record(core.now_ms()).await?;
        if !enrolments::set_password(write.sql(), &found.id, &hashed).await? {
            return Err(EnrolError::Over);
        }
        write.commit().await?;
        self.show(&found)
    }

    /// Where an enrolment is: wants a password.
    pub async fn step(&self, enrolment: &EnrolmentId) -> Result<EnrolStep, EnrolError> {
        let found = self.find(enrolment).await?;
        let left_ms = found.expires_ms.saturating_sub(self.core.now_ms());
        Ok(EnrolStep {
            enrolment: enrolment.clone(),
            user: found.user,
            expires_in: Duration::from_millis(to_u64(left_ms)),
        })
    }

    /// The authenticator to be, once more.
    pub async fn authenticator(
        &self,
        enrolment: &EnrolmentId,
    ) -> Result<NewAuthenticator, EnrolError> {
        let found = self.find(enrolment).await?;
        if found.password.is_empty() {
            return Err(EnrolError::PasswordFirst);
        }
        self.show(&found)
    }

    /// The last step: a code proves that the authenticator works. The account takes over password and
    /// authenticator, gets recovery codes, and loses what it had: old factors of these kinds, sessions
    /// and logins by them, and the link.
    pub async fn confirm(
        &self,
        from: IpAddr,
        enrolment: &EnrolmentId,
        code: &str,
    ) -> Result<Enrolled, EnrolError> {
        let core = &self.core;
        let found = self.try_one(enrolment).await?;
        if found.password.is_empty() {
            return Err(EnrolError::PasswordFirst);
        }
        let seed = self.seed(&found)?;
        let authenticator = Authenticator::new(&seed, &found.user).map_err(OperationError::from)?;
        let step = authenticator.step_of(code, core.now_ms());
        let step = step.ok_or(EnrolError::Code)?;
        let sealed = core
            .vault
            .seal(totp_field(&found.user_id), &seed)
            .map_err(OperationError::from)?;
        let (codes, hashes) = generate().map_err(OperationError::from)?;

        let mut write = core.store.change(core.now_ms()).await?;
        let now_ms = write.now_ms();
        // Again, and now with nobody else at it: another one may have finished first.
        let current = enrolments::find(write.sql(), &found.id, now_ms, MOST_TRIES).await?;
        let found = current.ok_or(EnrolError::Over)?;
        let user_id = &found.user_id;
        users::set_password(write.sql(), user_id, &found.password, now_ms).await?;
        users::set_totp_secret(write.sql(), user_id, &sealed, now_ms).await?;
        // The code that was given is spent: it opens no session.
        attempts::spend_step(write.sql(), user_id, step).await?;
        let voided = recovery::replace(write.sql(), user_id, &hashes, now_ms).await?;
        limits::forgive(write.sql(), user_id).await?;
        accounts::set_enrolled(write.sql(), user_id, now_ms).await?;
        let actor = format!("user:{}", found.user);
        let locations = locations_of_user(&mut write, user_id).await?;
        // With the sessions goes the link, and with the link every other enrolment.
        let ended = end_all(&mut write, user_id, &actor).await?;
        let newcomer = self.welcome(&mut write, &found).await?;
        write
            .audit(Entry {
                actor: &actor,
                action: "user.enrol",
                subject: &found.user,
                detail: json!({
                    "from": from.to_canonical().to_string(),
                    "sessions": ended.len(),
                    "recovery_codes": hashes.len(),
                    "recovery_codes_voided": voided,
                }),
            })
            .await?;
        let committed = Instant::now();
        let revision = write.commit().await?;
        if !ended.is_empty() {
            // Committed either way; this only gives the gateways the time to have heard of it.
            core.acknowledged(&locations, revision, committed, GATEWAYS_WITHIN)
                .await?;
        }
        Ok(Enrolled {
            user: found.user,
            recovery_codes: codes.iter().map(|code| code.expose().into()).collect(),
            newcomer,
        })
    }

    /// Looks up an enrolment, and counts what is about to be tried with it: in the store, so that
    /// beginning again or a restart buys nothing.
    async fn try_one(&self, enrolment: &EnrolmentId) -> Result<Enrolment, EnrolError> {
        let core = &self.core;
        self.find(enrolment).await?;
        let id = TokenHash::of(enrolment.as_str());
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let found = enrolments::find(write.sql(), id.as_str(), now_ms, MOST_TRIES - 1).await?;
        let found = found.ok_or(EnrolError::Over)?;
        enrolments::count_try(write.sql(), &found.link_id).await?;
        write.commit().await?;
        Ok(found)
    }

    async fn find(&self, enrolment: &EnrolmentId) -> Result<Enrolment, EnrolError> {
        let core = &self.core;
        let id = TokenHash::of(enrolment.as_str());
        let mut read = core.store.read().await?;
        let found = enrolments::find(read.sql(), id.as_str(), core.now_ms(), MOST_TRIES).await?;
        read.end().await?;
        found.ok_or(EnrolError::Over)
    }

    fn seed(&self, enrolment: &Enrolment) -> Result<Zeroizing<Vec<u8>>, EnrolError> {
        let unsealed = self
            .core
            .vault
            .unseal(seed_field(&enrolment.id), &enrolment.totp_secret);
        Ok(unsealed.map_err(OperationError::from)?)
    }

    fn show(&self, enrolment: &Enrolment) -> Result<NewAuthenticator, EnrolError> {
        let seed = self.seed(enrolment)?;
        Ok(NewAuthenticator::of(&seed, &enrolment.user)?)
    }
}
