//! The first step of a login: a name with its password. A passkey needs no first step (see
//! `crate::webauthn`).

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;

use super::machine::{Next, Proven, next};
use super::{LoginError, LoginId, LoginStep, Logins, canonical};
use crate::domain::{Factor, Mode};
use crate::error::OperationError;
use crate::secrets::{Secret, Token, TokenHash};
use crate::store::attempts::{self, NewAttempt};
use crate::store::devices::DeviceRow;
use crate::store::limits::{self, Counted};
use crate::store::locations::LocationRow;
use crate::store::users::UserRow;
use crate::store::{Entry, Write, devices, locations, sessions, to_u64, users};

/// How long after the first step the last one may come.
pub(crate) const WITHIN_MS: i64 = 5 * 60 * 1000;

/// Refuses a login through the tunnel where sessions do not begin there.
pub(crate) fn at_a_gate(location: Option<&LocationRow>) -> Result<(), LoginError> {
    match location.map(|location| location.mode) {
        Some(Mode::SessionKey) => Err(LoginError::SessionKey),
        _ => Ok(()),
    }
}

/// Lets a login renew the live session of its device, in place of opening one.
pub(crate) async fn renews_live(
    write: &mut Write<'_>,
    attempt: &TokenHash,
    device_id: &str,
) -> Result<(), LoginError> {
    let now_ms = write.now_ms();
    let live = sessions::live_of_device(write.sql(), device_id, now_ms).await?;
    let live = live.ok_or(LoginError::NoSession)?;
    Ok(attempts::set_renews(write.sql(), attempt.as_str(), &live).await?)
}

/// Who a login is said to be of: the device is proven, the name that was given is not.
pub(crate) struct Claimed {
    pub(crate) device: DeviceRow,
    pub(crate) location: Option<LocationRow>,
    /// Who has this name.
    pub(crate) user: Option<UserRow>,
}

impl Logins {
    /// Begins with a password. `from` is the source address of the connection, inside the tunnel.
    ///
    /// The password may be given wherever it is among the location's factors, also where it does
    /// not count for the level that is required: the answer then says what does.
    pub async fn begin(
        &self,
        from: IpAddr,
        username: &str,
        password: Secret,
    ) -> Result<LoginStep, LoginError> {
        let core = &self.0;
        let mut read = core.store.read().await?;
        let device = devices::find_by_address(read.sql(), &canonical(from)).await?;
        let user = users::find(read.sql(), username).await?;
        let location = match &device {
            Some(device) => locations::find(read.sql(), &device.location_id).await?,
            None => None,
        };
        read.end().await?;
        let device = device.ok_or(LoginError::UnknownDevice)?;
        at_a_gate(location.as_ref())?;
        let who = Claimed {
            device,
            location,
            user,
        };
        self.begin_with_password(who, username, password).await
    }

    /// The same for a device that has proven itself.
    pub(crate) async fn begin_with_password(
        &self,
        claimed: Claimed,
        username: &str,
        password: Secret,
    ) -> Result<LoginStep, LoginError> {
        let core = &self.0;
        let Claimed {
            device,
            location,
            user,
        } = claimed;
        let refuse = async || {
            self.refuse(&device.id, &device.user, &device.name, "password")
                .await
        };
        // A name, not an id; the device's own user; not disabled. Otherwise as slow as a real
        // comparison, with the same answer, and counted against the device alone.
        let user = user
            .filter(|user| user.name == username && user.id == device.user_id && !user.disabled);
        let Some(user) = user else {
            self.reserve(Counted::Device(&device.id)).await?;
            self.verify(&password, None).await?;
            return refuse().await;
        };
        // A delayed device is delayed for every name: the delay tells nobody which one is right.
        if device.delayed_until_ms > core.now_ms() {
            self.reserve(Counted::Device(&device.id)).await?;
        }
        let delayed_until_ms = self.reserve(Counted::User(&user.id)).await?;
        // Where passwords are not allowed, none is right, and it takes as long to say so.
        let allowed =
            location.is_some_and(|location| location.mfa.factors.contains(Factor::Password));
        // An account that has no password is answered as one that has another.
        let stored = (allowed && !user.password.is_empty()).then_some(user.password.as_str());
        if !self.verify(&password, stored).await? {
            return refuse().await;
        }
        let token = Token::generate().map_err(OperationError::from)?;
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        limits::give_back(write.sql(), &user.id, delayed_until_ms).await?;
        attempts::delete_expired(write.sql(), now_ms).await?;
        let id = token.hash();
        let attempt = NewAttempt {
            id: id.as_str(),
            user_id: &user.id,
            password: &user.password,
            device_id: &device.id,
            expires_ms: now_ms + WITHIN_MS,
            proven: Proven {
                knowledge: true,
                ..Proven::default()
            },
        };
        // As the location is now, not as it was before the password was compared.
        let location = locations::find(write.sql(), &device.location_id).await?;
        let wants = location
            .filter(|location| location.mfa.factors.contains(Factor::Password))
            .map(|location| next(&location.mfa, attempt.proven));
        let Some(Next::Wants(factors)) = wants else {
            return Err(LoginError::Refused);
        };
        let factors = core.offered(write.sql(), factors, &user.id).await?;
        if factors.is_empty() || !attempts::insert(write.sql(), &attempt).await? {
            return Err(LoginError::Refused);
        }
        let actor = format!("user:{}", user.name);
        let subject = format!("device:{}", device.name);
        let detail = json!({ "step": "password" });
        write
            .audit(Entry {
                actor: &actor,
                action: "login.begin",
                subject: &subject,
                detail,
            })
            .await?;
        write.commit().await?;
        Ok(LoginStep::Wants {
            attempt: LoginId::new(&token),
            factors,
            expires_in: Duration::from_millis(to_u64(WITHIN_MS)),
        })
    }
}
