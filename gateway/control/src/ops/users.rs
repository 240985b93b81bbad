//! Users: their password and authenticator, and the end of both.

use std::time::{Duration, Instant};

use portcullis_proto::v1;
use serde_json::json;
use zeroize::Zeroizing;

use super::revocation::{Affected, locations_of_user};
use super::{Result, by_admin, found, new_id};
use crate::approval::Place;
use crate::core::Core;
use crate::domain::{Name, Role, SessionState};
use crate::error::OperationError;
use crate::secrets::{Field, Secret};
use crate::store::Write;
use crate::store::outside_limits::{self, Share};
use crate::store::sessions::{Ending, Selection};
use crate::store::users::UserRow;
use crate::store::{
    accounts, attempts, devices, enrolments, invites, limits, recovery, sessions, sso, users,
};
use crate::totp::{Authenticator, SECRET_BYTES};

/// Where a user's TOTP seed is sealed.
pub(crate) fn totp_field(user_id: &str) -> Field<'_> {
    Field {
        table: "users",
        column: "totp_secret",
        row: user_id,
    }
}

impl Core {
    pub(crate) async fn add_user(
        &self,
        request: v1::AddUserRequest,
    ) -> Result<v1::AddUserResponse> {
        let name = Name::parse("user", &request.name)?;
        let groups = request
            .groups
            .iter()
            .map(|group| Name::parse("group", group));
        let groups = groups.collect::<std::result::Result<Vec<_>, _>>()?;
        let role = Role::parse_or_default(&request.role)?;
        let password = Secret::from(request.password);
        let mut user = new_user(name.as_str(), role, self.now_ms());
        // Whoever is invited has no factors until they have enrolled.
        let secret = if request.invite {
            if !password.expose().is_empty() {
                let text = "an invited user chooses the password: leave it out";
                return Err(OperationError::invalid(text));
            }
            None
        } else {
            let secret = Authenticator::generate()?;
            user.password = self.passwords.hash(&password, name.as_str()).await?;
            user.totp_secret = self.vault.seal(totp_field(&user.id), secret.as_slice())?;
            user.enrolled_ms = user.created_ms;
            Some(secret)
        };
        let mut write = self.store.change(user.created_ms).await?;
        users::insert(write.sql(), &user)
            .await
            .map_err(OperationError::taken("user", &user.name))?;
        for group in &groups {
            users::add_group(write.sql(), &user.id, group.as_str()).await?;
        }
        write
            .audit(by_admin(
                "user.add",
                &user.name,
                json!({ "groups": request.groups, "role": role.as_str() }),
            ))
            .await?;
        let link = match request.invite {
            true => {
                let (valid_ms, location) = (request.valid_ms, &request.location);
                Some(self.invite(&mut write, &user, valid_ms, location).await?)
            }
            false => None,
        };
        self.reclassify(&mut write).await?;
        write.commit().await?;
        let (totp_uri, totp_secret) = match &secret {
            Some(secret) => shown_once(secret, &user.name)?,
            None => Default::default(),
        };
        let mut groups: Vec<String> = groups.iter().map(|group| group.as_str().into()).collect();
        groups.sort();
        groups.dedup();
        Ok(v1::AddUserResponse {
            user: Some(view(user, groups)),
            totp_uri,
            totp_secret,
            link,
        })
    }

    pub(crate) async fn list_users(&self) -> Result<v1::Users> {
        let mut read = self.store.read().await?;
        let mut groups = users::groups(read.sql()).await?;
        let users = users::list(read.sql()).await?;
        read.end().await?;
        let users = users.into_iter().map(|user| {
            let groups = groups.remove(&user.id).unwrap_or_default();
            view(user, groups)
        });
        Ok(v1::Users {
            users: users.collect(),
        })
    }

    pub(crate) async fn get_user(&self, name: &str) -> Result<v1::User> {
        let mut read = self.store.read().await?;
        let user = found("user", name, users::find(read.sql(), name)).await?;
        let mut groups = users::groups(read.sql()).await?;
        let accounts = sso::of_user(read.sql(), &user.id).await?;
        read.end().await?;
        let groups = groups.remove(&user.id).unwrap_or_default();
        let accounts = accounts.iter();
        let accounts = accounts.map(|account| format!("{}:{}", account.provider, account.subject));
        Ok(v1::User {
            sso: accounts.collect(),
            ..view(user, groups)
        })
    }

