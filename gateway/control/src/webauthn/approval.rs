//! A phone's passkey, which approves a login elsewhere. The challenge is bound to this one approval.

use webauthn_rs::prelude::{PasskeyAuthentication, PublicKeyCredential, RequestChallengeResponse};

use super::ceremony::Taken;
use super::{Answered, PasskeyError, Passkeys};
use crate::approval::ApprovalError;
use crate::secrets::{Field, TokenHash};
use crate::store::approvals;

impl Passkeys {
    /// Asks the phone's browser for any passkey of the login's user. A newer challenge takes the place of the one
    /// before.
    pub(crate) async fn begin_approval(
        &self,
        id: &TokenHash,
    ) -> Result<RequestChallengeResponse, ApprovalError> {
        let core = self.core();
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let row = approvals::waiting(write.sql(), id, now_ms).await?;
        let row = row.ok_or(ApprovalError::Over)?;
        let (options, state) = self.ask(write.sql(), &row.user_id).await?;
        let sealed = self.seal_challenge(field(id), now_ms, &state)?;
        approvals::set_ceremony(write.sql(), id, &sealed).await?;
        write.commit().await?;
        Ok(options)
    }

    /// Looks at the answer. The challenge is spent before.
    pub(crate) async fn answer_approval(
        &self,
        id: &TokenHash,
        credential: &PublicKeyCredential,
    ) -> Result<Answered, ApprovalError> {
        let taken = self.take_approval(id).await?;
        let verified = self.verify(&taken, credential).await?;
        // It was asked for passkeys of the login's user alone.
        if verified.user_id() != taken.user_id {
            return Err(PasskeyError::Refused.into());
        }
        Ok(Answered { taken, verified })
    }

    async fn take_approval(
        &self,
        id: &TokenHash,
    ) -> Result<Taken<PasskeyAuthentication>, ApprovalError> {
        let core = self.core();
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let row = approvals::waiting(write.sql(), id, now_ms).await?;
        let row = row.ok_or(ApprovalError::Over)?;
        if row.ceremony.is_empty() {
            return Err(PasskeyError::UnknownCeremony.into());
        }
        approvals::set_ceremony(write.sql(), id, "").await?;
        write.commit().await?;
        let (begun_ms, state) = self.open_challenge(field(id), &row.ceremony, now_ms)?;
        Ok(Taken {
            user_id: row.user_id,
            begun_ms,
            state,
        })
    }
}

fn field(approval: &TokenHash) -> Field<'_> {
    Field {
        table: "approvals",
        column: "ceremony",
        row: approval.as_str(),
    }
}
