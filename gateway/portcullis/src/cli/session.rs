//! `portcullis session`.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use portcullis_proto::v1::revoke_sessions_request::Target;
use portcullis_proto::v1::{
    AddSessionRequest, AddSessionResponse, ExtendSessionRequest, ListSessionsRequest, NameRequest,
    RevokeSessionsRequest, SessionInfo,
};
use serde_json::{Value, json};

use super::{Context, level_name, revocation};
use crate::exit::Exit;
use crate::output::{Fields, Table};
use crate::time::{self, Span};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portcullis session list
  portcullis session revoke --user ada
  portcullis session revoke --all --wait 30s
  portcullis session extend 3f0c… --by 1h")]
pub(super) struct SessionCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List live sessions
    List {
        /// Of this user
        #[arg(long)]
        user: Option<String>,
        /// Of this location
        #[arg(long)]
        location: Option<String>,
        /// Ended ones too
        #[arg(long)]
        all: bool,
    },
    /// Show a session
    Show { id: String },
    /// Grant a device a session without a login, at level mfa; audited. Refused where the location
    /// requires more
    #[command(after_help = "\
At a session-key location the session has a pre-shared key of its own. It is shown once, and only when
a gateway has confirmed that it holds the device; where none does, there is no session.

Example:
  portcullis session add --device build7 --lifetime 2h")]
    Add {
        #[arg(long)]
        device: String,
        /// [default: the location's]
        #[arg(long, value_name = "DURATION")]
        lifetime: Option<Span>,
        /// [default: the location's]
        #[arg(long, value_name = "DURATION")]
        idle_timeout: Option<Span>,
    },
    /// Move a live session's deadline
    #[command(after_help = "Example:\n  portcullis session extend 3f0c… --by 1h")]
    Extend {
        id: String,
        #[arg(long, value_name = "DURATION")]
        by: Span,
    },
    /// End one session; the same as `revoke --session ID`
    Remove {
        id: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// End sessions at once, and wait for every gateway to confirm it
    #[command(after_help = "\
Exits with 3 while a gateway has not confirmed: the revocation is committed and stays so.

Examples:
  portcullis session revoke --user ada
  portcullis session revoke --all --wait 30s")]
    Revoke {
        #[command(flatten)]
        target: RevokeTarget,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, Args)]