    /// Removes the user with all devices and sessions.
    pub(crate) async fn remove_user(&self, name: &str) -> Result<v1::RevocationStatus> {
        let mut write = self.store.change(self.now_ms()).await?;
        let user = found("user", name, users::find(write.sql(), name)).await?;
        let locations = locations_of_user(&mut write, &user.id).await?;
        let owned = devices::list(write.sql(), &user.id, "").await?;
        let ended = sessions::live_ids(write.sql(), &user.id, "").await?;
        let (revision, now_ms) = (write.revision(), write.now_ms());
        for device in &owned {
            devices::delete(write.sql(), device, revision, now_ms).await?;
        }
        users::delete(write.sql(), &user.id).await?;
        let detail = super::ended_with(&ended, json!({ "devices": owned.len() }));
        write
            .audit(by_admin("user.remove", &user.name, detail))
            .await?;
        self.declassify(&mut write).await?;
        let revision = write.commit().await?;
        let sessions = super::count(&ended);
        self.settle(Affected {
            revision,
            sessions,
            locations,
            committed: Instant::now(),
        })
        .await
    }

    /// Moves the user into and out of groups, and waits for the gateways of the user's devices.
    pub(crate) async fn set_user_groups(
        &self,
        request: v1::SetUserGroupsRequest,
    ) -> Result<v1::SetUserGroupsResponse> {
        for group in &request.add {
            Name::parse("group", group)?;
        }
        let mut write = self.store.change(self.now_ms()).await?;
        let user = users::find(write.sql(), &request.name);
        let user = found("user", &request.name, user).await?;
        if request.replace {
            users::leave_groups(write.sql(), &user.id).await?;
        }
        for group in &request.remove {
            users::remove_group(write.sql(), &user.id, group).await?;
        }
        for group in &request.add {
            users::add_group(write.sql(), &user.id, group).await?;
        }
        let groups = users::groups(write.sql()).await?.remove(&user.id);
        let groups = groups.unwrap_or_default();
        let changed = write.revision();
        devices::touch_of_user(write.sql(), &user.id, changed).await?;
        let detail = json!({ "groups": groups });
        write
            .audit(by_admin("user.groups", &user.name, detail))
            .await?;
        self.reclassify(&mut write).await?;
        let locations = locations_of_user(&mut write, &user.id).await?;
        let committed = Instant::now();
        let revision = write.commit().await?;
        let affected = Affected {
            revision,
            sessions: 0,
            locations,
            committed,
        };
        let wait = Duration::from_millis(request.wait_ms);
        Ok(v1::SetUserGroupsResponse {
            status: Some(self.settle_within(affected, wait).await?),
            user: Some(view(user, groups)),
        })
    }

    /// Disabling ends all that the user holds: sessions, pending logins, and links to enrol by.
    pub(crate) async fn set_user_disabled(
        &self,
        name: &str,
        disabled: bool,
    ) -> Result<v1::RevocationStatus> {
        let mut write = self.store.change(self.now_ms()).await?;
        let user = found("user", name, users::find(write.sql(), name)).await?;
        users::set_disabled(write.sql(), &user.id, disabled).await?;
        let (sessions, locations) = if disabled {
            let locations = locations_of_user(&mut write, &user.id).await?;
            (
                end_all(&mut write, &user.id, super::ADMIN).await?,
                locations,
            )
        } else {
            limits::forgive(write.sql(), &user.id).await?;
            (Vec::new(), Vec::new())
        };
        let action = if disabled {
            "user.disable"
        } else {
            "user.enable"
        };
        write
            .audit(by_admin(action, &user.name, super::ended(&sessions)))
            .await?;
        let revision = write.commit().await?;
        self.settle(Affected {
            revision,
            sessions: super::count(&sessions),
            locations,
            committed: Instant::now(),
        })
        .await
    }

    /// Forgets the wrong attempts of the user and of the user's devices. Of those from outside of the tunnel,
    /// not what was counted by a network.
    pub(crate) async fn unlock_user(&self, name: &str) -> Result<()> {
        let mut write = self.store.record(self.now_ms()).await?;
        let user = found("user", name, users::find(write.sql(), name)).await?;
        limits::forgive(write.sql(), &user.id).await?;
        let approvals = Place::ALL.map(|place| Share::approvals(&user.id, place.as_str()));
        let devices = devices::list(write.sql(), &user.id, "").await?;
        let browsers = devices
            .iter()
            .map(|device| Share::approvals(&device.id, Place::Browser.as_str()));
        for share in [Share::codes(&user.id), Share::name(&user.name)]
            .into_iter()
            .chain(approvals)
            .chain(browsers)
        {
            outside_limits::forgive(write.sql(), &share).await?;
        }
        write
            .audit(by_admin("user.unlock", &user.name, json!({})))
            .await?;
        write.commit().await?;
        Ok(())
    }

