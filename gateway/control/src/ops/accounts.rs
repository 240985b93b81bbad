//! Accounts: what they are for, how they are invited to enrol, and what becomes of lost factors.

use std::time::{Duration, Instant};

use portcullis_proto::v1;
use serde_json::json;

use super::revocation::{Affected, locations_of_user};
use super::users::{end_all, new_user, view};
use super::{ADMIN, Result, by_admin, found};
use crate::core::Core;
use crate::domain::{Factor, FactorSet, Invalid, Mode, Role};
use crate::error::OperationError;
use crate::secrets::Token;
use crate::store::enrolments::{self, NewLink};
use crate::store::locations::LocationRow;
use crate::store::users::UserRow;
use crate::store::{
    Entry, Write, accounts, devices, limits, locations, recovery, sso, to_i64, users,
};

/// How long a link is good where nothing else is said.
const VALID_MS: u64 = 24 * 60 * 60 * 1000;
const SHORTEST_MS: u64 = 60 * 1000;
const LONGEST_MS: u64 = 30 * VALID_MS;
/// Characters of a reason.
const LONGEST_REASON: usize = 256;
/// The account that is made for the first administrator.
const FIRST_ADMIN: &str = "admin";
const SYSTEM: &str = "system";
/// What a link is to be like.
struct Wanted<'a> {
    /// 0: a day.
    valid_ms: u64,
    device_at: Option<&'a LocationRow>,
    first_admin: bool,
}

const OFF: &str = "enrolment is off: name an address in [portal] public and restart, or set factors here: `portcullis user add NAME` for a new user, `portcullis user reset NAME --password --totp` for one that there is";

impl Core {
    /// What an account is for. It ends nothing: no session holds rights by its user's role.
    pub(crate) async fn set_role(&self, name: &str, role: &str) -> Result<v1::User> {
        let role = Role::parse(role)?;
        let mut write = self.store.record(self.now_ms()).await?;
        let mut user = found("user", name, users::find(write.sql(), name)).await?;
        accounts::set_role(write.sql(), &user.id, role).await?;
        let detail = json!({ "role": role.as_str(), "before": user.role.as_str() });
        write
            .audit(by_admin("user.role", &user.name, detail))
            .await?;
        let groups = users::groups(write.sql()).await?.remove(&user.id);
        write.commit().await?;
        user.role = role;
        Ok(view(user, groups.unwrap_or_default()))
    }

    /// A new link for an account that there is. Its factors stay as they are until the link was used.
    pub(crate) async fn invite_user(
        &self,
        request: v1::InviteUserRequest,
    ) -> Result<v1::EnrolmentLink> {
        let name = &request.name;
        let mut write = self.store.record(self.now_ms()).await?;
        let user = found("user", name, users::find(write.sql(), name)).await?;
        let (valid_ms, location) = (request.valid_ms, &request.location);
        let link = self.invite(&mut write, &user, valid_ms, location).await?;
        write.commit().await?;
        Ok(link)
    }

    /// A new link within a write, by an administrator.
    pub(super) async fn invite(
        &self,
        write: &mut Write<'_>,
        user: &UserRow,
        valid_ms: u64,
        location: &str,
    ) -> Result<v1::EnrolmentLink> {
        let page = self.enrolment_page()?;
        let device_at = match location {
            "" => None,
            name => Some(first_location(write, name).await?),
        };
        let wanted = Wanted {
            valid_ms,
            device_at: device_at.as_ref(),
            first_admin: false,
        };
        self.link(write, page, user, wanted).await
    }

