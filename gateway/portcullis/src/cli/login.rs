//! `portcullis login` and `logout`: a stock client's login from a terminal.

use anyhow::{Result, bail};
use clap::Args;
use portcullis_client::portal::Attempt;
use portcullis_client::{Fingerprint, PortalClient, Session};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::input;
use crate::output::{Fields, Output};

#[derive(Debug, Args)]
struct Portal {
    /// The portal's address
    #[arg(long, env = "PORTCULLIS_PORTAL", value_name = "https://ADDRESS:PORT")]
    url: String,
    /// The fingerprint of the CA that the portal has to belong to
    #[arg(long, env = "PORTCULLIS_CA_FINGERPRINT", value_name = "sha256:HEX")]
    ca_fingerprint: Fingerprint,
}

impl Portal {
    fn connect(&self) -> Result<PortalClient> {
        Ok(PortalClient::connect(&self.url, self.ca_fingerprint)?)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Address and fingerprint are what `portcullis device add` printed. They can also be set in the
environment as PORTCULLIS_PORTAL and PORTCULLIS_CA_FINGERPRINT.
Exits with 4 when the login is refused or delayed, or with --sso does not come in time. --status exits with 1 when there is no session.

Examples:
  portcullis login --url https://10.77.0.1:443 --ca-fingerprint sha256:… --username ada
  portcullis login --url https://10.77.0.1:443 --ca-fingerprint sha256:… --recovery-code ABCD-EFGH-…
  portcullis login --sso acme --url https://10.77.0.1:443 --ca-fingerprint sha256:…
  portcullis login --status --url https://10.77.0.1:443 --ca-fingerprint sha256:…")]
pub(super) struct LoginArgs {
    #[command(flatten)]
    portal: Portal,
    /// Only show whether this device has a session
    #[arg(long, conflicts_with_all = ["username", "password_stdin", "totp", "totp_command", "recovery_code", "sso"])]
    status: bool,
    /// Sign in by this provider, in a browser of this device: prints the address to open, and waits
    #[arg(long, value_name = "PROVIDER", conflicts_with_all = ["username", "password_stdin", "totp", "totp_command", "recovery_code"])]
    sso: Option<String>,
    #[arg(long)]
    username: Option<String>,
    /// Take the password from the first line of stdin
    #[arg(long)]
    password_stdin: bool,
    /// The six digits of the authenticator
    #[arg(long, value_name = "CODE")]
    totp: Option<String>,
    /// A shell command that prints the six digits
    #[arg(long, value_name = "COMMAND", conflicts_with = "totp")]
    totp_command: Option<String>,
    /// One of the user's recovery codes, where the authenticator is lost
    #[arg(long, value_name = "CODE", conflicts_with_all = ["totp", "totp_command"])]
    recovery_code: Option<String>,
}

impl LoginArgs {
    pub(super) fn run(self, output: Output) -> Result<Exit> {
        let portal = self.portal.connect()?;
        if self.status {
            return status(&portal, output);
        }
        if let Some(provider) = &self.sso {
            return by_provider(&portal, provider, output);
        }
        let username = match self.username {
            Some(username) => username,
            None => input::ask_openly("Name: ")?,
        };
        let password = input::password(self.password_stdin, "Password: ")?;
        let attempt = portal.begin(&username, &password)?;
        let second = match (self.recovery_code, self.totp, self.totp_command) {
            (Some(code), ..) => Second::Recovery(code),
            (None, Some(code), _) => Second::Totp(code),
            (None, None, Some(command)) => Second::Totp(input::from_command(&command)?),
            (None, None, None) => ask(&attempt, &self.portal.url)?,
        };
        let session = match second {
            Second::Totp(code) => portal.totp(&attempt, code.trim())?,
            Second::Recovery(code) => portal.recovery(&attempt, &code)?,
        };
        logged_in(&session, output)
    }
}

/// The browser does all of it, a further factor included; the terminal waits for the session.
fn by_provider(portal: &PortalClient, provider: &str, output: Output) -> Result<Exit> {
    let before = portal.session()?;
    let page = portal.sign_in_page(provider)?;
    // Beside the answer, which may be JSON.
    eprintln!("Open this in a browser on this device, and sign in there:\n\n  {page}\n");
    let session = portal.wait_for_session(before.as_ref())?;
    logged_in(&session, output)
}

fn logged_in(session: &Session, output: Output) -> Result<Exit> {
    output.answer(
        || json!(session),
        || format!("Logged in.\n\n{}", text_of(session)),
    )?;
    Ok(Exit::Done)
}

pub(super) enum Second {
    Totp(String),
    Recovery(String),
}

/// Asks for what the portal wants. Six digits are the authenticator's; recovery codes are longer.
pub(super) fn ask(attempt: &Attempt, url: &str) -> Result<Second> {
    let prompt = match (attempt.wants("totp"), attempt.wants("recovery-code")) {
        (true, true) => "Code (or a recovery code): ",
        (true, false) => "Code: ",
        (false, true) => "Recovery code: ",
        (false, false) => bail!(
            "this location asks for a factor that a terminal cannot present ({}): open {url} in a browser",
            attempt.factors.join(", ")
        ),
    };
    let code = input::ask(prompt)?;
    let digits = code.trim().len() == 6 && code.trim().bytes().all(|b| b.is_ascii_digit());
    Ok(if digits || !attempt.wants("recovery-code") {
        Second::Totp(code)
    } else {
        Second::Recovery(code)
    })
}

fn status(portal: &PortalClient, output: Output) -> Result<Exit> {
    let session = portal.session()?;
    output.answer(
        || {
            session
                .as_ref()
                .map_or(Value::Null, |session| json!(session))
        },
        || {
            session
                .as_ref()
                .map_or_else(|| "Not logged in.\n".to_owned(), text_of)
        },
    )?;
    Ok(if session.is_some() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exits with 3 when a gateway has not acknowledged it yet.\n\nExample:\n  portcullis logout --url https://10.77.0.1:443 --ca-fingerprint sha256:…"
)]
pub(super) struct LogoutArgs {
    #[command(flatten)]
    portal: Portal,
}

impl LogoutArgs {
    pub(super) fn run(self, output: Output) -> Result<Exit> {
        let ended = self.portal.connect()?.logout()?;
        let pending = ended.is_some_and(|ended| ended.pending);
        let text = match (ended, pending) {
            (None, _) => "There was no session.",
            (Some(_), false) => "Logged out.",
            (Some(_), true) => {
                "Logged out, but PENDING: a gateway has not acknowledged it yet and may still let this device through."
            }
        };
        output.answer(
            || json!({ "ended": ended.is_some(), "pending": pending }),
            || text.to_owned(),
        )?;
        Ok(if pending { Exit::Pending } else { Exit::Done })
    }
}

fn text_of(session: &Session) -> String {
    let mut fields = Fields::default();
    if let Some(reset) = &session.reset {
        let told = format!(
            "by an administrator at {}: {}. If you did not ask for that, tell them now",
            reset.at, reset.reason
        );
        fields = fields.field("Factors were reset", told);
    }
    fields
        .field("User", &session.user)
        .field("Device", &session.device)
        .field("Location", &session.location)
        .field("Level", &session.level)
        .field("Until", &session.deadline)
        .render()
}