    /// A new password, a new authenticator, or both. Whoever holds a session or a pending login
    /// by the old ones loses it; what stood in for the old authenticator goes with it.
    pub(crate) async fn reset_user(
        &self,
        request: v1::ResetUserRequest,
    ) -> Result<v1::ResetUserResponse> {
        if request.password.is_empty() && !request.totp {
            return Err(OperationError::invalid(
                "nothing to reset: give a password, or ask for a new TOTP secret",
            ));
        }
        let password = match request.password {
            password if password.is_empty() => None,
            password => {
                let user = self.get_user(&request.name).await?.name;
                let password = Secret::from(password);
                Some(self.passwords.hash(&password, &user).await?)
            }
        };
        let mut write = self.store.change(self.now_ms()).await?;
        let user = found(
            "user",
            &request.name,
            users::find(write.sql(), &request.name),
        )
        .await?;
        if let Some(password) = &password {
            let now_ms = write.now_ms();
            users::set_password(write.sql(), &user.id, password, now_ms).await?;
        }
        let (mut totp_uri, mut totp_secret, mut voided) = Default::default();
        if request.totp {
            let secret = Authenticator::generate()?;
            let sealed = self.vault.seal(totp_field(&user.id), secret.as_slice())?;
            let now_ms = write.now_ms();
            users::set_totp_secret(write.sql(), &user.id, &sealed, now_ms).await?;
            (totp_uri, totp_secret) = shown_once(&secret, &user.name)?;
            voided = recovery::delete_of_user(write.sql(), &user.id).await?;
        }
        let has_password = password.is_some() || !user.password.is_empty();
        let has_totp = request.totp || !user.totp_secret.is_empty();
        if user.enrolled_ms == 0 && has_password && has_totp {
            let now_ms = write.now_ms();
            accounts::set_enrolled(write.sql(), &user.id, now_ms).await?;
        }
        let locations = locations_of_user(&mut write, &user.id).await?;
        limits::forgive(write.sql(), &user.id).await?;
        let sessions = end_all(&mut write, &user.id, super::ADMIN).await?;
        let what = json!({
            "password": password.is_some(),
            "totp": request.totp,
            "recovery_codes_voided": voided,
        });
        let detail = super::ended_with(&sessions, what);
        write
            .audit(by_admin("user.reset", &user.name, detail))
            .await?;
        let revision = write.commit().await?;
        let affected = Affected {
            revision,
            sessions: super::count(&sessions),
            locations,
            committed: Instant::now(),
        };
        let revocation = Some(self.settle(affected).await?);
        Ok(v1::ResetUserResponse {
            totp_uri,
            totp_secret,
            revocation,
        })
    }
}

/// Ends the user's sessions, and all that could still become one: logins and ceremonies that are
/// half-way, the link to enrol by, and invitations of devices.
pub(crate) async fn end_all(write: &mut Write<'_>, user_id: &str, by: &str) -> Result<Vec<String>> {
    attempts::delete_of_user(write.sql(), user_id).await?;
    accounts::void_ceremonies(write.sql(), user_id).await?;
    enrolments::void(write.sql(), user_id).await?;
    invites::delete_of_user(write.sql(), user_id).await?;
    sso::forget_visits(write.sql(), user_id).await?;
    let (revision, now_ms) = (write.revision(), write.now_ms());
    let ending = Ending {
        state: SessionState::Revoked,
        by,
    };
    let selection = Selection::User(user_id.into());
    Ok(sessions::end(write.sql(), &selection, ending, revision, now_ms).await?)
}

/// URI and base32 text of a new seed.
fn shown_once(secret: &Zeroizing<[u8; SECRET_BYTES]>, user: &str) -> Result<(String, String)> {
    let authenticator = Authenticator::new(secret.as_slice(), user)?;
    Ok((
        authenticator.uri()?.to_string(),
        authenticator.base32().to_string(),
    ))
}

/// Without factors, groups or devices.
pub(super) fn new_user(name: &str, role: Role, created_ms: i64) -> UserRow {
    UserRow {
        id: new_id(),
        name: name.into(),
        password: String::new(),
        totp_secret: String::new(),
        disabled: false,
        created_ms,
        devices: 0,
        live_sessions: 0,
        recovery_codes: 0,
        role,
        enrolled_ms: 0,
        reset_ms: 0,
        reset_reason: String::new(),
    }
}

pub(super) fn view(user: UserRow, groups: Vec<String>) -> v1::User {
    v1::User {
        role: user.role.as_str().into(),
        enrolled_ms: user.enrolled_ms,
        reset_ms: user.reset_ms,
        reset_reason: user.reset_reason,
        has_password: !user.password.is_empty(),
        has_totp: !user.totp_secret.is_empty(),
        id: user.id,
        name: user.name,
        groups,
        disabled: user.disabled,
        created_ms: user.created_ms,
        devices: u32::try_from(user.devices).unwrap_or(u32::MAX),
        live_sessions: u32::try_from(user.live_sessions).unwrap_or(u32::MAX),
        recovery_codes: u32::try_from(user.recovery_codes).unwrap_or(u32::MAX),
        sso: Vec::new(),
    }
}