    /// Voids what was lost, ends all that the account holds, and makes a link to enrol anew by. It
    /// does the first two also where enrolment is off: a stolen phone does not wait for that.
    pub(crate) async fn reset_factors(
        &self,
        request: v1::ResetFactorsRequest,
    ) -> Result<v1::ResetFactorsResponse> {
        let reason = reason(&request.reason)?;
        let factors = match request.factors.as_slice() {
            // A phone approves by a passkey on it, and goes with the passkeys.
            [] => FactorSet::ALL.without(Factor::Phone),
            names => FactorSet::parse(names)?,
        };
        if factors.contains(Factor::Phone) {
            return Err(Invalid("a phone approves by its passkey: reset passkey".into()).into());
        }
        let mut write = self.store.change(self.now_ms()).await?;
        let now_ms = write.now_ms();
        let name = &request.name;
        let user = found("user", name, users::find(write.sql(), name)).await?;
        let locations = locations_of_user(&mut write, &user.id).await?;
        if factors.contains(Factor::Password) {
            users::set_password(write.sql(), &user.id, "", now_ms).await?;
        }
        if factors.contains(Factor::Totp) {
            accounts::void_totp(write.sql(), &user.id).await?;
        }
        // Recovery codes stand in for the authenticator: they go with it.
        let mut codes = 0;
        if factors.contains(Factor::Totp) || factors.contains(Factor::RecoveryCode) {
            codes = recovery::delete_of_user(write.sql(), &user.id).await?;
        }
        let mut passkeys = 0;
        if factors.contains(Factor::Passkey) {
            passkeys = accounts::void_passkeys(write.sql(), &user.id).await?;
        }
        let mut accounts_unlinked = Vec::new();
        if factors.contains(Factor::Sso) {
            accounts_unlinked = sso::unlink_all(write.sql(), &user.id).await?;
            if !accounts_unlinked.is_empty() {
                let changed = write.revision();
                devices::touch_of_user(write.sql(), &user.id, changed).await?;
                self.declassify(&mut write).await?;
            }
        }
        limits::forgive(write.sql(), &user.id).await?;
        let sessions = end_all(&mut write, &user.id, ADMIN).await?;
        accounts::note_reset(write.sql(), &user.id, reason, now_ms).await?;
        let what = json!({
            "reason": reason,
            "factors": factors.names(),
            "recovery_codes_voided": codes,
            "passkeys_voided": passkeys,
            "accounts_unlinked": accounts_unlinked,
        });
        let detail = super::ended_with(&sessions, what);
        write
            .audit(by_admin("user.reset-factors", &user.name, detail))
            .await?;
        let link = match self.enrolment_page() {
            Ok(page) if !user.disabled => {
                let wanted = Wanted {
                    valid_ms: request.valid_ms,
                    device_at: None,
                    first_admin: false,
                };
                Some(self.link(&mut write, page, &user, wanted).await?)
            }
            _ => None,
        };
        let committed = Instant::now();
        let revision = write.commit().await?;
        let affected = Affected {
            revision,
            sessions: super::count(&sessions),
            locations,
            committed,
        };
        let wait = Duration::from_millis(request.wait_ms);
        Ok(v1::ResetFactorsResponse {
            link,
            revocation: Some(self.settle_within(affected, wait).await?),
            passkeys_voided: u32::try_from(passkeys).unwrap_or(u32::MAX),
            recovery_codes_voided: u32::try_from(codes).unwrap_or(u32::MAX),
            factors: factors.names(),
        })
    }

    /// A link for the first administrator, as long as no account has enrolled: a new one each time.
    /// `None` from then on, and where somebody has made other accounts in the meantime.
    pub(crate) async fn first_admin(&self) -> Result<Option<v1::EnrolmentLink>> {
        let page = self.enrolment_page()?;
        let mut write = self.store.change(self.now_ms()).await?;
        if accounts::enrolled(write.sql()).await? > 0 {
            return Ok(None);
        }
        let user = match users::find(write.sql(), FIRST_ADMIN).await? {
            Some(user) if user.role == Role::Admin && !user.disabled => user,
            None if users::count(write.sql()).await? == 0 => {
                let user = new_user(FIRST_ADMIN, Role::Admin, write.now_ms());
                users::insert(write.sql(), &user).await?;
                let entry = Entry {
                    actor: SYSTEM,
                    action: "user.add",
                    subject: &user.name,
                    detail: json!({ "groups": [], "role": user.role.as_str() }),
                };
                write.audit(entry).await?;
                user
            }
            _ => return Ok(None),
        };
        let wanted = Wanted {
            valid_ms: VALID_MS,
            device_at: None,
            first_admin: true,
        };
        let link = self.link(&mut write, page, &user, wanted).await?;
        self.reclassify(&mut write).await?;
        write.commit().await?;
        Ok(Some(link))
    }

