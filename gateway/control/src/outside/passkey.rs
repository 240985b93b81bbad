//! The second step: a passkey.

use super::{Outside, OutsideStep, Stranger};
use crate::domain::Factor;
use crate::login::{Browser, LoginError};
use crate::secrets::TokenHash;
use crate::store::outside;
use crate::store::outside_limits::{self, Reserved, Share};
use crate::webauthn::{
    Answered, PasskeyError, Passkeys, PublicKeyCredential, RequestChallengeResponse, Written,
};

impl Outside {
    /// Asks the browser for a passkey of the account whose password was right.
    pub async fn begin_passkey(
        &self,
        browser: &Browser,
    ) -> Result<RequestChallengeResponse, PasskeyError> {
        self.passkeys()?.begin_outside(&browser.hash()).await
    }

    /// Takes the browser's answer.
    pub async fn finish_passkey(
        &self,
        stranger: Stranger,
        browser: &Browser,
        credential: &PublicKeyCredential,
    ) -> Result<OutsideStep, PasskeyError> {
        let core = self.core();
        let (passkeys, id) = (self.passkeys()?, browser.hash());
        let mut read = core.store.read().await?;
        let attempt = outside::find(read.sql(), &id, core.now_ms()).await?;
        read.end().await?;
        let attempt = attempt.ok_or(LoginError::UnknownAttempt)?;
        // Whoever has the password shall not have signatures verified without end.
        let reserved = self.reserve(vec![Share::codes(&attempt.user_id)]).await?;
        let refusal = match passkeys.answer_outside(&id, credential).await {
            Ok(answered) => match self.take_in_passkey(&id, &answered, &reserved).await? {
                Written::Yes => return Ok(self.step(browser).await?),
                Written::Backwards => passkeys.backwards_outside(&answered).await?,
                Written::Gone => PasskeyError::Refused,
            },
            Err(refusal) => refusal,
        };
        match self.refuse(stranger, &attempt.user, Factor::Passkey).await {
            Err(LoginError::Refused) => Err(refusal),
            other => Ok(other?),
        }
    }

    /// Writes the use of the passkey down, and the second factor with it: both or nothing.
    async fn take_in_passkey(
        &self,
        id: &TokenHash,
        answered: &Answered,
        reserved: &Reserved,
    ) -> Result<Written, PasskeyError> {
        let core = self.core();
        let mut write = core.store.record(core.now_ms()).await?;
        let Some(attempt) = self.note(&mut write, id, Factor::Passkey).await? else {
            return Ok(Written::Gone);
        };
        if attempt.user_id != answered.verified.user_id() {
            return Ok(Written::Gone);
        }
        let written = answered.verified.write_down(&mut write).await?;
        if matches!(written, Written::Yes) {
            outside_limits::give_back(write.sql(), reserved).await?;
            write.commit().await?;
        }
        Ok(written)
    }

    fn passkeys(&self) -> Result<&Passkeys, PasskeyError> {
        self.passkeys.as_ref().ok_or(PasskeyError::NoPasskey)
    }
}
