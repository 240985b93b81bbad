//! Logging in with a passkey: alone, or as the second step of a login that began with a password.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sqlx::AnyConnection;
use uuid::Uuid;
use webauthn_rs::prelude::{
    PasskeyAuthentication, PublicKeyCredential, RequestChallengeResponse, WebauthnError,
};

use super::ceremony::{CeremonyId, Challenge, Kind, Taken};
use super::{PasskeyError, Passkeys, named, note, seam};
use crate::login::{LoginError, LoginId, SessionView, at_a_gate};
use crate::store::webauthn::{self, CredentialRow, Used};
use crate::store::{StoreError, devices, locations};

/// An assertion by a passkey of the device's own user, which verified that user. Made by
/// [`Passkeys::verify`] and by nothing else: whoever holds one may grant `phishing-resistant`.
pub(crate) struct Verified {
    credential: CredentialRow,
    /// The passkey as it is after this use, sealed.
    sealed: String,
    counter: u32,
}

/// What came of writing a use down.
pub(crate) enum Written {
    Yes,
    /// The counter did not grow.
    Backwards,
    /// Removed or blocked in the meantime.
    Gone,
}

impl Verified {
    pub(crate) fn user_id(&self) -> &str {
        &self.credential.user_id
    }

    /// Writes the use down, within the change that grants the session.
    pub(crate) async fn write_down(
        &self,
        write: &mut crate::store::Write<'_>,
    ) -> Result<Written, PasskeyError> {
        let now_ms = write.now_ms();
        let used = Used {
            id: &self.credential.id,
            user_id: self.user_id(),
            credential: &self.sealed,
            counter: self.counter.into(),
        };
        if webauthn::used(write.sql(), &used, now_ms).await? {
            return Ok(Written::Yes);
        }
        let now = webauthn::find(write.sql(), self.user_id(), &self.credential.id).await?;
        Ok(match now {
            Some(row) if row.suspect_ms == 0 => Written::Backwards,
            _ => Written::Gone,
        })
    }
}

impl Passkeys {
    /// Asks the browser for a passkey of the device's user; within a login that has begun, for its
    /// second step. That the user has been disabled is not told here.
    pub async fn begin_login(
        &self,
        from: IpAddr,
        attempt: Option<&LoginId>,
    ) -> Result<Challenge<RequestChallengeResponse>, PasskeyError> {
        let core = self.core();
        let now_ms = core.now_ms();
        let mut read = core.store.read().await?;
        let device = devices::find_by_address(read.sql(), &seam::canonical(from)).await?;
        let device = device.ok_or(LoginError::UnknownDevice)?;
        let location = locations::find(read.sql(), &device.location_id).await?;
        at_a_gate(location.as_ref())?;
        let attempt_id = match attempt {
            Some(attempt) => seam::attempt(read.sql(), attempt, from, now_ms).await?,
            None => String::new(),
        };
        let (options, state) = self.ask(read.sql(), &device.user_id).await?;
        read.end().await?;
        self.begin(Kind::Login, &device, &attempt_id, &state, options)
            .await
    }

    /// Takes the browser's answer, and grants a session at level `phishing-resistant` where it is
    /// right. Like any login, it replaces an earlier session of the device.
    pub async fn finish_login(
        &self,
        from: IpAddr,
        attempt: Option<&LoginId>,
        ceremony: &CeremonyId,
        credential: &PublicKeyCredential,
    ) -> Result<SessionView, PasskeyError> {
        let attempt_id = attempt.map(seam::attempt_id).unwrap_or_default();
        let taken = self
            .take::<PasskeyAuthentication>(Kind::Login, from, &attempt_id, ceremony)
            .await?;
        let device = self.reserve(from).await?;
        let result = self.verify(&taken, credential).await;
        let verified = match result {
            Ok(verified) => verified,
            Err(refusal) => return self.refuse(&device, refusal).await,
        };
        match self.grant(from, &attempt_id, &verified).await? {
            seam::Granted::Session(session) => Ok(session),
            seam::Granted::Backwards => {
                let refusal = self.backwards(&taken, &verified).await?;
                self.refuse(&device, refusal).await
            }
            seam::Granted::No => self.refuse(&device, PasskeyError::Refused).await,
        }
    }

