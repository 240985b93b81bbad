//! Recovery codes, handed out by an administrator.

use portcullis_proto::v1;
use serde_json::json;

use super::{Result, by_admin, found};
use crate::core::Core;
use crate::secrets::{RandomError, RecoveryCode, TokenHash};
use crate::store::{recovery, users};

/// Codes in a set.
const CODES: usize = 10;

/// A new set, and what the store keeps of it.
pub(crate) fn generate() -> std::result::Result<(Vec<RecoveryCode>, Vec<TokenHash>), RandomError> {
    let codes = (0..CODES).map(|_| RecoveryCode::generate());
    let codes = codes.collect::<std::result::Result<Vec<_>, RandomError>>()?;
    let hashes = codes
        .iter()
        .filter_map(|code| RecoveryCode::hash_of(code.expose()))
        .collect();
    Ok((codes, hashes))
}

impl Core {
    /// New codes for a user, shown this once; all earlier ones are void. Sessions go on: nobody's
    /// access depends on codes that were never used.
    pub(crate) async fn new_recovery_codes(&self, name: &str) -> Result<v1::RecoveryCodes> {
        let (codes, hashes) = generate()?;
        let mut write = self.store.record(self.now_ms()).await?;
        let now_ms = write.now_ms();
        let user = found("user", name, users::find(write.sql(), name)).await?;
        let voided = recovery::replace(write.sql(), &user.id, &hashes, now_ms).await?;
        let detail = json!({ "codes": hashes.len(), "voided": voided });
        write
            .audit(by_admin("user.recovery-codes", &user.name, detail))
            .await?;
        write.commit().await?;
        Ok(v1::RecoveryCodes {
            codes: codes.iter().map(|code| code.expose().to_owned()).collect(),
            voided: u32::try_from(voided).unwrap_or(u32::MAX),
        })
    }
}
