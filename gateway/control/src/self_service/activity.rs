//! What happened to one's account, in words.

use std::collections::HashMap;
use std::net::IpAddr;

use serde_json::Value;

use super::{SelfService, SelfServiceError};
use crate::store::audit::{self, AuditRow};
use crate::store::devices;

/// Records shown.
const SHOWN: u32 = 50;

/// Something that happened to the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    pub at_ms: i64,
    /// A sentence without its full stop.
    pub what: String,
    /// `you`, `an administrator`, `the system`, `a phone`, or `someone using it` (the device) before a login is
    /// done.
    pub by: &'static str,
}

impl SelfService {
    /// What happened to the account of who is signed in, newest first, as far as the audit goes back.
    pub async fn activity(&self, from: IpAddr) -> Result<Vec<Activity>, SelfServiceError> {
        let now_ms = self.0.now_ms();
        let mut read = self.0.store.read().await?;
        let signed_in = self.0.signed_in(read.sql(), from, now_ms).await?;
        let mine = &signed_in.device;
        let rows = audit::newest_about(read.sql(), &mine.user_id, SHOWN).await?;
        let owned = devices::list(read.sql(), &mine.user_id, "").await?;
        read.end().await?;
        let owned: HashMap<&str, &str> = owned
            .iter()
            .map(|device| (device.name.as_str(), device.called()))
            .collect();
        let me = format!("user:{}", mine.user);
        let told = rows.iter().filter_map(|row| tell(row, &me, &owned));
        Ok(told.collect())
    }
}

/// Says what a record means to its user. What they have no part in, such as an act on someone else's
/// account, is left out.
fn tell(row: &AuditRow, me: &str, owned: &HashMap<&str, &str>) -> Option<Activity> {
    let by = match row.actor.as_str() {
        actor if actor == me => "you",
        "system" => "the system",
        actor if actor.starts_with("gateway:") => "the system",
        _ => "an administrator",
    };
    // The record has the device's owner; who typed was not proven.
    let by = match row.action.as_str() {
        "login.begin" | "login.refuse" => "someone using it",
        "phone.begin" | "browser.begin" => "someone using it",
        "browser.approve" | "browser.deny" | "browser.refuse" => "someone using it",
        "phone.approve" | "phone.deny" | "phone.refuse" | "phone.wrong-number" => "a phone",
        "enrolment.begin" | "user.enrol" => "someone with the link",
        _ => by,
    };
    if row.actor == me && row.subject.starts_with("user:") && row.subject != me {
        return None;
    }
    let detail: Value = serde_json::from_str(&row.detail).unwrap_or_default();
    let named = row.subject.strip_prefix("device:").unwrap_or(&row.subject);
    let device = detail["called"]
        .as_str()
        .or_else(|| owned.get(named).copied());
    let on = device.map_or_else(|| " a device".to_owned(), |device| format!(" “{device}”"));
    let passkey = || format!(" “{}”", detail["name"].as_str().unwrap_or_default());
    let what = match row.action.as_str() {
        "login.begin" => format!("A sign-in was begun on{on}"),
        "login.refuse" => format!("A sign-in was refused on{on}"),
        "session.grant" if by == "you" => format!("Signed in on{on}"),
        "session.grant" => format!("A session was opened on{on}"),
        "outside.begin" => "A sign-in from outside of the tunnel was begun".to_owned(),
        "outside.refuse" => {
            "A sign-in from outside of the tunnel was refused, with the right password".to_owned()
        }
        "outside.grant" => format!("The sign-in on{on} was from outside of the tunnel"),
        "browser.begin" => format!("A passkey was asked for, to connect{on}"),
        "browser.approve" => format!("A passkey has connected{on}"),
        "browser.deny" => format!("A sign-in on{on} was denied in a browser: “this was not me”"),
        "browser.refuse" => format!("A passkey was refused for a sign-in on{on}"),
        "phone.begin" => "A phone was asked to approve a sign-in".to_owned(),
        "phone.approve" => "A sign-in was approved on a phone".to_owned(),
        "phone.deny" => "A sign-in was denied on a phone: “this was not me”".to_owned(),
        "phone.wrong-number" => {
            "A sign-in was ended: the number typed on a phone was wrong".to_owned()
        }
        "phone.refuse" => "A phone's passkey was refused for a sign-in".to_owned(),
        "ssh.grant" => format!("The sign-in on{on} was by SSH, and lasts as long"),
        "session.renew" if by == "you" => format!("Signed in again on{on}: the session goes on"),
        "session.renewal-undone" => {
            format!("A session on{on} was not renewed: no gateway answered")
        }
        "session.extend" => "A session was made longer".to_owned(),
        "session.logout" | "session.revoke" => "A session was ended".to_owned(),
        "session.expire" => "A session ended: its time was over".to_owned(),
        "session.end" => "A session ended: it was idle or over".to_owned(),
        "location.set" => {
            "A session was ended or shortened: the rules of its location changed".to_owned()
        }
        "device.invite" => "A device of yours was invited by an administrator".to_owned(),
        "device.enrol" => "The device made itself known with an invitation".to_owned(),
        "device.add" => format!("Device{} was added", named_device(device)),
        "device.rename" => format!("A device was renamed to{on}"),
        "device.remove" => format!("Device{} was removed", named_device(device)),
        "device.expire" => format!(
            "Device{} was removed: its time was over",
            named_device(device)
        ),
        "passkey.add" => format!("Passkey{} was added", passkey()),
        "passkey.rename" => format!("A passkey was renamed to{}", passkey()),
        "passkey.remove" => format!("Passkey{} was removed", passkey()),
        "passkey.block" => "A passkey was blocked: it may have been copied".to_owned(),
        "user.password" => "The password was changed".to_owned(),
        "user.totp" => "A new authenticator was set up; the one before it is void".to_owned(),
        "user.add" => "The account was made".to_owned(),
        "user.groups" => "The account's groups were changed".to_owned(),
        "user.reset" => "Password or authenticator were reset".to_owned(),
        "user.reset-factors" => format!(
            "Ways to sign in were voided: {}",
            detail["reason"].as_str().unwrap_or_default()
        ),
        "user.reset-told" => "Signed in for the first time since the reset".to_owned(),
        "user.invite" => "A link to enrol by was made".to_owned(),
        "enrolment.begin" => "The link to enrol by was opened".to_owned(),
        "user.enrol" => "A new password and authenticator were set up".to_owned(),
        "user.role" => "The account's role was changed".to_owned(),
        "user.sso" => "The account at a provider was linked or unlinked".to_owned(),
        "user.unlock" => "Wrong sign-in attempts were forgotten".to_owned(),
        "user.disable" => "The account was disabled".to_owned(),
        "user.enable" => "The account was enabled".to_owned(),
        "user.recovery-codes" => "New recovery codes were made; older ones are void".to_owned(),
        "user.recovery-code" => "A recovery code was used".to_owned(),
        other => format!("The account was changed ({other})"),
    };
    Some(Activity {
        at_ms: row.at_ms,
        what,
        by,
    })
}

fn named_device(device: Option<&str>) -> String {
    device.map_or_else(String::new, |device| format!(" “{device}”"))
}