    /// The challenge for any of a user's passkeys, with what is kept of it. Asks for user verification.
    pub(super) async fn ask(
        &self,
        sql: &mut AnyConnection,
        user_id: &str,
    ) -> Result<(RequestChallengeResponse, PasskeyAuthentication), PasskeyError> {
        let rows = webauthn::of_user(sql, user_id).await?;
        let mut passkeys = Vec::with_capacity(rows.len());
        for row in rows.iter().filter(|row| row.suspect_ms == 0) {
            passkeys.push(self.open(row)?);
        }
        if passkeys.is_empty() {
            return Err(PasskeyError::NoPasskey);
        }
        let asked = self.rp.webauthn.start_passkey_authentication(&passkeys);
        asked.map_err(PasskeyError::Begin)
    }

    /// What is to be said of an answer whose counter did not grow. Two answers of one authenticator can
    /// overtake each other on their way here: only one that was asked for after the last use tells of a copy,
    /// and the passkey is blocked then.
    pub(super) async fn backwards(
        &self,
        taken: &Taken<PasskeyAuthentication>,
        verified: &Verified,
    ) -> Result<PasskeyError, PasskeyError> {
        if !self.was_used_before(taken, verified).await? {
            return Ok(PasskeyError::Refused);
        }
        self.block(&verified.credential).await?;
        Ok(PasskeyError::Copied)
    }

    /// Checks challenge, origin, RP ID, signature, presence, verification and counter.
    pub(super) async fn verify(
        &self,
        taken: &Taken<PasskeyAuthentication>,
        credential: &PublicKeyCredential,
    ) -> Result<Verified, PasskeyError> {
        let core = self.core();
        let credential_id = URL_SAFE_NO_PAD.encode(&credential.raw_id);
        let mut read = core.store.read().await?;
        let row =
            webauthn::find_by_credential_id(read.sql(), &taken.user_id, &credential_id).await?;
        read.end().await?;
        let row = row
            .filter(|row| row.suspect_ms == 0)
            .ok_or(PasskeyError::Refused)?;
        // An authenticator that says whose credential it is has to say the same (7.2, step 6).
        let handle = credential.response.user_handle.as_ref();
        let owner = Uuid::parse_str(&row.user_id).map_err(|_| StoreError::Value("user id"))?;
        if handle.is_some_and(|handle| handle.as_slice() != owner.as_bytes()) {
            return Err(PasskeyError::Refused);
        }
        let answer = self
            .rp
            .webauthn
            .finish_passkey_authentication(credential, &taken.state);
        let answer = match answer {
            Ok(answer) => answer,
            // Only said of an answer whose signature is right.
            Err(WebauthnError::CredentialPossibleCompromise) => {
                self.block(&row).await?;
                return Err(PasskeyError::Copied);
            }
            Err(error) => {
                tracing::info!(user = taken.user_id, %error, "a passkey was refused");
                return Err(match error {
                    WebauthnError::UserNotVerified => PasskeyError::NotVerified,
                    _ => PasskeyError::Refused,
                });
            }
        };
        // The library has checked it, because it was asked to. The level rests on it.
        if !answer.user_verified() {
            return Err(PasskeyError::NotVerified);
        }
        let mut passkey = self.open(&row)?;
        if passkey.update_credential(&answer).is_none() {
            return Err(PasskeyError::Refused);
        }
        let sealed = self.seal(&row.user_id, &row.id, &passkey)?;
        Ok(Verified {
            credential: row,
            sealed,
            counter: answer.counter(),
        })
    }

    async fn was_used_before(
        &self,
        taken: &Taken<PasskeyAuthentication>,
        verified: &Verified,
    ) -> Result<bool, PasskeyError> {
        let mut read = self.core().store.read().await?;
        let row = webauthn::find(read.sql(), verified.user_id(), &verified.credential.id).await?;
        read.end().await?;
        Ok(row.is_some_and(|row| row.last_used_ms < taken.begun_ms))
    }

    /// Blocks a passkey whose counter went backwards, and reports it: to the log, to the audit, and
    /// to its user, who sees it in the list.
    async fn block(&self, row: &CredentialRow) -> Result<(), PasskeyError> {
        let core = self.core();
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        webauthn::suspect(write.sql(), &row.id, now_ms).await?;
        let user = seam::user_name(write.sql(), &row.user_id).await?;
        let mut detail = named(&row.id, &row.name);
        detail["because"] = json!("its counter went backwards: it may have been copied");
        note(&mut write, &user, "passkey.block", detail).await?;
        write.commit().await?;
        tracing::warn!(
            user,
            passkey = row.id,
            "a passkey's counter went backwards: it may have been copied, and is blocked"
        );
        Ok(())
    }
}
