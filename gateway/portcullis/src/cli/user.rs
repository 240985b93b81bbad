//! `portcullis user`.

mod set;

use anyhow::Result;
use clap::{Args, Subcommand};
use portcullis_proto::v1::{
    AddUserRequest, ListRequest, NameRequest, ResetUserRequest, SetUserDisabledRequest,
    SetUserGroupsRequest, User,
};
use serde_json::{Value, json};

use super::{Context, revocation};
use crate::exit::{Exit, UsageError};
use crate::output::{Fields, Table};
use crate::{input, qr, time};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portcullis user add ada --group sre
  echo 'correct horse battery' | portcullis user add ada --password-stdin --totp-secret-only
  portcullis user groups ada --add oncall
  portcullis user set ada --sso google:113862474920572940
  portcullis user disable ada
  portcullis user reset ada --totp
  portcullis user recovery-codes ada")]
pub(super) struct UserCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a user with a password and a new TOTP secret
    #[command(after_help = "Example:\n  portcullis user add ada --group sre")]
    Add(Add),
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
    /// Link a user to an account at a provider of single sign-on, or take the link back
    #[command(after_help = "\
The account is named by its subject, as the provider's tokens have it, and never by an e-mail address. One
account for each user and provider: another one takes its place. Sessions that the account's logins have
opened end with the link. Exits with 3 while a gateway has not confirmed that.

Examples:
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
    /// Give a user a new password, a new TOTP secret or both; ends the user's sessions. With a new TOTP
    /// secret, recovery codes are void
    #[command(after_help = "Example:\n  portcullis user reset ada --totp")]
    Reset(Reset),
}

#[derive(Debug, Args)]
struct Add {
    name: String,
    /// A group the user is in; may be given again
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Take the password from the first line of stdin
    #[arg(long)]
    password_stdin: bool,
    /// Print the TOTP secret alone, without QR code
    #[arg(long)]
    totp_secret_only: bool,
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

#[derive(Debug, Args)]
struct Reset {
    name: String,
    /// A new password, from the first line of stdin
    #[arg(long)]
    password_stdin: bool,
    /// A new password, asked for at the terminal
    #[arg(long, conflicts_with = "password_stdin")]
    password: bool,
    /// A new TOTP secret
    #[arg(long)]
    totp: bool,
}

impl UserCommand {
    pub(super) async fn run(self, context: Context) -> Result<Exit> {
        match self.action {
            Action::Add(args) => add(args, context).await,
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
            Action::Reset(args) => reset(args, context).await,
        }
    }
}

async fn add(args: Add, context: Context) -> Result<Exit> {
    // Connected first: no one should choose a password for nothing.
    let mut admin = context.admin().await?;
    let password = input::new_password(args.password_stdin, &args.name)?;
    let request = AddUserRequest {
        name: args.name,
        groups: args.groups,
        password,
    };
    let answer = admin.add_user(request).await?.into_inner();
    let user = answer.user.unwrap_or_default();
    let secret = if args.totp_secret_only {
        format!("{}\n", answer.totp_secret)
    } else {
        let shown = totp_text(&answer.totp_uri, &answer.totp_secret)?;
        format!("User {} is added.\n\n{shown}", user.name)
    };
    context.output.answer(
        || {
            json!({
                "user": json_of(&user),
                "totp_uri": answer.totp_uri,
                "totp_secret": answer.totp_secret,
            })
        },
        || secret,
    )?;
    Ok(Exit::Done)
}

/// The secret is shown this once, in the form an authenticator app reads.
fn totp_text(uri: &str, secret: &str) -> Result<String> {
    Ok(format!(
        "{}\n\nTOTP secret: {secret}\n{uri}\nThis is shown only once.\n",
        qr::render(uri)?
    ))
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
            let mut table =
                Table::new(&["NAME", "GROUPS", "STATE", "DEVICES", "SESSIONS", "CREATED"]);
            for user in &users {
                table.row([
                    user.name.clone(),
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
                .field("Groups", user.groups.join(", "))
                .field("State", state(&user))
                .field("Password", yes_or_no(user.has_password))
                .field("TOTP", yes_or_no(user.has_totp))
                .field("Recovery codes", user.recovery_codes)
                .field("Single sign-on", user.sso.join(", "))
                .field("Devices", user.devices)
                .field("Live sessions", user.live_sessions)
                .field("Created", time::text(user.created_ms))
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

async fn reset(args: Reset, context: Context) -> Result<Exit> {
    let new_password = args.password || args.password_stdin;
    if !new_password && !args.totp {
        let text = "what is to be reset? --password, --password-stdin or --totp";
        return Err(UsageError(text.to_owned()).into());
    }
    let mut admin = context.admin().await?;
    let password = match new_password {
        true => input::new_password(args.password_stdin, &args.name)?,
        false => String::new(),
    };
    let request = ResetUserRequest {
        name: args.name,
        password,
        totp: args.totp,
    };
    let answer = admin.reset_user(request).await?.into_inner();
    let status = answer.revocation.unwrap_or_default();
    let shown = if answer.totp_uri.is_empty() {
        String::new()
    } else {
        totp_text(&answer.totp_uri, &answer.totp_secret)?
    };
    context.output.answer(
        || {
            json!({
                "totp_uri": args.totp.then_some(&answer.totp_uri),
                "totp_secret": args.totp.then_some(&answer.totp_secret),
                "revocation": revocation::json(&status),
            })
        },
        || format!("{shown}{}", revocation::text(&status)),
    )?;
    Ok(revocation::exit(&status))
}

fn json_of(user: &User) -> Value {
    json!({
        "id": user.id,
        "name": user.name,
        "groups": user.groups,
        "disabled": user.disabled,
        "created": time::json(user.created_ms),
        "devices": user.devices,
        "live_sessions": user.live_sessions,
        "has_password": user.has_password,
        "has_totp": user.has_totp,
        "recovery_codes": user.recovery_codes,
        "sso": user.sso,
    })
}

fn state(user: &User) -> &'static str {
    if user.disabled { "disabled" } else { "enabled" }
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
