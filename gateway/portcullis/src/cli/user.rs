//! `portcullis user`.

mod set;

use anyhow::Result;
use clap::{Args, Subcommand};
use portcullis_proto::v1::{
    ListRequest, NameRequest, SetUserDisabledRequest, SetUserGroupsRequest, User,
};
use serde_json::{Value, json};

use super::{Context, account, revocation};
use crate::exit::Exit;
use crate::output::{Fields, Table};
use crate::time;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portcullis user add ada --group sre
  echo 'correct horse battery' | portcullis user add ada --password-stdin --totp-secret-only
  portcullis user add ada --invite --valid 2h --location office
  portcullis user groups ada --add oncall
  portcullis user set ada --role admin
  portcullis user set ada --sso google:113862474920572940
  portcullis user disable ada
  portcullis user reset ada --reason 'phone stolen, called back'
  portcullis user recovery-codes ada")]
pub(super) struct UserCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a user with a password and a new TOTP secret
    #[command(after_help = "Example:\n  portcullis user add ada --group sre")]
    Add(account::Add),
    /// List users
    List,
    /// Show a user
    Show { name: String },
    /// Remove a user, the user's devices and sessions
    Remove { name: String },
    /// End a user's sessions and allow no new one
    Disable { name: String },
    /// Allow a disabled user to log in again
    Enable { name: String },
    /// Forget a user's wrong attempts, so that the next one is not delayed
    Unlock { name: String },
    /// Show a user's groups, or move the user into and out of groups
    #[command(after_help = "\
The rules that hold for the user follow at once, live sessions included. Exits with 3 while a gateway
of the user's devices has not confirmed that.

Examples:
  portcullis user groups ada
  portcullis user groups ada --set sre,staff
  portcullis user groups ada --add oncall --remove staff")]
    Groups(Groups),
    /// Change an account's role, or its link to an account at a provider of single sign-on
    #[command(after_help = "\
Nothing ends by a change of role.

The account at a provider is named by its subject, as the provider's tokens have it, and never by an e-mail address. One
account for each user and provider: another one takes its place. Sessions that the account's logins have
opened end with the link. Exits with 3 while a gateway has not confirmed that.

Examples:
  portcullis user set ada --role admin
  portcullis user set ada --sso google:113862474920572940
  portcullis user set ada --no-sso google
  portcullis user show ada")]
    Set(set::Set),
    /// Make ten recovery codes for a user; all earlier ones are void
    #[command(after_help = "\
Each is good once in place of the authenticator's code, where the location allows recovery-code. They are
shown this once: hand them over in person, after making sure who it is. An audit record tells of it.

Example:
  portcullis user recovery-codes ada")]
    RecoveryCodes { name: String },
    /// Make a one-time link by which a user chooses a password and sets up an authenticator
    #[command(after_help = "\
A newer link voids the older. Until the user has finished, the factors that the account has stay good; then
they are replaced, and sessions by them end. Needs an address in [portal] public.

Examples:
  portcullis user invite ada
  portcullis user invite ada --valid 2h")]
    Invite(account::Invite),
    /// Void what a user has lost and make a link to enrol anew; or set new factors here
    #[command(after_help = "\
With --reason: for a lost or stolen factor, after making sure who asks. Voids it, ends the user's sessions and
whatever was half-way, prints a link to enrol anew, and leaves a record with the reason, which the user is
told at the next login. Exits with 3 while a gateway has not confirmed the end of the sessions.
Without: a new password, a new TOTP secret (which voids recovery codes) or both, known to you.

Examples:
  portcullis user reset ada --reason 'phone stolen, called back'
  portcullis user reset ada --reason 'list lost' --factor recovery
  portcullis user reset ada --totp")]
    Reset(account::Reset),
}

#[derive(Debug, Args)]
struct Groups {
    name: String,
    /// Exactly these groups; an empty text for none
    #[arg(long, value_name = "GROUPS", value_delimiter = ',', conflicts_with_all = ["add", "remove"])]
    set: Option<Vec<String>>,
    /// These groups as well
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    add: Vec<String>,
    /// No longer these groups
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    remove: Vec<String>,
    /// How long to wait for the gateways
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    wait: time::Span,
}

impl UserCommand {
    pub(super) async fn run(self, context: Context) -> Result<Exit> {
        match self.action {
            Action::Add(args) => account::add(args, context).await,
            Action::List => list(context).await,
            Action::Show { name } => show(name, context).await,
            Action::Remove { name } => {
                let done = format!("User {name} is removed.");
                let status = context
                    .admin()
                    .await?
                    .remove_user(NameRequest { name })
                    .await?
                    .into_inner();
                revocation::report(context.output, &done, &status)
            }
            Action::Disable { name } => set_disabled(name, true, context).await,
            Action::Enable { name } => set_disabled(name, false, context).await,
            Action::Unlock { name } => unlock(name, context).await,
            Action::RecoveryCodes { name } => recovery_codes(name, context).await,
            Action::Groups(args) => groups(args, context).await,
            Action::Set(args) => args.run(context).await,
            Action::Invite(args) => account::invite(args, context).await,
            Action::Reset(args) => account::reset(args, context).await,
        }
    }
}

