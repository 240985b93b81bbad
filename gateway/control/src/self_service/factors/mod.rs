//! One's own factors: what there is, and changing it. Each change needs a fresh login at the account's
//! highest level, is one of the account's share, and may end the other sessions.

mod change;
mod totp;

use std::net::IpAddr;

use portcullis_proto::v1::Level;

use super::{SelfService, SelfServiceError};
use crate::login::LoginError;
use crate::secrets::Secret;
use crate::store::{Entry, StoreError, Write, factors, to_u64, users};

pub use totp::TotpSetup;

/// The factors of who is signed in.
#[derive(Clone, Debug)]
pub struct OwnFactors {
    /// `None`: there is none.
    pub password: Option<SetSince>,
    /// `None`: there is none.
    pub totp: Option<SetSince>,
    /// Recovery codes that are not used yet.
    pub recovery_codes: u64,
    /// Passkeys that are not blocked.
    pub passkeys: usize,
    /// By name.
    pub providers: Vec<LinkedProvider>,
    /// The level of the fresh login that a change needs first. `None`: none.
    pub change_needs: Option<Level>,
}

/// A factor that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetSince {
    /// `None`: by a version that did not note it.
    pub at_ms: Option<i64>,
}

/// An account at a provider by which the user may sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedProvider {
    pub name: String,
    /// What users are shown: the name, where it is configured no more.
    pub title: String,
    pub linked_ms: i64,
}

/// Recovery codes in place of all earlier ones.
#[derive(Debug)]
pub struct NewRecoveryCodes {
    /// Shown this once.
    pub codes: Vec<Secret>,
    pub ended: super::EndedSessions,
}

impl SelfService {
    /// The factors of the user who is signed in.
    pub async fn factors(&self, from: IpAddr) -> Result<OwnFactors, SelfServiceError> {
        let now_ms = self.0.now_ms();
        let mut read = self.0.store.read().await?;
        let signed_in = self.0.signed_in(read.sql(), from, now_ms).await?;
        let user_id = &signed_in.device.user_id;
        let user = users::find(read.sql(), user_id).await?;
        let (password_ms, totp_ms) = factors::set_at(read.sql(), user_id).await?;
        read.end().await?;
        let user = user.ok_or(LoginError::UnknownDevice)?;
        let usable = signed_in.passkeys.iter().filter(|row| row.is_usable());
        Ok(OwnFactors {
            password: since(&user.password, password_ms),
            totp: since(&user.totp_secret, totp_ms),
            recovery_codes: to_u64(user.recovery_codes),
            passkeys: usable.count(),
            change_needs: signed_in.needs(now_ms),
            providers: signed_in
                .links
                .into_iter()
                .map(|link| LinkedProvider {
                    title: match self.0.provider(&link.provider) {
                        Some(provider) => provider.title.clone(),
                        None => link.provider.clone(),
                    },
                    name: link.provider,
                    linked_ms: link.created_ms,
                })
                .collect(),
        })
    }

    /// The write for a change that may end sessions, which gateways have to hear of.
    async fn write(&self, ends_sessions: bool) -> Result<Write<'_>, StoreError> {
        let (store, now_ms) = (&self.0.store, self.0.now_ms());
        if ends_sessions {
            store.change(now_ms).await
        } else {
            store.record(now_ms).await
        }
    }
}

fn since(factor: &str, at_ms: i64) -> Option<SetSince> {
    (!factor.is_empty()).then_some(SetSince {
        at_ms: (at_ms != 0).then_some(at_ms),
    })
}

/// An audit record of what a user does to a factor of their own.
async fn note(
    write: &mut Write<'_>,
    user: &str,
    action: &'static str,
    detail: serde_json::Value,
) -> Result<(), StoreError> {
    let actor = format!("user:{user}");
    let entry = Entry {
        actor: &actor,
        action,
        subject: &actor,
        detail,
    };
    write.audit(entry).await
}
