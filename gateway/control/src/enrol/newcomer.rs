//! After the last step: a first passkey, so that there is one where nothing else opens a session, and where
//! the link says so a first device. Whoever finished has just shown all that the account has.

use std::net::IpAddr;
use std::time::Duration;

use super::{EnrolError, EnrolmentId, Enrolments, NEWCOMER_MS, Newcomer};
use crate::domain::Mode;
use crate::error::OperationError;
use crate::secrets::{Token, TokenHash};
use crate::self_service::{self, AddedDevice, NewDevice, Owner};
use crate::store::enrolments::Enrolment;
use crate::store::locations::{self, LocationRow};
use crate::store::{Write, newcomers, to_u64};
use crate::webauthn::{CreationChallengeResponse, PasskeyView, RegisterPublicKeyCredential};

impl Enrolments {
    /// Adds the first device, at the location that the link named. Once.
    pub async fn add_device(
        &self,
        newcomer: &EnrolmentId,
        new: NewDevice<'_>,
    ) -> Result<AddedDevice, EnrolError> {
        let new = new.check()?;
        let core = &self.core;
        let id = TokenHash::of(newcomer.as_str());
        let mut write = core.store.change(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let found = newcomers::find(write.sql(), id.as_str(), now_ms).await?;
        let found = found.filter(|found| !found.location_id.is_empty());
        let found = found.ok_or(EnrolError::TooLate)?;
        let owner = Owner {
            id: &found.user_id,
            name: &found.user,
        };
        let location_id = &found.location_id;
        let added = self_service::add_device(core, &mut write, owner, location_id, &new).await?;
        newcomers::spend_device(write.sql(), &found.id).await?;
        write.commit().await?;
        Ok(added)
    }

    /// Asks the browser for the account's first passkey.
    pub async fn begin_passkey(
        &self,
        newcomer: &EnrolmentId,
    ) -> Result<CreationChallengeResponse, EnrolError> {
        let passkeys = self.passkeys.as_ref().ok_or(EnrolError::TooLate)?;
        let id = TokenHash::of(newcomer.as_str());
        Ok(passkeys.begin_first(&id).await?)
    }

    /// Keeps the passkey that the browser made.
    pub async fn finish_passkey(
        &self,
        from: IpAddr,
        newcomer: &EnrolmentId,
        name: &str,
        credential: &RegisterPublicKeyCredential,
    ) -> Result<PasskeyView, EnrolError> {
        let passkeys = self.passkeys.as_ref().ok_or(EnrolError::TooLate)?;
        let id = TokenHash::of(newcomer.as_str());
        Ok(passkeys.finish_first(from, &id, name, credential).await?)
    }

    /// Lets who has just finished add what is first. With the last change of the account, and with another
    /// token than the one that was there before it.
    pub(super) async fn welcome(
        &self,
        write: &mut Write<'_>,
        enrolment: &Enrolment,
    ) -> Result<Newcomer, EnrolError> {
        let token = Token::generate().map_err(OperationError::from)?;
        let location = first_location(write, enrolment).await?;
        let location_id = location.as_ref().map_or("", |location| &location.id);
        let expires_ms = write.now_ms().saturating_add(NEWCOMER_MS);
        let (id, user_id) = (token.hash(), &enrolment.user_id);
        newcomers::replace(write.sql(), id.as_str(), user_id, location_id, expires_ms).await?;
        let passkey = match &self.passkeys {
            Some(passkeys) => passkeys.may_be_first(write.sql(), user_id).await?,
            None => false,
        };
        Ok(Newcomer {
            id: EnrolmentId::new(&token),
            passkey,
            device_at: location.map(|location| location.name),
            expires_in: Duration::from_millis(to_u64(NEWCOMER_MS)),
        })
    }
}

/// Where the first device may be added: at the location that the link names if it is still there, and for
/// the first administrator, whom nobody could tell one, at the only one.
async fn first_location(
    write: &mut Write<'_>,
    enrolment: &Enrolment,
) -> Result<Option<LocationRow>, EnrolError> {
    let location = if enrolment.first_admin {
        let mut all = locations::list(write.sql()).await?;
        all.pop().filter(|_| all.is_empty())
    } else if enrolment.location_id.is_empty() {
        None
    } else {
        locations::find(write.sql(), &enrolment.location_id).await?
    };
    Ok(location.filter(|location| location.mode == Mode::Gate))
}
