//! A challenge and what is kept until its answer comes: in the store, so that a restart loses none,
//! and one record each, so that two at once never disturb each other.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{MOST_WAITING, PasskeyError, Passkeys, TIMEOUT_MS, seam};
use crate::error::OperationError;
use crate::secrets::{Field, Token, TokenHash};
use crate::store::devices::DeviceRow;
use crate::store::webauthn::{self, NewCeremony, Presented};
use crate::store::{StoreError, to_u64};

/// Names a registration or login in progress. Unguessable; the store keeps its hash.
#[derive(Clone)]
pub struct CeremonyId(String);

impl CeremonyId {
    /// As it is given to the browser.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for CeremonyId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for CeremonyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CeremonyId(…)")
    }
}

/// What a browser is asked to do.
#[derive(Debug)]
pub struct Challenge<T> {
    /// To be given back with the answer.
    pub ceremony: CeremonyId,
    /// For `navigator.credentials`.
    pub options: T,
    /// The answer has to come by then.
    pub expires_in: Duration,
}

/// What a ceremony is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Registration,
    Login,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::Login => "login",
        }
    }
}

/// A ceremony that was presented and is spent.
pub(super) struct Taken<S> {
    pub(super) user_id: String,
    pub(super) begun_ms: i64,
    pub(super) state: S,
}

impl Passkeys {
    /// Writes a ceremony down. The attempt is the id in the store; empty when there is none.
    pub(super) async fn begin<S: Serialize, T>(
        &self,
        kind: Kind,
        device: &DeviceRow,
        attempt_id: &str,
        state: &S,
        options: T,
    ) -> Result<Challenge<T>, PasskeyError> {
        let core = self.core();
        let token = Token::generate().map_err(OperationError::from)?;
        let id = token.hash();
        let json = serde_json::to_vec(state).map_err(|_| StoreError::Value("ceremony"))?;
        let place = place(id.as_str(), kind, &device.user_id, &device.id);
        let sealed = core
            .vault
            .seal(field(&place), &json)
            .map_err(OperationError::from)?;
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        webauthn::delete_expired(write.sql(), now_ms).await?;
        let (waiting, first_ends_ms) = webauthn::waiting(write.sql(), &device.id, now_ms).await?;
        if waiting >= MOST_WAITING {
            let left_ms = first_ends_ms.unwrap_or(now_ms).saturating_sub(now_ms);
            let retry_after = Duration::from_millis(to_u64(left_ms));
            return Err(PasskeyError::Busy { retry_after });
        }
        let ceremony = NewCeremony {
            id: id.as_str(),
            kind: kind.as_str(),
            user_id: &device.user_id,
            device_id: &device.id,
            attempt_id,
            state: &sealed,
            begun_ms: now_ms,
            expires_ms: now_ms + TIMEOUT_MS,
        };
        webauthn::insert_ceremony(write.sql(), &ceremony).await?;
        write.commit().await?;
        Ok(Challenge {
            ceremony: CeremonyId(token.expose().to_owned()),
            options,
            expires_in: Duration::from_millis(to_u64(TIMEOUT_MS)),
        })
    }

    /// Spends a ceremony before anything about its answer is looked at: no challenge is answered
    /// twice, rightly or wrongly.
    pub(super) async fn take<S: DeserializeOwned>(
        &self,
        kind: Kind,
        from: IpAddr,
        attempt_id: &str,
        ceremony: &CeremonyId,
    ) -> Result<Taken<S>, PasskeyError> {
        let core = self.core();
        let id = TokenHash::of(ceremony.as_str());
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let presented = Presented {
            id: id.as_str(),
            kind: kind.as_str(),
            address: &seam::canonical(from),
            attempt_id,
        };
        let taken = webauthn::take(write.sql(), &presented, now_ms).await?;
        let taken = taken.ok_or(PasskeyError::UnknownCeremony)?;
        write.commit().await?;
        let place = place(id.as_str(), kind, &taken.user_id, &taken.device_id);
        let json = core
            .vault
            .unseal(field(&place), &taken.state)
            .map_err(OperationError::from)?;
        let state = serde_json::from_slice(&json).map_err(|_| StoreError::Value("ceremony"))?;
        Ok(Taken {
            user_id: taken.user_id,
            begun_ms: taken.begun_ms,
            state,
        })
    }
}

/// Where a record of its own holds the one challenge that waits: with when it was made.
impl Passkeys {
    pub(super) fn seal_challenge<S: Serialize>(
        &self,
        field: Field<'_>,
        begun_ms: i64,
        state: &S,
    ) -> Result<String, PasskeyError> {
        let kept = serde_json::to_vec(&(begun_ms, state));
        let json = kept.map_err(|_| StoreError::Value("ceremony"))?;
        let sealed = self.core().vault.seal(field, &json);
        Ok(sealed.map_err(OperationError::from)?)
    }

    /// When it was made, and what webauthn-rs compares with. Not once it is too old.
    pub(super) fn open_challenge<S: DeserializeOwned>(
        &self,
        field: Field<'_>,
        sealed: &str,
        now_ms: i64,
    ) -> Result<(i64, S), PasskeyError> {
        let json = self.core().vault.unseal(field, sealed);
        let json = json.map_err(OperationError::from)?;
        let (begun_ms, state): (i64, S) =
            serde_json::from_slice(&json).map_err(|_| StoreError::Value("ceremony"))?;
        if now_ms.saturating_sub(begun_ms) > TIMEOUT_MS {
            return Err(PasskeyError::UnknownCeremony);
        }
        Ok((begun_ms, state))
    }
}

/// All that a ceremony is bound to is part of its place.
fn place(id: &str, kind: Kind, user_id: &str, device_id: &str) -> String {
    format!("{id}/{}/{user_id}/{device_id}", kind.as_str())
}

fn field(place: &str) -> Field<'_> {
    Field {
        table: "webauthn_ceremonies",
        column: "state",
        row: place,
    }
}
