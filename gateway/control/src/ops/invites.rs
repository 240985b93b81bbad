//! Inviting a device of a session-key location: its key is made where it stays, and made known with a token.

use portcullis_proto::v1;
use serde_json::json;

use super::accounts::valid_for;
use super::{Result, by_admin, found};
use crate::core::Core;
use crate::domain::Mode;
use crate::error::OperationError;
use crate::secrets::Token;
use crate::store::{invites, locations, users};

impl Core {
    /// A token with which one device of the user becomes known at the location. It opens no session.
    pub(crate) async fn invite_device(
        &self,
        request: v1::InviteDeviceRequest,
    ) -> Result<v1::DeviceInvite> {
        let valid_ms = valid_for(request.valid_ms)?;
        let Some(page) = self.enrolment_page.get() else {
            let text = "devices connect at an address of [portal] public: name one and restart, or add the device with `portcullis device add --public-key`";
            return Err(OperationError::Precondition(text.into()));
        };
        let mut write = self.store.change(self.now_ms()).await?;
        let user = found(
            "user",
            &request.user,
            users::find(write.sql(), &request.user),
        )
        .await?;
        if user.disabled {
            let text = format!("user {:?} is disabled: enable it first", user.name);
            return Err(OperationError::Precondition(text));
        }
        let location = locations::find(write.sql(), &request.location);
        let location = found("location", &request.location, location).await?;
        if location.mode != Mode::SessionKey {
            let text = format!(
                "location {:?} is a gate: add its devices with `portcullis device add`, or invite the user with `portcullis user invite --location`",
                location.name
            );
            return Err(OperationError::Precondition(text));
        }
        let token = Token::generate()?;
        let expires_ms = write.now_ms().saturating_add(valid_ms);
        invites::insert(
            write.sql(),
            &token.hash(),
            &user.id,
            &location.id,
            expires_ms,
        )
        .await?;
        let detail = json!({ "location": location.name, "expires_ms": expires_ms });
        write
            .audit(by_admin("device.invite", &user.name, detail))
            .await?;
        write.commit().await?;
        let server = page.strip_suffix("/enrol").unwrap_or(page);
        Ok(v1::DeviceInvite {
            user: user.name,
            location: location.name,
            token: token.expose().to_owned(),
            expires_ms,
            server: server.to_owned(),
            ca_fingerprint: self.ca.fingerprint(),
        })
    }
}
