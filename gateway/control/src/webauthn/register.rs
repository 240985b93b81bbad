//! Registering a passkey.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;
use webauthn_rs::prelude::{
    CreationChallengeResponse, Passkey, PasskeyRegistration, RegisterPublicKeyCredential,
    WebauthnError,
};

use super::ceremony::{CeremonyId, Challenge, Kind};
use super::manage::{PasskeyChange, view};
use super::{MOST, PasskeyError, Passkeys, named, note};
use crate::domain::Label;
use crate::store::webauthn::{self, CredentialRow, NewCredential};
use crate::store::{StoreError, Write, to_i64};

impl Passkeys {
    /// Asks the browser for a new passkey of the user who is signed in. Authenticators that hold one
    /// of this account already are told not to make another.
    pub async fn begin_registration(
        &self,
        from: IpAddr,
    ) -> Result<Challenge<CreationChallengeResponse>, PasskeyError> {
        let core = self.core();
        let now_ms = core.now_ms();
        let mut read = core.store.read().await?;
        let signed_in = self.core().signed_in(read.sql(), from, now_ms).await?;
        read.end().await?;
        signed_in.fresh(now_ms)?;
        if signed_in.passkeys.len() >= MOST {
            return Err(PasskeyError::TooMany(MOST));
        }
        let mut held = Vec::with_capacity(signed_in.passkeys.len());
        for row in &signed_in.passkeys {
            held.push(self.open(row)?.cred_id().clone());
        }
        let device = &signed_in.device;
        let handle = Uuid::parse_str(&device.user_id).map_err(|_| StoreError::Value("user id"))?;
        let (options, state) = self
            .rp
            .webauthn
            .start_passkey_registration(handle, &device.user, &device.user, Some(held))
            .map_err(PasskeyError::Begin)?;
        self.begin(Kind::Registration, device, "", &state, options)
            .await
    }

    /// Keeps the passkey that the browser made, under a name for its user. The session it was asked
    /// for in has to live still. All other sessions of the user are ended where that is wished.
    pub async fn finish_registration(
        &self,
        from: IpAddr,
        ceremony: &CeremonyId,
        name: &str,
        credential: &RegisterPublicKeyCredential,
        end_others: bool,
    ) -> Result<PasskeyChange, PasskeyError> {
        let name = Label::parse("a passkey", name)?;
        let taken = self
            .take::<PasskeyRegistration>(Kind::Registration, from, "", ceremony)
            .await?;
        let passkey = self.made(&taken.user_id, credential, &taken.state)?;
        let mut write = self.write(end_others).await?;
        let now_ms = write.now_ms();
        let signed_in = self.core().signed_in(write.sql(), from, now_ms).await?;
        if signed_in.device.user_id != taken.user_id {
            return Err(PasskeyError::UnknownCeremony);
        }
        // Once more: another passkey may have raised what the account asks for.
        signed_in.admit(&mut write, taken.begun_ms).await?;
        if signed_in.passkeys.len() >= MOST {
            return Err(PasskeyError::TooMany(MOST));
        }
        let row = self
            .keep(&mut write, &taken.user_id, &name, &passkey)
            .await?;
        let mut detail = named(&row.id, name.as_str());
        detail["passkeys"] = to_i64(signed_in.passkeys.len() as u64 + 1).into();
        note(&mut write, &signed_in.device.user, "passkey.add", detail).await?;
        self.settle(write, &signed_in, view(row), end_others).await
    }

    /// What the browser made, if it is right: challenge, origin, RP ID, and that the user was present and
    /// verified.
    pub(super) fn made(
        &self,
        user_id: &str,
        credential: &RegisterPublicKeyCredential,
        state: &PasskeyRegistration,
    ) -> Result<Passkey, PasskeyError> {
        self.rp
            .webauthn
            .finish_passkey_registration(credential, state)
            .map_err(|error| {
                tracing::info!(user = user_id, %error, "a passkey was not registered");
                match error {
                    WebauthnError::UserNotVerified => PasskeyError::NotVerified,
                    _ => PasskeyError::Refused,
                }
            })
    }

    /// Writes a new passkey of the user's down.
    pub(super) async fn keep(
        &self,
        write: &mut Write<'_>,
        user_id: &str,
        name: &Label,
        passkey: &Passkey,
    ) -> Result<CredentialRow, PasskeyError> {
        let id = Uuid::new_v4().to_string();
        let sealed = self.seal(user_id, &id, passkey)?;
        let new = NewCredential {
            id: &id,
            user_id,
            credential_id: &URL_SAFE_NO_PAD.encode(passkey.cred_id()),
            name: name.as_str(),
            credential: &sealed,
            created_ms: write.now_ms(),
        };
        match webauthn::insert(write.sql(), &new).await {
            Err(StoreError::Taken(_)) => return Err(PasskeyError::Taken),
            inserted => inserted?,
        }
        let row = webauthn::find(write.sql(), user_id, &id).await?;
        row.ok_or(PasskeyError::UnknownPasskey)
    }
}
