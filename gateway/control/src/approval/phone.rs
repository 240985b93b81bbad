//! The phone's side: looking, approving and denying, by the token of the code alone.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use super::{Approvals, Place, action, written};
use crate::core::Core;
use crate::error::OperationError;
use crate::login::{LoginError, left};
use crate::outside::{Stranger, network};
use crate::secrets::{Secret, Token, TokenHash};
use crate::sso::{Callback, Loopback};
use crate::store::approvals::{self, WaitingRow};
use crate::store::limits::{self, Counted};
use crate::store::outside_limits::{self, Share};
use crate::store::{Entry, StoreError, Write, devices};
use crate::webauthn::{
    Answered, PasskeyError, PublicKeyCredential, RequestChallengeResponse, Written,
};

/// What a phone shows before it approves.
#[derive(Clone, Debug)]
pub struct ApprovalView {
    pub user: String,
    /// Where the session will be; several where the device is chosen later.
    pub locations: Vec<String>,
    /// As its user calls it. `None`: one of the account's, which is chosen after this.
    pub device: Option<String>,
    /// Where it was asked for from: an address, or the first of an IPv6 /64. Through the tunnel, where the gateway has
    /// heard the device last.
    pub network: String,
    /// Whether that is an address inside the tunnel, because no gateway has told of another.
    pub in_tunnel: bool,
    /// Whether a program asks that waits on the machine of this very browser: there is no number.
    pub here: bool,
    pub begun_ms: i64,
    pub expires_in: Duration,
}

/// Why a phone's answer was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// Unknown, too old, used, denied or replaced: which one is not told.
    #[error("this request is over: show a new code on the computer")]
    Over,
    /// It is ended by that.
    #[error("this is not the number on the computer's screen: the sign-in is ended")]
    WrongNumber,
    #[error(transparent)]
    Passkey(#[from] PasskeyError),
}

/// Counted as wrong already.
enum Reserved {
    Inside(i64),
    Device,
    Outside(outside_limits::Reserved),
}

impl Approvals {
    /// What is asked for.
    pub async fn look(&self, token: &Secret) -> Result<ApprovalView, ApprovalError> {
        let core = self.core();
        let now_ms = core.now_ms();
        let mut read = core.store.read().await?;
        let row = approvals::waiting(read.sql(), &hash(token), now_ms).await?;
        let row = row.ok_or(ApprovalError::Over)?;
        let place = Place::parse(&row.place)?;
        let mut outer = None;
        let (device, locations) = match &row.device {
            Some((id, _)) => {
                let device = devices::find(read.sql(), id).await?;
                let device = device.ok_or(ApprovalError::Over)?;
                outer = device.endpoint.parse::<SocketAddr>().ok();
                (Some(device.called().to_owned()), vec![device.location])
            }
            None => {
                let open = crate::outside::opened_by_phone(read.sql(), &row.user_id).await?;
                (None, open)
            }
        };
        read.end().await?;
        Ok(ApprovalView {
            user: row.user,
            locations,
            device,
            // Where the tunnel comes from says more than where it ends.
            in_tunnel: place == Place::Tunnel && outer.is_none(),
            network: match outer.filter(|_| place == Place::Tunnel) {
                Some(outer) => written(network(outer.ip())),
                None => row.network,
            },
            here: !row.back_to.is_empty(),
            begun_ms: row.begun_ms,
            expires_in: left(row.expires_ms, now_ms),
        })
    }

    /// Asks the phone's browser for a passkey of the account.
    pub async fn begin(&self, token: &Secret) -> Result<RequestChallengeResponse, ApprovalError> {
        self.passkeys.begin_approval(&hash(token)).await
    }

    /// Takes number and passkey. A wrong number ends it, whatever the passkey. A right one with a passkey that is
    /// refused leaves it as it is. Where a program waits for this very browser there is no number, and the answer
    /// is where to go on.
    pub async fn approve(
        &self,
        phone: Stranger,
        token: &Secret,
        number: u32,
        credential: &PublicKeyCredential,
    ) -> Result<Option<Secret>, ApprovalError> {
        let id = hash(token);
        let row = self.waiting(&id).await?;
        let reserved = self.reserve(&row).await?;
        let here = !row.back_to.is_empty();
        let right = u32::try_from(row.number).map_err(|_| StoreError::Value("number"))?;
        if !here && !bool::from(right.ct_eq(&number)) {
            self.end(phone, &id, &row, "wrong", "phone.wrong-number")
                .await?;
            return Err(ApprovalError::WrongNumber);
        }
        let refusal = match self.passkeys.answer_approval(&id, credential).await {
            Ok(answered) => {
                let code = match here {
                    true => Some(Token::generate().map_err(OperationError::from)?),
                    false => None,
                };
                let approved = Approved {
                    answered: &answered,
                    code: code.as_ref().map(Token::hash),
                };
                let written = self.write_down(phone, &id, &row, approved, &reserved);
                match written.await? {
                    Written::Yes => return code.map(|code| back(&row, &code)).transpose(),
                    Written::Backwards => self.passkeys.backwards_outside(&answered).await?,
                    Written::Gone => PasskeyError::Refused,
                }
            }
            Err(ApprovalError::Passkey(refusal)) => refusal,
            Err(over) => return Err(over),
        };
        let mut write = self.core().store.record(self.core().now_ms()).await?;
        note(&mut write, phone, &row, action("refuse", here)).await?;
        write.commit().await?;
        Err(refusal.into())
    }

