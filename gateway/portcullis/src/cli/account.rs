//! `portcullis user add`, `set`, `invite` and `reset`: an account and its factors.

use anyhow::Result;
use clap::{Args, ValueEnum};
use portcullis_proto::v1::{
    AddUserRequest, EnrolmentLink, InviteUserRequest, ResetFactorsRequest, ResetUserRequest,
    SetUserRequest,
};
use serde_json::{Value, json};

use super::user::json_of;
use super::{Context, revocation};
use crate::exit::{Exit, UsageError};
use crate::{input, qr, time};

/// An account's role.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum Role {
    /// Logs in
    #[default]
    User,
    /// The same, and marked as an administrator
    Admin,
}

/// What a user may have lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Lost {
    /// The authenticator; its recovery codes go with it
    Totp,
    /// The recovery codes
    Recovery,
    /// Every passkey and security key
    Passkeys,
    /// All of these, and the password
    All,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    name: String,
    /// A group the user is in; may be given again
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// What the account is for
    #[arg(long, default_value = "user")]
    role: Role,
    /// Take the password from the first line of stdin
    #[arg(long)]
    password_stdin: bool,
    /// Print the TOTP secret alone, without QR code
    #[arg(long)]
    totp_secret_only: bool,
    /// No password: print a one-time link by which the user chooses one and sets up an authenticator
    #[arg(long, conflicts_with_all = ["password_stdin", "totp_secret_only"])]
    invite: bool,
    /// How long the link is good
    #[arg(long, value_name = "DURATION", requires = "invite")]
    valid: Option<time::Span>,
    /// A location at which the user may add a first device when enrolling
    #[arg(long, requires = "invite")]
    location: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Invite {
    name: String,
    /// How long the link is good
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    valid: time::Span,
    /// A location at which the user may add a first device when enrolling
    #[arg(long)]
    location: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Reset {
    name: String,
    /// Why, in a line that the user is told and the audit keeps: the user has lost a factor
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["password_stdin", "password", "totp"])]
    reason: Option<String>,
    /// What was lost; may be given again [default: all]
    #[arg(long = "factor", value_name = "FACTOR", requires = "reason")]
    lost: Vec<Lost>,
    /// A new password, from the first line of stdin
    #[arg(long)]
    password_stdin: bool,
    /// A new password, asked for at the terminal
    #[arg(long, conflicts_with = "password_stdin")]
    password: bool,
    /// A new TOTP secret
    #[arg(long)]
    totp: bool,
    /// How long to wait for the gateways, with --reason
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    wait: time::Span,
}

impl Role {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }
}

impl Lost {
    fn factor(self) -> &'static str {
        match self {
            Self::Totp => "totp",
            Self::Recovery => "recovery-code",
            Self::Passkeys => "passkey",
            // No factor's name: asked for by naming none.
            Self::All => "",
        }
    }
}

pub(super) async fn add(args: Add, context: Context) -> Result<Exit> {
    // Connected first: no one should choose a password for nothing.
    let mut admin = context.admin().await?;
    let password = match args.invite {
        true => String::new(),
        false => input::new_password(args.password_stdin, &args.name)?,
    };
    let request = AddUserRequest {
        name: args.name,
        groups: args.groups,
        password,
        role: args.role.as_str().to_owned(),
        invite: args.invite,
        valid_ms: args.valid.map_or(0, time::Span::as_millis),
        location: args.location.unwrap_or_default(),
    };
    let answer = admin.add_user(request).await?.into_inner();
    let user = answer.user.unwrap_or_default();
    if let Some(link) = answer.link {
        let shown = link_text(&link)?;
        context.output.answer(
            || json!({ "user": json_of(&user), "link": link_json(&link) }),
            || format!("User {} is added.\n\n{shown}", user.name),
        )?;
        return Ok(Exit::Done);
    }
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

pub(super) async fn set_role(name: String, role: Role, context: Context) -> Result<Exit> {
    let request = SetUserRequest {
        name,
        role: role.as_str().to_owned(),
    };
    let mut admin = context.admin().await?;
    let user = admin.set_user(request).await?.into_inner();
    context.output.answer(
        || json_of(&user),
        || format!("User {} has the role {}.", user.name, user.role),
    )?;
    Ok(Exit::Done)
}

pub(super) async fn invite(args: Invite, context: Context) -> Result<Exit> {
    let request = InviteUserRequest {
        valid_ms: args.valid.as_millis(),
        name: args.name,
        location: args.location.unwrap_or_default(),
    };
    let mut admin = context.admin().await?;
    let link = admin.invite_user(request).await?.into_inner();
    let text = link_text(&link)?;
    context.output.answer(|| link_json(&link), || text)?;
    Ok(Exit::Done)
}

pub(super) async fn reset(args: Reset, context: Context) -> Result<Exit> {
    match args.reason {
        Some(reason) => void(args.name, reason, &args.lost, args.wait, context).await,
        None => set_factors(args, context).await,
    }
}

/// Voids what was lost.
async fn void(
    name: String,
    reason: String,
    lost: &[Lost],
    wait: time::Span,
    context: Context,
) -> Result<Exit> {
    let factors = match lost.contains(&Lost::All) {
        true => Vec::new(),
        false => lost.iter().map(|lost| lost.factor().into()).collect(),
    };
    let request = ResetFactorsRequest {
        name: name.clone(),
        reason,
        factors,
        valid_ms: 0,
        wait_ms: wait.as_millis(),
    };
    let mut admin = context.admin().await?;
    let answer = admin.reset_factors(request).await?.into_inner();
    let status = answer.revocation.unwrap_or_default();
    let link = answer.link.as_ref();
    let next = match link {
        Some(link) => link_text(link)?,
        None => format!(
            "There is no link: enrolment is off, or the user is disabled. `portcullis user reset {name} --password --totp` gives new factors.\n"
        ),
    };
    context.output.answer(
        || {
            json!({
                "name": name,
                "void": answer.factors,
                "recovery_codes_voided": answer.recovery_codes_voided,
                "passkeys_voided": answer.passkeys_voided,
                "link": link.map(link_json),
                "revocation": revocation::json(&status),
            })
        },
        || {
            let void = answer.factors.join(", ");
            let ended = revocation::text(&status);
            format!("Void for {name}: {void}.\n{ended}\n{next}")
        },
    )?;
    Ok(revocation::exit(&status))
}

/// Gives the user factors that the administrator knows.
async fn set_factors(args: Reset, context: Context) -> Result<Exit> {
    let new_password = args.password || args.password_stdin;
    if !new_password && !args.totp {
        let text = "what is to be reset? --reason TEXT for a lost factor, or --password, --password-stdin or --totp";
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

/// The link as people get it. It is shown this once.
pub(super) fn link_text(link: &EnrolmentLink) -> Result<String> {
    let device = match link.location.as_str() {
        "" => String::new(),
        location => format!("A first device can be added with it at {location}.\n"),
    };
    Ok(format!(
        "{image}\n{url}\n\n{user} enrols by this link: good once, until {expires}, and until a newer one. Give it to nobody else.\n{device}The page's certificate is by this CA: {ca}\nThis is shown only once.\n",
        image = qr::render(&link.url)?,
        url = link.url,
        user = link.user,
        expires = time::text(link.expires_ms),
        ca = link.ca_fingerprint,
    ))
}

pub(super) fn link_json(link: &EnrolmentLink) -> Value {
    json!({
        "user": link.user,
        "url": link.url,
        "expires": time::json(link.expires_ms),
        "ca_fingerprint": link.ca_fingerprint,
        "location": (!link.location.is_empty()).then_some(&link.location),
    })
}
