//! Who is signed in on a device, and whether they may change what the account is protected by or
//! reachable from (its factors, its devices): only soon after a login at the highest level that the
//! account has.

use std::net::IpAddr;
use std::time::Duration;

use portcullis_proto::v1::Level;
use sqlx::AnyConnection;

use crate::core::Core;
use crate::login::{self, LoginError};
use crate::store::devices::{self, DeviceRow};
use crate::store::factors::{self, LinkRow};
use crate::store::sessions::{self, SessionRow};
use crate::store::webauthn::{self, CredentialRow};
use crate::store::{StoreError, Write, limits, to_u64};

/// How old the login may be with which an account is changed (NIST SP 800-63B-4, 4.1.2: binding an
/// authenticator needs authentication at the highest level that the account has; OWASP ASVS 5, 7.5.1).
const FRESH_MS: i64 = 10 * 60 * 1000;

/// Why a change is not for who asks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotFresh {
    /// Nobody is signed in on the device.
    #[error("this device has no session: sign in first")]
    NoSession,
    /// The session is too old, or below the account's highest level.
    #[error("sign in again{}", needed_by(.needed))]
    Stale { needed: Level },
    /// The account's share of changes is used up for now.
    #[error("{}", often(.retry_after))]
    Often { retry_after: Duration },
    #[error(transparent)]
    Login(#[from] LoginError),
}

impl From<StoreError> for NotFresh {
    fn from(error: StoreError) -> Self {
        Self::Login(error.into())
    }
}

/// The end of "sign in again".
pub(crate) fn needed_by(needed: &Level) -> &'static str {
    match needed {
        Level::PhishingResistant => " with a passkey",
        _ => "",
    }
}

/// Why nothing more is changed for now.
pub(crate) fn often(retry_after: &Duration) -> String {
    format!(
        "you have changed a lot lately: try again in {} s",
        retry_after.as_secs().max(1)
    )
}

/// A device whose user is signed in on it.
pub(crate) struct SignedIn {
    pub(crate) device: DeviceRow,
    pub(crate) session: SessionRow,
    pub(crate) passkeys: Vec<CredentialRow>,
    /// Those to providers that are not configured any more among them.
    pub(crate) links: Vec<LinkRow>,
}

impl Core {
    /// The device with this address, if it has a live session.
    pub(crate) async fn signed_in(
        &self,
        sql: &mut AnyConnection,
        from: IpAddr,
        now_ms: i64,
    ) -> Result<SignedIn, NotFresh> {
        let address = login::canonical(from);
        let device = devices::find_by_address(&mut *sql, &address).await?;
        let device = device.ok_or(LoginError::UnknownDevice)?;
        let session = sessions::find_live_by_address(&mut *sql, &address, now_ms).await?;
        let session = session.filter(|_| !device.user_disabled);
        let session = session.ok_or(NotFresh::NoSession)?;
        let passkeys = webauthn::of_user(&mut *sql, &device.user_id).await?;
        let mut links = factors::links(sql, &device.user_id).await?;
        for link in &mut links {
            // What signs nobody in is no way in, and no level that could be asked for.
            let issuer = &link.issuer;
            link.works = self.providers.iter().any(|p| p.issuer.as_str() == issuer);
        }
        Ok(SignedIn {
            device,
            session,
            passkeys,
            links,
        })
    }
}

impl SignedIn {
    /// The login that a change begun at this time needs first, if this one is below the account's
    /// highest level or not fresh. The first passkey may come after two other factors; the next one
    /// needs a passkey, here or at a provider that has vouched for one before. One that is blocked gives
    /// no level.
    pub(crate) fn needs(&self, begun_ms: i64) -> Option<Level> {
        let usable = self.passkeys.iter().any(CredentialRow::is_usable);
        let links = self.links.iter().filter(|link| link.works);
        let vouched = links.map(|link| link.level).max();
        let needed = if usable || vouched == Some(Level::PhishingResistant) {
            Level::PhishingResistant
        } else {
            Level::Mfa
        };
        let age_ms = begun_ms.saturating_sub(self.session.authenticated_at_ms);
        let enough = i32::from(self.session.level) >= i32::from(needed) && age_ms <= FRESH_MS;
        (!enough).then_some(needed)
    }

    /// The same as a refusal.
    pub(crate) fn fresh(&self, begun_ms: i64) -> Result<(), NotFresh> {
        match self.needs(begun_ms) {
            Some(needed) => Err(NotFresh::Stale { needed }),
            None => Ok(()),
        }
    }

    /// Lets a change happen that was begun at this time, with what it takes of the account's share.
    pub(crate) async fn admit(&self, write: &mut Write<'_>, begun_ms: i64) -> Result<(), NotFresh> {
        self.fresh(begun_ms)?;
        let now_ms = write.now_ms();
        match limits::take_change(write.sql(), &self.device.user_id, now_ms).await? {
            Some(left_ms) => Err(NotFresh::Often {
                retry_after: Duration::from_millis(to_u64(left_ms)),
            }),
            None => Ok(()),
        }
    }
}
