//! The first use of a device that was invited: it makes its key known.

use serde_json::json;

use super::{Connects, Proof};
use crate::domain::Mode;
use crate::login::LoginError;
use crate::secrets::{Secret, TokenHash};
use crate::self_service::{NewDevice, Owner, SelfServiceError, add_device};
use crate::store::{Entry, connect, invites, locations};

impl Connects {
    /// Adds the device whose key this proves to the user and the location of the invitation, under this name. The
    /// password of the proof is not looked at: a login comes after it, and opens what there is to open.
    pub async fn enrol(
        &self,
        proof: &Proof,
        invite: &Secret,
        called: &str,
    ) -> Result<(), SelfServiceError> {
        let core = self.core();
        let (_, answered) = self.proven(proof)?;
        let new = NewDevice {
            name: called,
            public_key: &proof.public_key,
            hours: None,
        };
        let new = new.check()?;
        let id = TokenHash::of(invite.expose());
        let mut read = core.store.read().await?;
        let known = invites::find(read.sql(), &id, core.now_ms()).await?;
        read.end().await?;
        // Strangers do not get to hold up those who write.
        if known.is_none() {
            return Err(SelfServiceError::Invitation);
        }
        let mut write = core.store.change(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let found = invites::find(write.sql(), &id, now_ms).await?;
        let found =
            found.filter(|found| found.location == proof.location && found.user == proof.username);
        let found = found.ok_or(SelfServiceError::Invitation)?;
        let location = locations::find(write.sql(), &found.location_id).await?;
        if location.is_none_or(|location| location.mode != Mode::SessionKey)
            || !invites::spend(write.sql(), &id).await?
        {
            return Err(SelfServiceError::Invitation);
        }
        if !connect::spend(write.sql(), &answered.id, answered.expires_ms, now_ms).await? {
            return Err(LoginError::UnknownAttempt.into());
        }
        let owner = Owner {
            id: &found.user_id,
            name: &found.user,
        };
        let added = add_device(core, &mut write, owner, &found.location_id, &new).await?;
        let actor = format!("user:{}", found.user);
        let detail = json!({ "called": added.device.name, "location": found.location });
        write
            .audit(Entry {
                actor: &actor,
                action: "device.enrol",
                subject: &actor,
                detail,
            })
            .await?;
        write.commit().await?;
        Ok(())
    }
}