    /// Ends it by its user's word: this was somebody else.
    pub async fn deny(&self, phone: Stranger, token: &Secret) -> Result<(), ApprovalError> {
        let id = hash(token);
        let row = self.waiting(&id).await?;
        let action = action("deny", !row.back_to.is_empty());
        self.end(phone, &id, &row, "denied", action).await
    }

    fn core(&self) -> &Core {
        &self.logins.0
    }

    async fn waiting(&self, id: &TokenHash) -> Result<WaitingRow, ApprovalError> {
        let core = self.core();
        let mut read = core.store.read().await?;
        let row = approvals::waiting(read.sql(), id, core.now_ms()).await?;
        read.end().await?;
        row.ok_or(ApprovalError::Over)
    }

    /// Counts an answer before it is looked at, with the codes of logins that were begun in the same way.
    async fn reserve(&self, row: &WaitingRow) -> Result<Reserved, ApprovalError> {
        match (Place::parse(&row.place)?, &row.device) {
            (Place::Outside, _) => {}
            // Its key is all that was proven: others of the account go on.
            (Place::Browser, Some((device_id, _))) => {
                self.logins.reserve(Counted::Device(device_id)).await?;
                return Ok(Reserved::Device);
            }
            _ => {
                let counted = Counted::User(&row.user_id);
                return Ok(Reserved::Inside(self.logins.reserve(counted).await?));
            }
        }
        let core = self.core();
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let shares = vec![Share::codes(&row.user_id)];
        match outside_limits::reserve(write.sql(), shares, now_ms).await? {
            Ok(reserved) => {
                write.commit().await?;
                Ok(Reserved::Outside(reserved))
            }
            Err(until_ms) => Err(LoginError::Delayed {
                retry_after: left(until_ms, now_ms),
            }
            .into()),
        }
    }

    async fn end(
        &self,
        phone: Stranger,
        id: &TokenHash,
        row: &WaitingRow,
        state: &str,
        action: &'static str,
    ) -> Result<(), ApprovalError> {
        let core = self.core();
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        if !approvals::answer(write.sql(), id, state, None, now_ms).await? {
            return Err(ApprovalError::Over);
        }
        note(&mut write, phone, row, action).await?;
        write.commit().await?;
        Ok(())
    }

    /// Writes the use of the passkey down, and the approval with it: both or nothing.
    async fn write_down(
        &self,
        phone: Stranger,
        id: &TokenHash,
        row: &WaitingRow,
        approved: Approved<'_>,
        reserved: &Reserved,
    ) -> Result<Written, ApprovalError> {
        let core = self.core();
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        // As things are now, and with nobody else at it: the login may be over.
        let still = approvals::waiting(write.sql(), id, now_ms).await?;
        let code = approved.code.as_ref();
        if still.is_none() || !approvals::answer(write.sql(), id, "approved", code, now_ms).await? {
            return Err(ApprovalError::Over);
        }
        let written = approved.answered.verified.write_down(&mut write).await?;
        if !matches!(written, Written::Yes) {
            return Ok(written);
        }
        match reserved {
            // Forgiven when it has led to a session.
            Reserved::Device => {}
            Reserved::Inside(until_ms) => {
                limits::give_back(write.sql(), &row.user_id, *until_ms).await?;
            }
            Reserved::Outside(reserved) => {
                outside_limits::give_back(write.sql(), reserved).await?;
            }
        }
        note(&mut write, phone, row, action("approve", code.is_some())).await?;
        write.commit().await?;
        Ok(written)
    }
}

/// A passkey that was verified, and the hash of what its browser takes back.
struct Approved<'a> {
    answered: &'a Answered,
    code: Option<TokenHash>,
}

/// Where the program waits, with what it waits for.
fn back(row: &WaitingRow, code: &Token) -> Result<Secret, ApprovalError> {
    let back_to: Loopback =
        serde_json::from_str(&row.back_to).map_err(|_| StoreError::Value("loopback"))?;
    let brought = Callback {
        code: Some(Secret::from(code.expose())),
        ..Callback::default()
    };
    Ok(Secret::from(String::from(back_to.with(&brought)?)))
}

fn hash(token: &Secret) -> TokenHash {
    TokenHash::of(token.expose())
}

/// An audit record of what a phone has answered, with where both of them are.
async fn note(
    write: &mut Write<'_>,
    phone: Stranger,
    row: &WaitingRow,
    action: &'static str,
) -> Result<(), StoreError> {
    let user = format!("user:{}", row.user);
    let device = row.device.as_ref();
    let subject = device.map_or_else(|| user.clone(), |(_, name)| format!("device:{name}"));
    let detail: Value = json!({ "phone": phone.network, "asked_from": row.network });
    let entry = Entry {
        actor: &user,
        action,
        subject: &subject,
        detail,
    };
    write.audit(entry).await
}

impl From<OperationError> for ApprovalError {
    fn from(error: OperationError) -> Self {
        LoginError::from(error).into()
    }
}

impl From<LoginError> for ApprovalError {
    fn from(error: LoginError) -> Self {
        Self::Passkey(error.into())
    }
}

impl From<StoreError> for ApprovalError {
    fn from(error: StoreError) -> Self {
        Self::Passkey(error.into())
    }
}
