//! A passkey as the second factor of a login from outside of the tunnel, after the password: strangers cannot
//! ask whose passkeys there are.

use webauthn_rs::prelude::{PasskeyAuthentication, PublicKeyCredential, RequestChallengeResponse};

use super::ceremony::Taken;
use super::{PasskeyError, Passkeys, Verified};
use crate::login::LoginError;
use crate::secrets::{Field, TokenHash};
use crate::store::outside::{self, Attempt};

/// An answer that is right, with what it answers.
pub(crate) struct Answered {
    pub(super) taken: Taken<PasskeyAuthentication>,
    pub(crate) verified: Verified,
}

impl Passkeys {
    /// Asks the browser. A newer challenge takes the place of the one before.
    pub(crate) async fn begin_outside(
        &self,
        id: &TokenHash,
    ) -> Result<RequestChallengeResponse, PasskeyError> {
        let core = self.core();
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let attempt = outside::find(write.sql(), id, now_ms).await?;
        let attempt = attempt.filter(|attempt| attempt.second.is_none());
        let attempt = attempt.ok_or(LoginError::UnknownAttempt)?;
        let (options, state) = self.ask(write.sql(), &attempt.user_id).await?;
        let sealed = self.seal_challenge(field(id), now_ms, &state)?;
        outside::set_ceremony(write.sql(), id, &sealed).await?;
        write.commit().await?;
        Ok(options)
    }

    /// Looks at the answer. The challenge is spent before.
    pub(crate) async fn answer_outside(
        &self,
        id: &TokenHash,
        credential: &PublicKeyCredential,
    ) -> Result<Answered, PasskeyError> {
        let taken = self.take_outside(id).await?;
        let verified = self.verify(&taken, credential).await?;
        // It was asked for passkeys of the account alone. The level rests on it.
        if verified.user_id() != taken.user_id {
            return Err(PasskeyError::Refused);
        }
        Ok(Answered { taken, verified })
    }

    /// What is to be said of an answer whose counter did not grow.
    pub(crate) async fn backwards_outside(
        &self,
        answered: &Answered,
    ) -> Result<PasskeyError, PasskeyError> {
        self.backwards(&answered.taken, &answered.verified).await
    }

    async fn take_outside(
        &self,
        id: &TokenHash,
    ) -> Result<Taken<PasskeyAuthentication>, PasskeyError> {
        let core = self.core();
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let attempt = outside::find(write.sql(), id, now_ms).await?;
        let waits = |attempt: &Attempt| attempt.second.is_none() && !attempt.ceremony.is_empty();
        let attempt = attempt.filter(waits).ok_or(PasskeyError::UnknownCeremony)?;
        outside::set_ceremony(write.sql(), id, "").await?;
        write.commit().await?;
        let (begun_ms, state) = self.open_challenge(field(id), &attempt.ceremony, now_ms)?;
        Ok(Taken {
            user_id: attempt.user_id,
            begun_ms,
            state,
        })
    }
}

fn field(attempt: &TokenHash) -> Field<'_> {
    Field {
        table: "outside_attempts",
        column: "ceremony",
        row: attempt.as_str(),
    }
}