async fn list(context: Context) -> Result<Exit> {
    let users = context
        .admin()
        .await?
        .list_users(ListRequest {})
        .await?
        .into_inner()
        .users;
    context.output.answer(
        || json!({ "users": users.iter().map(json_of).collect::<Vec<_>>() }),
        || {
            let mut table = Table::new(&[
                "NAME", "ROLE", "GROUPS", "STATE", "DEVICES", "SESSIONS", "CREATED",
            ]);
            for user in &users {
                table.row([
                    user.name.clone(),
                    user.role.clone(),
                    user.groups.join(","),
                    state(user).to_owned(),
                    user.devices.to_string(),
                    user.live_sessions.to_string(),
                    time::text(user.created_ms),
                ]);
            }
            table.render("No users yet: portcullis user add NAME")
        },
    )?;
    Ok(Exit::Done)
}

async fn show(name: String, context: Context) -> Result<Exit> {
    let user = context
        .admin()
        .await?
        .get_user(NameRequest { name })
        .await?
        .into_inner();
    context.output.answer(
        || json_of(&user),
        || {
            Fields::default()
                .field("Name", &user.name)
                .field("Id", &user.id)
                .field("Role", &user.role)
                .field("Groups", user.groups.join(", "))
                .field("State", state(&user))
                .field("Password", yes_or_no(user.has_password))
                .field("TOTP", yes_or_no(user.has_totp))
                .field("Recovery codes", user.recovery_codes)
                .field("Single sign-on", user.sso.join(", "))
                .field("Devices", user.devices)
                .field("Live sessions", user.live_sessions)
                .field("Created", time::text(user.created_ms))
                .field("Enrolled", time::text(user.enrolled_ms))
                .field("Last reset", reset_text(&user))
                .render()
        },
    )?;
    Ok(Exit::Done)
}

async fn set_disabled(name: String, disabled: bool, context: Context) -> Result<Exit> {
    let done = format!(
        "User {name} is {}.",
        if disabled { "disabled" } else { "enabled" }
    );
    let request = SetUserDisabledRequest { name, disabled };
    let status = context
        .admin()
        .await?
        .set_user_disabled(request)
        .await?
        .into_inner();
    revocation::report(context.output, &done, &status)
}

async fn unlock(name: String, context: Context) -> Result<Exit> {
    let request = NameRequest { name: name.clone() };
    context.admin().await?.unlock_user(request).await?;
    context.output.answer(
        || json!({ "unlocked": name }),
        || format!("User {name} can try again at once."),
    )?;
    Ok(Exit::Done)
}

async fn recovery_codes(name: String, context: Context) -> Result<Exit> {
    let request = NameRequest { name: name.clone() };
    let mut admin = context.admin().await?;
    let made = admin.new_recovery_codes(request).await?.into_inner();
    context.output.answer(
        || json!({ "name": name, "codes": made.codes, "voided": made.voided }),
        || {
            let voided = match made.voided {
                0 => String::new(),
                1 => "One earlier code is void now.\n".to_owned(),
                voided => format!("{voided} earlier codes are void now.\n"),
            };
            let codes = made.codes.join("\n  ");
            format!(
                "Recovery codes of {name}, each good once:\n\n  {codes}\n\n{voided}These are shown only once.\n"
            )
        },
    )?;
    Ok(Exit::Done)
}

async fn groups(args: Groups, context: Context) -> Result<Exit> {
    let mut admin = context.admin().await?;
    if args.set.is_none() && args.add.is_empty() && args.remove.is_empty() {
        let name = args.name;
        let user = admin.get_user(NameRequest { name }).await?.into_inner();
        context.output.answer(
            || json!({ "name": user.name, "groups": user.groups }),
            || user.groups.join("\n"),
        )?;
        return Ok(Exit::Done);
    }
    let replace = args.set.is_some();
    let mut add = args.set.unwrap_or(args.add);
    add.retain(|group| !(replace && group.is_empty()));
    let request = SetUserGroupsRequest {
        name: args.name,
        replace,
        add,
        remove: args.remove,
        wait_ms: args.wait.as_millis(),
    };
    let answer = admin.set_user_groups(request).await?.into_inner();
    let user = answer.user.unwrap_or_default();
    let status = answer.status.unwrap_or_default();
    context.output.answer(
        || {
            json!({
                "name": user.name,
                "groups": user.groups,
                "revision": status.revision,
                "done": revocation::is_done(&status),
                "gateways": revocation::gateways_json(&status),
            })
        },
        || {
            let groups = match user.groups.as_slice() {
                [] => "no group".to_owned(),
                groups => groups.join(", "),
            };
            let gateways = revocation::gateways_text(&status);
            format!("User {} is in {groups}.\n{gateways}", user.name)
        },
    )?;
    Ok(revocation::exit(&status))
}

pub(super) fn json_of(user: &User) -> Value {
    json!({
        "id": user.id,
        "name": user.name,
        "role": user.role,
        "groups": user.groups,
        "disabled": user.disabled,
        "created": time::json(user.created_ms),
        "devices": user.devices,
        "live_sessions": user.live_sessions,
        "has_password": user.has_password,
        "has_totp": user.has_totp,
        "recovery_codes": user.recovery_codes,
        "enrolled": time::json(user.enrolled_ms),
        "last_reset": time::json(user.reset_ms),
        "last_reset_reason": (user.reset_ms != 0).then_some(&user.reset_reason),
        "sso": user.sso,
    })
}

/// When an administrator voided factors last, and why.
fn reset_text(user: &User) -> String {
    match user.reset_ms {
        0 => String::new(),
        at_ms => format!("{}: {}", time::text(at_ms), user.reset_reason),
    }
}

fn state(user: &User) -> &'static str {
    match (user.disabled, user.enrolled_ms) {
        (true, _) => "disabled",
        (false, 0) => "invited",
        (false, _) => "enabled",
    }
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