struct Wait {
    /// How long to wait for the gateways
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    wait: Span,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct RevokeTarget {
    /// One session
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// The session of a device
    #[arg(long)]
    device: Option<String>,
    /// All sessions of a user
    #[arg(long)]
    user: Option<String>,
    /// All sessions of a location
    #[arg(long)]
    location: Option<String>,
    /// Every session there is
    #[arg(long)]
    all: bool,
}

impl RevokeTarget {
    /// The one that was given; the command line demands exactly one.
    fn into_target(self) -> Option<Target> {
        self.session
            .map(Target::Session)
            .or(self.device.map(Target::Device))
            .or(self.user.map(Target::User))
            .or(self.location.map(Target::Location))
            .or(self.all.then_some(Target::Everyone(true)))
    }
}

impl SessionCommand {
    pub(super) async fn run(self, context: Context) -> Result<Exit> {
        match self.action {
            Action::List {
                user,
                location,
                all,
            } => {
                let request = ListSessionsRequest {
                    user: user.unwrap_or_default(),
                    location: location.unwrap_or_default(),
                    all,
                };
                list(request, context).await
            }
            Action::Show { id } => {
                let session = context
                    .admin()
                    .await?
                    .get_session(NameRequest { name: id })
                    .await?
                    .into_inner();
                one("", &session, context)
            }
            Action::Add {
                device,
                lifetime,
                idle_timeout,
            } => {
                let request = AddSessionRequest {
                    device,
                    lifetime_ms: lifetime.map_or(0, Span::as_millis),
                    idle_timeout_ms: idle_timeout.map_or(0, Span::as_millis),
                };
                let answer = context.admin().await?.add_session(request).await?;
                granted(&answer.into_inner(), context)
            }
            Action::Extend { id, by } => {
                let request = ExtendSessionRequest {
                    id,
                    by_ms: by.as_millis(),
                };
                let session = context
                    .admin()
                    .await?
                    .extend_session(request)
                    .await?
                    .into_inner();
                one("The session is extended.\n\n", &session, context)
            }
            Action::Remove { id, wait } => revoke(Some(Target::Session(id)), wait, context).await,
            Action::Revoke { target, wait } => revoke(target.into_target(), wait, context).await,
        }
    }
}

async fn revoke(target: Option<Target>, wait: Wait, context: Context) -> Result<Exit> {
    let request = RevokeSessionsRequest {
        target,
        wait_ms: wait.wait.as_millis(),
    };
    let status = context
        .admin()
        .await?
        .revoke_sessions(request)
        .await?
        .into_inner();
    revocation::report(context.output, "", &status)
}

async fn list(request: ListSessionsRequest, context: Context) -> Result<Exit> {
    let sessions = context
        .admin()
        .await?
        .list_sessions(request)
        .await?
        .into_inner()
        .sessions;
    context.output.answer(
        || json!({ "sessions": sessions.iter().map(json_of).collect::<Vec<_>>() }),
        || {
            let mut table = Table::new(&[
                "ID", "USER", "DEVICE", "LOCATION", "LEVEL", "STATE", "DEADLINE", "ACTIVE",
            ]);
            for session in &sessions {
                table.row([
                    session.id.clone(),
                    session.user.clone(),
                    session.device.clone(),
                    session.location.clone(),
                    level(session).to_owned(),
                    session.state.clone(),
                    time::text(session.deadline_ms),
                    time::text(session.last_activity_ms),
                ]);
            }
            table.render("No sessions.")
        },
    )?;
    Ok(Exit::Done)
}

fn one(done: &str, session: &SessionInfo, context: Context) -> Result<Exit> {
    context.output.answer(
        || json_of(session),
        || format!("{done}{}", text_of(session)),
    )?;
    Ok(Exit::Done)
}

fn text_of(session: &SessionInfo) -> String {
    Fields::default()
        .field("Id", &session.id)
        .field("User", &session.user)
        .field("Device", &session.device)
        .field("Location", &session.location)
        .field("Level", level(session))
        .field("State", &session.state)
        .field("Logged in", time::text(session.authenticated_at_ms))
        .field("Deadline", time::text(session.deadline_ms))
        .field("Idle timeout", time::duration_text(session.idle_timeout_ms))
        .field("Last activity", time::text(session.last_activity_ms))
        .field("Ended", time::text(session.ended_ms))
        .field("Ended by", &session.ended_by)
        .render()
}

/// A granted session, with the key that is shown this once.
fn granted(answer: &AddSessionResponse, context: Context) -> Result<Exit> {
    let session = answer
        .session
        .as_ref()
        .context("control answered without the session")?;
    if answer.preshared_key.is_empty() {
        return one("The session is granted.\n\n", session, context);
    }
    let key = STANDARD.encode(&answer.preshared_key);
    context.output.answer(
        || {
            let mut json = json_of(session);
            json["preshared_key"] = key.as_str().into();
            json
        },
        || {
            format!(
                "The session is granted. Its pre-shared key, shown this once:\n\n{key}\n\n{}",
                text_of(session)
            )
        },
    )?;
    Ok(Exit::Done)
}

fn json_of(session: &SessionInfo) -> Value {
    json!({
        "id": session.id,
        "user": session.user,
        "device": session.device,
        "location": session.location,
        "level": level(session),
        "state": session.state,
        "authenticated_at": time::json(session.authenticated_at_ms),
        "deadline": time::json(session.deadline_ms),
        "idle_timeout_ms": session.idle_timeout_ms,
        "last_activity": time::json(session.last_activity_ms),
        "ended": time::json(session.ended_ms),
        "ended_by": (!session.ended_by.is_empty()).then_some(&session.ended_by),
    })
}

fn level(session: &SessionInfo) -> &'static str {
    level_name(session.level())
}
