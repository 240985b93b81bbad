//! Passkeys and security keys (WebAuthn Level 3), on webauthn-rs.
//!
//! User verification is asked for and checked in the authenticator's signed answer: a passkey is two
//! factors in one, and its origin is checked by the browser and here, so that a login with it has the
//! level `phishing-resistant`. Ceremonies are in the store, one record each, good once.

mod approval;
mod ceremony;
mod error;
mod first;
mod login;
mod manage;
mod outside;
mod register;
mod rp;
mod seam;

use std::time::Duration;

use serde_json::json;
use webauthn_rs::prelude::Passkey;

use crate::Control;
use crate::core::Core;
use crate::domain::Invalid;
use crate::error::OperationError;
use crate::login::Logins;
use crate::secrets::Field;
use crate::store::webauthn::CredentialRow;
use crate::store::{Entry, StoreError, Write, to_u64};

pub use ceremony::{CeremonyId, Challenge};
pub use error::PasskeyError;
pub(crate) use login::{Verified, Written};
pub use manage::{PasskeyChange, PasskeyList, PasskeyView};
pub(crate) use outside::Answered;
pub use rp::PortalName;
pub use webauthn_rs::prelude::{
    CreationChallengeResponse, PublicKeyCredential, RegisterPublicKeyCredential,
    RequestChallengeResponse,
};

/// How long a browser may take from the challenge to the answer, as WebAuthn 3 recommends (15.1): a
/// key has to be found and a PIN remembered.
const TIMEOUT_MS: i64 = 5 * 60 * 1000;
/// Passkeys of one account.
const MOST: usize = 20;
/// Ceremonies of one device that wait for their answers.
const MOST_WAITING: i64 = 16;

/// Registers, uses and manages passkeys. There is one only where the portal has a name.
#[derive(Clone, Debug)]
pub struct Passkeys {
    logins: Logins,
    rp: std::sync::Arc<rp::RelyingParty>,
}

impl Control {
    /// Passkeys for the portal of this name, reached at these ports.
    pub fn passkeys(&self, name: PortalName, ports: &[u16]) -> Result<Passkeys, Invalid> {
        let timeout = Duration::from_millis(to_u64(TIMEOUT_MS));
        let rp = rp::RelyingParty::new(name, ports, timeout)?;
        Ok(Passkeys {
            logins: self.logins(),
            rp: rp.into(),
        })
    }
}

impl Passkeys {
    /// The RP ID: browsers offer passkeys only on pages of this name.
    pub fn name(&self) -> &PortalName {
        &self.rp.name
    }

    fn core(&self) -> &Core {
        &self.logins.0
    }

    fn open(&self, row: &CredentialRow) -> Result<Passkey, OperationError> {
        let place = place(&row.user_id, &row.id);
        let json = self.core().vault.unseal(field(&place), &row.credential)?;
        let unreadable = |_| StoreError::Value("passkey");
        Ok(serde_json::from_slice(&json).map_err(unreadable)?)
    }

    fn seal(&self, user_id: &str, id: &str, passkey: &Passkey) -> Result<String, OperationError> {
        let unreadable = |_| StoreError::Value("passkey");
        let json = serde_json::to_vec(passkey).map_err(unreadable)?;
        let place = place(user_id, id);
        Ok(self.core().vault.seal(field(&place), &json)?)
    }
}

/// The user is part of the place: a credential cannot be moved to another account.
fn place(user_id: &str, id: &str) -> String {
    format!("{user_id}/{id}")
}

fn field(place: &str) -> Field<'_> {
    Field {
        table: "webauthn_credentials",
        column: "credential",
        row: place,
    }
}

/// An audit record of what a user does to a passkey of their own.
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

/// A passkey as audit records name it.
fn named(id: &str, name: &str) -> serde_json::Value {
    json!({ "passkey": id, "name": name })
}
