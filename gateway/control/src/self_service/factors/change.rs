//! A new password, new recovery codes, and no single sign-on any more.

use std::net::IpAddr;

use serde_json::json;

use super::{NewRecoveryCodes, note};
use crate::error::OperationError;
use crate::ops::ended_with;
use crate::ops::recovery::generate;
use crate::secrets::Secret;
use crate::self_service::last::{self, Without};
use crate::self_service::{EndedSessions, SelfService, SelfServiceError, end_others};
use crate::sso::end;
use crate::store::sso::{self, Whose};
use crate::store::{attempts, devices, recovery, users};

impl SelfService {
    /// Changes the password. Logins that were begun with the one before are over.
    pub async fn change_password(
        &self,
        from: IpAddr,
        password: &Secret,
        end_other: bool,
    ) -> Result<EndedSessions, SelfServiceError> {
        let core = &self.0;
        // Counted before it is hashed, which is what it costs.
        let mut write = core.store.record(core.now_ms()).await?;
        let begun_ms = write.now_ms();
        let signed_in = self.0.signed_in(write.sql(), from, begun_ms).await?;
        signed_in.admit(&mut write, begun_ms).await?;
        write.commit().await?;
        let session = signed_in.session.id;
        let hashed = core.passwords.hash(password, &signed_in.device.user).await;
        let hashed = hashed.map_err(OperationError::from)?;

        let mut write = self.write(end_other).await?;
        let now_ms = write.now_ms();
        let signed_in = self.0.signed_in(write.sql(), from, now_ms).await?;
        if signed_in.session.id != session {
            return Err(SelfServiceError::NoSession);
        }
        signed_in.fresh(begun_ms)?;
        let mine = &signed_in.device;
        users::set_password(write.sql(), &mine.user_id, &hashed, now_ms).await?;
        attempts::delete_of_user(write.sql(), &mine.user_id).await?;
        note(&mut write, &mine.user, "user.password", json!({})).await?;
        let because = "the password was changed";
        let (ended, locations) = match end_other {
            true => end_others(&mut write, &signed_in, Some(because)).await?,
            false => Default::default(),
        };
        self.settle(write, ended, &locations).await
    }

    /// New recovery codes; all earlier ones are void.
    pub async fn new_recovery_codes(
        &self,
        from: IpAddr,
        end_other: bool,
    ) -> Result<NewRecoveryCodes, SelfServiceError> {
        let (codes, hashes) = generate().map_err(OperationError::from)?;
        let mut write = self.write(end_other).await?;
        let now_ms = write.now_ms();
        let signed_in = self.0.signed_in(write.sql(), from, now_ms).await?;
        signed_in.admit(&mut write, now_ms).await?;
        let mine = &signed_in.device;
        let voided = recovery::replace(write.sql(), &mine.user_id, &hashes, now_ms).await?;
        let detail = json!({ "codes": hashes.len(), "voided": voided });
        note(&mut write, &mine.user, "user.recovery-codes", detail).await?;
        let because = "new recovery codes were made";
        let (ended, locations) = match end_other {
            true => end_others(&mut write, &signed_in, Some(because)).await?,
            false => Default::default(),
        };
        Ok(NewRecoveryCodes {
            codes: codes.iter().map(|code| code.expose().into()).collect(),
            ended: self.settle(write, ended, &locations).await?,
        })
    }

    /// Takes back the link to an account at a provider. As when an administrator does it, the sessions that
    /// its logins have opened end, this one too if it is one of them, and the groups that the provider told
    /// of go.
    pub async fn unlink_provider(
        &self,
        from: IpAddr,
        provider: &str,
        end_other: bool,
    ) -> Result<EndedSessions, SelfServiceError> {
        let core = &self.0;
        let mut write = core.store.change(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let signed_in = self.0.signed_in(write.sql(), from, now_ms).await?;
        let mine = &signed_in.device;
        if signed_in.links.iter().all(|link| link.provider != provider) {
            return Err(SelfServiceError::UnknownProvider);
        }
        signed_in.fresh(now_ms)?;
        let without = Without::Provider(provider);
        last::keeps_a_way(&mut write, &signed_in, without, self.0.phones_approve()).await?;
        signed_in.admit(&mut write, now_ms).await?;
        let unlinked = sso::unlink(write.sql(), &mine.user_id, provider).await?;
        let identity = unlinked.ok_or(SelfServiceError::UnknownProvider)?;
        let actor = format!("user:{}", mine.user);
        let whose = Whose {
            issuer: &identity.issuer,
            subject: &identity.subject,
            sid: "",
        };
        let theirs = end(&mut write, whose, &actor).await?;
        let changed = write.revision();
        devices::touch_of_user(write.sql(), &mine.user_id, changed).await?;
        core.declassify(&mut write).await?;
        let what = json!({ "provider": provider, "before": identity.subject, "subject": "" });
        let detail = ended_with(&theirs.sessions, what);
        note(&mut write, &mine.user, "user.sso", detail).await?;
        let because = "single sign-on was unlinked";
        let (ended, mut locations) = match end_other {
            true => end_others(&mut write, &signed_in, Some(because)).await?,
            false => Default::default(),
        };
        locations.extend(theirs.locations);
        let ended = ended + theirs.sessions.len();
        self.settle(write, ended, &locations).await
    }
}
