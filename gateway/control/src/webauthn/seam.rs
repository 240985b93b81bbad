//! All that passkeys ask of the logins, in one place: what an attempt is, what a refusal costs, and
//! the grant.

use std::net::IpAddr;

use sqlx::AnyConnection;

use super::login::{Verified, Written};
use super::{PasskeyError, Passkeys};
use crate::login::{self, Begun, LoginError, LoginId, Proven, SessionView};
use crate::ops::sessions::{Grant, grant};
use crate::secrets::TokenHash;
use crate::store::attempts;
use crate::store::devices::DeviceRow;
use crate::store::limits::{self, Counted};
use crate::store::{devices, locations, sessions, sso, users};

/// What came of asking for a session.
pub(super) enum Granted {
    Session(SessionView),
    /// The counter did not grow.
    Backwards,
    /// The device, its user or the passkey is not any more what it was.
    No,
}

/// As the store writes addresses.
pub(super) fn canonical(from: IpAddr) -> String {
    login::canonical(from)
}

/// What the store calls an attempt.
pub(super) fn attempt_id(attempt: &LoginId) -> String {
    TokenHash::of(attempt.as_str()).as_str().to_owned()
}

/// The same, if there is such an attempt of the device with this address.
pub(super) async fn attempt(
    sql: &mut AnyConnection,
    attempt: &LoginId,
    from: IpAddr,
    now_ms: i64,
) -> Result<String, PasskeyError> {
    let id = attempt_id(attempt);
    let found = attempts::find(sql, &id, Begun::InTunnel(from), now_ms).await?;
    found.ok_or(LoginError::UnknownAttempt)?;
    Ok(id)
}

pub(super) async fn user_name(
    sql: &mut AnyConnection,
    user_id: &str,
) -> Result<String, PasskeyError> {
    let user = users::find(sql, user_id).await?;
    Ok(user.map_or_else(|| user_id.to_owned(), |user| user.name))
}

impl Passkeys {
    /// Counts an answer of the device before it is looked at. The account's own counter is left
    /// alone: nobody can guess a passkey, and nobody shall be able to lock its owner out.
    pub(super) async fn reserve(&self, from: IpAddr) -> Result<DeviceRow, PasskeyError> {
        let mut read = self.core().store.read().await?;
        let device = devices::find_by_address(read.sql(), &canonical(from)).await?;
        read.end().await?;
        let device = device.ok_or(LoginError::UnknownDevice)?;
        self.logins.reserve(Counted::Device(&device.id)).await?;
        Ok(device)
    }

    /// Counts a refusal for the audit, and refuses.
    pub(super) async fn refuse<T>(
        &self,
        device: &DeviceRow,
        refusal: PasskeyError,
    ) -> Result<T, PasskeyError> {
        let refused = self
            .logins
            .refuse::<T>(&device.id, &device.user, &device.name, "passkey")
            .await;
        match refused {
            Err(LoginError::Refused) => Err(refusal),
            other => Ok(other?),
        }
    }

    /// Grants a session where the location wants a passkey, and spends with it the attempt and the use
    /// of the passkey: all or nothing.
    pub(super) async fn grant(
        &self,
        from: IpAddr,
        attempt_id: &str,
        verified: &Verified,
    ) -> Result<Granted, PasskeyError> {
        let core = self.core();
        let mut write = core.store.change(core.now_ms()).await?;
        let device = devices::find_by_address(write.sql(), &canonical(from)).await?;
        // The passkey is one of the device's own user, who is not disabled.
        let device =
            device.filter(|device| device.user_id == verified.user_id() && !device.user_disabled);
        let Some(device) = device else {
            return Ok(Granted::No);
        };
        let Some(location) = locations::find(write.sql(), &device.location_id).await? else {
            return Ok(Granted::No);
        };
        let now_ms = write.now_ms();
        let proven = if attempt_id.is_empty() {
            Proven::default()
        } else {
            let current = attempts::current(write.sql(), attempt_id, now_ms).await?;
            current.ok_or(LoginError::UnknownAttempt)?.0
        };
        let Some(level) = login::with_passkey(&location.mfa, proven) else {
            return Ok(Granted::No);
        };
        match verified.write_down(&mut write).await? {
            Written::Yes => {}
            Written::Backwards => return Ok(Granted::Backwards),
            Written::Gone => return Ok(Granted::No),
        }
        if !attempt_id.is_empty()
            && !attempts::complete(write.sql(), attempt_id, &device.user_id).await?
        {
            return Err(LoginError::UnknownAttempt.into());
        }
        limits::forgive_device(write.sql(), &device.id).await?;
        let actor = format!("user:{}", device.user);
        let grant_of = Grant::of(&device, &location.mfa, level, &actor);
        let id = grant(&mut write, grant_of).await?;
        let Some(session) = sessions::find(write.sql(), &id).await? else {
            return Ok(Granted::No);
        };
        sso::opened(write.sql(), attempt_id, &session.id).await?;
        let revision = write.commit().await?;
        self.logins.until_acknowledged(&session, revision).await?;
        Ok(Granted::Session(login::view(session)))
    }
}
