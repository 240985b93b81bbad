//! Counting attempts before they are evaluated, and refusals for the audit.

use std::time::Duration;

use serde_json::json;

use super::{LoginError, Logins};
use crate::error::OperationError;
use crate::secrets::Secret;
use crate::store::limits::{self, Counted, Reservation};
use crate::store::{Entry, to_u64};

impl Logins {
    /// Counts an attempt before it is evaluated.
    pub(crate) async fn reserve(&self, counted: Counted<'_>) -> Result<i64, LoginError> {
        let core = &self.0;
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        match limits::reserve(write.sql(), counted, now_ms).await? {
            Reservation::Granted { delayed_until_ms } => {
                write.commit().await?;
                Ok(delayed_until_ms)
            }
            Reservation::Delayed { until_ms, clamped } => {
                if clamped {
                    write.commit().await?;
                }
                let retry_after = Duration::from_millis(to_u64(until_ms.saturating_sub(now_ms)));
                Err(LoginError::Delayed { retry_after })
            }
        }
    }

    /// Without a stored hash it takes as long, and says no.
    pub(crate) async fn verify(
        &self,
        password: &Secret,
        stored: Option<&str>,
    ) -> Result<bool, LoginError> {
        let verified = self.0.passwords.verify(password, stored).await;
        Ok(verified.map_err(OperationError::from)?)
    }

    /// Counts a refusal for the audit, and refuses.
    pub(crate) async fn refuse<T>(
        &self,
        device_id: &str,
        user: &str,
        device: &str,
        step: &str,
    ) -> Result<T, LoginError> {
        let mut write = self.0.store.record(self.0.now_ms()).await?;
        let now_ms = write.now_ms();
        if let Some(refused) = limits::refused(write.sql(), device_id, now_ms).await? {
            let actor = format!("user:{user}");
            let subject = format!("device:{device}");
            // Those since the last record, this one included; the step is this one's.
            let detail = json!({ "step": step, "refused": refused });
            write
                .audit(Entry {
                    actor: &actor,
                    action: "login.refuse",
                    subject: &subject,
                    detail,
                })
                .await?;
        }
        write.commit().await?;
        Err(LoginError::Refused)
    }
}