    /// Whether some account has, or had, factors.
    pub(crate) async fn has_enrolled_accounts(&self) -> Result<bool> {
        let mut read = self.store.read().await?;
        let enrolled = accounts::enrolled(read.sql()).await?;
        read.end().await?;
        Ok(enrolled > 0)
    }

    fn enrolment_page(&self) -> Result<&str> {
        let page = self.enrolment_page.get();
        page.map(String::as_str)
            .ok_or_else(|| OperationError::Precondition(OFF.into()))
    }

    async fn link(
        &self,
        write: &mut Write<'_>,
        page: &str,
        user: &UserRow,
        wanted: Wanted<'_>,
    ) -> Result<v1::EnrolmentLink> {
        let Wanted {
            valid_ms,
            device_at,
            first_admin,
        } = wanted;
        if user.disabled {
            let text = format!("user {:?} is disabled: enable it first", user.name);
            return Err(OperationError::Precondition(text));
        }
        let valid_ms = valid_for(valid_ms)?;
        let token = Token::generate()?;
        let id = token.hash();
        let link = NewLink {
            id: id.as_str(),
            user_id: &user.id,
            location_id: device_at.map_or("", |location| &location.id),
            first_admin,
            created_ms: write.now_ms(),
            expires_ms: write.now_ms().saturating_add(valid_ms),
        };
        enrolments::replace_link(write.sql(), &link).await?;
        let entry = Entry {
            actor: if first_admin { SYSTEM } else { ADMIN },
            action: "user.invite",
            subject: &user.name,
            detail: json!({
                "expires_ms": link.expires_ms,
                "device_at": device_at.map(|location| &location.name),
            }),
        };
        write.audit(entry).await?;
        Ok(v1::EnrolmentLink {
            user: user.name.clone(),
            // Behind a fragment: browsers send it to nobody, neither in a request nor as a Referer.
            url: format!("{page}#{}", token.expose()),
            expires_ms: link.expires_ms,
            ca_fingerprint: self.ca.fingerprint(),
            location: device_at.map_or_else(String::new, |location| location.name.clone()),
        })
    }
}

/// How long a link or an invitation is good; 0: a day.
pub(super) fn valid_for(ms: u64) -> Result<i64> {
    match ms {
        0 => Ok(to_i64(VALID_MS)),
        SHORTEST_MS..=LONGEST_MS => Ok(to_i64(ms)),
        _ => Err(OperationError::invalid(
            "it is good for a minute at least, and for 30 days at most",
        )),
    }
}

/// A location at which who enrols may add a device.
async fn first_location(write: &mut Write<'_>, name: &str) -> Result<LocationRow> {
    let location = found("location", name, locations::find(write.sql(), name)).await?;
    if location.mode == Mode::SessionKey {
        let text = format!(
            "location {name:?} gives each session a key of its own: invite its devices with `portcullis device invite`"
        );
        return Err(OperationError::Precondition(text));
    }
    Ok(location)
}

/// Why factors are voided, in words that the user gets to read.
fn reason(text: &str) -> Result<&str> {
    let text = text.trim();
    if text.is_empty() {
        let text = "say why with --reason: the user and the audit are told";
        return Err(OperationError::invalid(text));
    }
    if text.chars().count() > LONGEST_REASON || text.chars().any(crate::text::is_hidden) {
        return Err(OperationError::invalid(format!(
            "a reason is one line of up to {LONGEST_REASON} visible characters"
        )));
    }
    Ok(text)
}
