//! Whether a device may change its user's passkeys: only soon after a login at the highest level that
//! the account has.

use std::net::IpAddr;

use portcullis_proto::v1::Level;
use sqlx::AnyConnection;

use super::{FRESH_MS, PasskeyError, seam};
use crate::login::LoginError;
use crate::store::devices::{self, DeviceRow};
use crate::store::sessions::{self, SessionRow};
use crate::store::webauthn::{self, CredentialRow};

/// A device whose user is signed in on it.
pub(super) struct SignedIn {
    pub(super) device: DeviceRow,
    pub(super) session: SessionRow,
    pub(super) passkeys: Vec<CredentialRow>,
}

/// The device with this address, if it has a live session.
pub(super) async fn signed_in(
    sql: &mut AnyConnection,
    from: IpAddr,
    now_ms: i64,
) -> Result<SignedIn, PasskeyError> {
    let address = seam::canonical(from);
    let device = devices::find_by_address(&mut *sql, &address).await?;
    let device = device.ok_or(LoginError::UnknownDevice)?;
    let session = sessions::find_live_by_address(&mut *sql, &address, now_ms).await?;
    let session = session.filter(|_| !device.user_disabled);
    let session = session.ok_or(PasskeyError::NoSession)?;
    let passkeys = webauthn::of_user(sql, &device.user_id).await?;
    Ok(SignedIn {
        device,
        session,
        passkeys,
    })
}

impl SignedIn {
    /// The login that a change begun at this time needs first, if this one is below the account's
    /// highest level or not fresh. The first passkey may come after two other factors; the next one
    /// needs a passkey. One that is blocked gives no level.
    pub(super) fn needs(&self, begun_ms: i64) -> Option<Level> {
        let usable = self.passkeys.iter().any(|passkey| passkey.suspect_ms == 0);
        let needed = if usable {
            Level::PhishingResistant
        } else {
            Level::Mfa
        };
        let age_ms = begun_ms.saturating_sub(self.session.authenticated_at_ms);
        let enough = i32::from(self.session.level) >= i32::from(needed) && age_ms <= FRESH_MS;
        (!enough).then_some(needed)
    }

    /// The same as a refusal.
    pub(super) fn fresh(&self, begun_ms: i64) -> Result<(), PasskeyError> {
        match self.needs(begun_ms) {
            Some(needed) => Err(PasskeyError::Stale { needed }),
            None => Ok(()),
        }
    }
}
