//! A new authenticator. It counts once a code of it was given, and until then the one before does. What is
//! being set up is in the store, for one session and ten minutes.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;
use zeroize::Zeroizing;

use super::note;
use crate::enrol::NewAuthenticator;
use crate::error::OperationError;
use crate::fresh::SignedIn;
use crate::login::Logins;
use crate::ops::users::totp_field;
use crate::secrets::Field;
use crate::self_service::{EndedSessions, SelfService, SelfServiceError, end_others};
use crate::store::factors::{self, SetupRow};
use crate::store::limits::{self, Counted};
use crate::store::{attempts, to_u64, users};
use crate::totp::Authenticator;

/// How long setting one up may take.
const WITHIN_MS: i64 = 10 * 60 * 1000;

/// An authenticator that is being set up.
#[derive(Debug)]
pub struct TotpSetup {
    pub authenticator: NewAuthenticator,
    /// A code has to be given by then.
    pub expires_in: Duration,
}

impl SelfService {
    /// Begins to set up an authenticator, in place of any other that is being set up.
    pub async fn begin_totp(&self, from: IpAddr) -> Result<TotpSetup, SelfServiceError> {
        let core = &self.0;
        let seed = Authenticator::generate().map_err(OperationError::from)?;
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let signed_in = self.0.signed_in(write.sql(), from, now_ms).await?;
        signed_in.admit(&mut write, now_ms).await?;
        let place = place(&signed_in);
        let sealed = core.vault.seal(seed_field(&place), seed.as_slice());
        let setup = SetupRow {
            totp_secret: sealed.map_err(OperationError::from)?,
            begun_ms: now_ms,
            expires_ms: now_ms + WITHIN_MS,
        };
        let (user_id, session_id) = (&signed_in.device.user_id, &signed_in.session.id);
        factors::begin_setup(write.sql(), user_id, session_id, &setup).await?;
        write.commit().await?;
        self.show(&signed_in, &setup)
    }

    /// The one that is being set up in this session, once more: to whom a fresh login has shown it, and not to
    /// whoever finds the device later.
    pub async fn totp_setup(&self, from: IpAddr) -> Result<TotpSetup, SelfServiceError> {
        let (signed_in, setup) = self.find(from).await?;
        signed_in.fresh(self.0.now_ms())?;
        self.show(&signed_in, &setup)
    }

    /// Takes the new authenticator for the account's, by a code of it, which signs nobody in any more.
    /// Wrong ones count like those of a sign-in.
    pub async fn confirm_totp(
        &self,
        from: IpAddr,
        code: &str,
        end_other: bool,
    ) -> Result<EndedSessions, SelfServiceError> {
        let core = &self.0;
        let (signed_in, setup) = self.find(from).await?;
        signed_in.fresh(setup.begun_ms)?;
        let user_id = &signed_in.device.user_id;
        let delayed_until_ms = Logins(core.clone()).reserve(Counted::User(user_id)).await?;
        let seed = self.seed(&signed_in, &setup)?;
        let authenticator = Authenticator::new(&seed, &signed_in.device.user);
        let authenticator = authenticator.map_err(OperationError::from)?;
        let step = authenticator.step_of(code, core.now_ms());
        let step = step.ok_or(SelfServiceError::Code)?;

        let mut write = self.write(end_other).await?;
        let now_ms = write.now_ms();
        // Again, and now with nobody else at it: another request may have begun anew, or been first.
        let signed_in = self.0.signed_in(write.sql(), from, now_ms).await?;
        let mine = &signed_in.device;
        let session_id = &signed_in.session.id;
        let current = factors::setup(write.sql(), &mine.user_id, session_id, now_ms).await?;
        let current = current.filter(|current| current.totp_secret == setup.totp_secret);
        let setup = current.ok_or(SelfServiceError::NoSetup)?;
        signed_in.fresh(setup.begun_ms)?;
        let sealed = core.vault.seal(totp_field(&mine.user_id), &seed);
        let sealed = sealed.map_err(OperationError::from)?;
        users::set_totp_secret(write.sql(), &mine.user_id, &sealed, now_ms).await?;
        attempts::spend_step(write.sql(), &mine.user_id, step).await?;
        attempts::delete_of_user(write.sql(), &mine.user_id).await?;
        factors::end_setup(write.sql(), &mine.user_id).await?;
        limits::give_back(write.sql(), &mine.user_id, delayed_until_ms).await?;
        note(&mut write, &mine.user, "user.totp", json!({})).await?;
        let because = "the authenticator was changed";
        let (ended, locations) = match end_other {
            true => end_others(&mut write, &signed_in, Some(because)).await?,
            false => Default::default(),
        };
        self.settle(write, ended, &locations).await
    }

    async fn find(&self, from: IpAddr) -> Result<(SignedIn, SetupRow), SelfServiceError> {
        let now_ms = self.0.now_ms();
        let mut read = self.0.store.read().await?;
        let signed_in = self.0.signed_in(read.sql(), from, now_ms).await?;
        let (user_id, session_id) = (&signed_in.device.user_id, &signed_in.session.id);
        let setup = factors::setup(read.sql(), user_id, session_id, now_ms).await?;
        read.end().await?;
        Ok((signed_in, setup.ok_or(SelfServiceError::NoSetup)?))
    }

    fn seed(
        &self,
        signed_in: &SignedIn,
        setup: &SetupRow,
    ) -> Result<Zeroizing<Vec<u8>>, SelfServiceError> {
        let place = place(signed_in);
        let seed = self.0.vault.unseal(seed_field(&place), &setup.totp_secret);
        Ok(seed.map_err(OperationError::from)?)
    }

    fn show(&self, signed_in: &SignedIn, setup: &SetupRow) -> Result<TotpSetup, SelfServiceError> {
        let seed = self.seed(signed_in, setup)?;
        let left_ms = setup.expires_ms.saturating_sub(self.0.now_ms());
        Ok(TotpSetup {
            authenticator: NewAuthenticator::of(&seed, &signed_in.device.user)?,
            expires_in: Duration::from_millis(to_u64(left_ms)),
        })
    }
}

/// The session is part of the place: what is being set up cannot be moved to another one.
fn place(signed_in: &SignedIn) -> String {
    format!("{}/{}", signed_in.device.user_id, signed_in.session.id)
}

fn seed_field(place: &str) -> Field<'_> {
    Field {
        table: "totp_setups",
        column: "totp_secret",
        row: place,
    }
}
