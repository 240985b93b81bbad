//! Linking users to their accounts at OpenID Providers.

use std::time::{Duration, Instant};

use portcullis_proto::v1;
use serde_json::json;

use super::revocation::{Affected, locations_of_user};
use super::{Result, by_admin, found};
use crate::core::Core;
use crate::error::OperationError;
use crate::sso::{LONGEST_SUBJECT, end};
use crate::store::sso::{self, IdentityRow, Whose};
use crate::store::{StoreError, devices, users};

impl Core {
    /// Links a user to an account at a provider, or takes the link back. Without it, the sessions that the
    /// account's logins have opened end, and the groups that the provider told of go.
    pub(crate) async fn set_user_sso(
        &self,
        request: v1::SetUserSsoRequest,
    ) -> Result<v1::RevocationStatus> {
        let provider = &request.provider;
        let mut write = self.store.change(self.now_ms()).await?;
        let now_ms = write.now_ms();
        let user = users::find(write.sql(), &request.name);
        let user = found("user", &request.name, user).await?;
        // A provider that is not configured any more can still be unlinked.
        let unlinked = sso::unlink(write.sql(), &user.id, provider).await?;
        if request.subject.is_empty() && unlinked.is_none() {
            return Err(OperationError::Precondition(format!(
                "user {:?} has no account at {provider:?}",
                user.name
            )));
        }
        let mut sessions = Vec::new();
        if let Some(identity) = &unlinked {
            let whose = Whose {
                issuer: &identity.issuer,
                subject: &identity.subject,
                sid: "",
            };
            sessions = end(&mut write, whose, super::ADMIN).await?.sessions;
            let changed = write.revision();
            devices::touch_of_user(write.sql(), &user.id, changed).await?;
            self.declassify(&mut write).await?;
        }
        if !request.subject.is_empty() {
            let identity = self.identity(provider, &request.subject)?;
            sso::link(write.sql(), &user.id, &identity, now_ms)
                .await
                .map_err(|error| match error {
                    StoreError::Taken(_) => OperationError::Precondition(format!(
                        "the account {:?} at {provider:?} is another user's",
                        request.subject
                    )),
                    error => error.into(),
                })?;
        }
        let what = json!({
            "provider": provider,
            "before": unlinked.map(|identity| identity.subject),
            "subject": request.subject,
        });
        let detail = super::ended_with(&sessions, what);
        write
            .audit(by_admin("user.sso", &user.name, detail))
            .await?;
        let locations = locations_of_user(&mut write, &user.id).await?;
        let committed = Instant::now();
        let revision = write.commit().await?;
        let affected = Affected {
            revision,
            sessions: super::count(&sessions),
            locations,
            committed,
        };
        self.settle_within(affected, Duration::from_millis(request.wait_ms))
            .await
    }

    fn identity(&self, provider: &str, subject: &str) -> Result<IdentityRow> {
        let names = || {
            let names: Vec<&str> = self.providers.iter().map(|p| p.name.as_str()).collect();
            names.join(", ")
        };
        let known = self.provider(provider).ok_or_else(|| {
            OperationError::invalid(match self.providers.is_empty() {
                true => "no provider is configured: see [[control.sso]]".to_owned(),
                false => format!("there is no provider {provider:?}: there are {}", names()),
            })
        })?;
        if subject.len() > LONGEST_SUBJECT || subject.chars().any(char::is_control) {
            return Err(OperationError::invalid(format!(
                "a subject has up to {LONGEST_SUBJECT} characters, and none of control"
            )));
        }
        Ok(IdentityRow {
            provider: provider.into(),
            issuer: known.issuer.as_str().into(),
            subject: subject.into(),
        })
    }
}
