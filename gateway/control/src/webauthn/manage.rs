//! Listing, renaming and removing one's passkeys.

use std::net::IpAddr;
use std::time::Instant;

use portcullis_proto::v1::Level;

use super::{PasskeyError, Passkeys, named, note};
use crate::domain::Label;
use crate::fresh::SignedIn;
use crate::login;
use crate::self_service::{self, Without, last};
use crate::store::Write;
use crate::store::webauthn::{self, CredentialRow};

/// A passkey as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasskeyView {
    pub id: String,
    pub name: String,
    pub created_ms: i64,
    /// `None`: never.
    pub last_used_ms: Option<i64>,
    /// Its counter went backwards: it may have been copied, and is refused.
    pub blocked: bool,
}

/// The passkeys of who is signed in.
#[derive(Clone, Debug)]
pub struct PasskeyList {
    /// Oldest first.
    pub passkeys: Vec<PasskeyView>,
    /// The level of the fresh login that adding or removing one needs first. `None`: none.
    pub change_needs: Option<Level>,
}

/// A passkey that was added or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasskeyChange {
    pub passkey: PasskeyView,
    /// Sessions of the user on other devices that were ended with it.
    pub ended: usize,
    /// Some gateway has not acknowledged their end in time: until it does, or their deadlines pass,
    /// it may let packets pass.
    pub pending: bool,
}

impl Passkeys {
    /// The passkeys of the user who is signed in.
    pub async fn list(&self, from: IpAddr) -> Result<PasskeyList, PasskeyError> {
        let core = self.core();
        let now_ms = core.now_ms();
        let mut read = core.store.read().await?;
        let signed_in = self.core().signed_in(read.sql(), from, now_ms).await?;
        read.end().await?;
        Ok(PasskeyList {
            change_needs: signed_in.needs(now_ms),
            passkeys: signed_in.passkeys.into_iter().map(view).collect(),
        })
    }

    /// Gives a passkey another name. A name opens nothing: any live session will do.
    pub async fn rename(
        &self,
        from: IpAddr,
        id: &str,
        name: &str,
    ) -> Result<PasskeyView, PasskeyError> {
        let name = Label::parse("a passkey", name)?;
        let core = self.core();
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let signed_in = self.core().signed_in(write.sql(), from, now_ms).await?;
        let row = find(&mut write, &signed_in, id).await?;
        webauthn::rename(write.sql(), &row.id, name.as_str()).await?;
        let mut detail = named(&row.id, name.as_str());
        detail["was"] = row.name.as_str().into();
        note(&mut write, &signed_in.device.user, "passkey.rename", detail).await?;
        write.commit().await?;
        Ok(view(CredentialRow {
            name: name.as_str().to_owned(),
            ..row
        }))
    }

    /// Removes a passkey; with it all other sessions of the user, where that is wished.
    pub async fn remove(
        &self,
        from: IpAddr,
        id: &str,
        end_others: bool,
    ) -> Result<PasskeyChange, PasskeyError> {
        let mut write = self.write(end_others).await?;
        let now_ms = write.now_ms();
        let signed_in = self.core().signed_in(write.sql(), from, now_ms).await?;
        let row = find(&mut write, &signed_in, id).await?;
        signed_in.fresh(now_ms)?;
        let phones = self.core().phones_approve();
        let without = Without::Passkey(&row.id);
        last::keeps_a_way(&mut write, &signed_in, without, phones).await?;
        signed_in.admit(&mut write, now_ms).await?;
        webauthn::delete(write.sql(), &row.id).await?;
        let mut detail = named(&row.id, &row.name);
        detail["passkeys"] = (signed_in.passkeys.len() - 1).into();
        note(&mut write, &signed_in.device.user, "passkey.remove", detail).await?;
        self.settle(write, &signed_in, view(row), end_others).await
    }

    /// The write for a change that may end sessions, which gateways have to hear of.
    pub(super) async fn write(&self, ends_sessions: bool) -> Result<Write<'_>, PasskeyError> {
        let core = self.core();
        Ok(if ends_sessions {
            core.store.change(core.now_ms()).await?
        } else {
            core.store.record(core.now_ms()).await?
        })
    }

    /// Ends the other sessions, commits, and waits for the gateways.
    pub(super) async fn settle(
        &self,
        mut write: Write<'_>,
        signed_in: &SignedIn,
        passkey: PasskeyView,
        end_others: bool,
    ) -> Result<PasskeyChange, PasskeyError> {
        let (mut ended, mut locations) = (0, Vec::new());
        if end_others {
            let because = Some("passkeys were changed");
            (ended, locations) = self_service::end_others(&mut write, signed_in, because).await?;
        }
        let committed = Instant::now();
        let revision = write.commit().await?;
        let pending = if ended > 0 {
            login::pending(self.core(), &locations, revision, committed).await?
        } else {
            false
        };
        Ok(PasskeyChange {
            passkey,
            ended,
            pending,
        })
    }
}

async fn find(
    write: &mut Write<'_>,
    signed_in: &SignedIn,
    id: &str,
) -> Result<CredentialRow, PasskeyError> {
    webauthn::find(write.sql(), &signed_in.device.user_id, id)
        .await?
        .ok_or(PasskeyError::UnknownPasskey)
}

pub(super) fn view(row: CredentialRow) -> PasskeyView {
    PasskeyView {
        id: row.id,
        name: row.name,
        created_ms: row.created_ms,
        last_used_ms: (row.last_used_ms != 0).then_some(row.last_used_ms),
        blocked: row.suspect_ms != 0,
    }
}
