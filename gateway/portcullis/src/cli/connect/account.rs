//! Who logs in, where, and with what.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use portcullis_client::connect::Granted;
use portcullis_client::portal::Attempt;
use portcullis_client::{Fingerprint, KeyPair, PortalClient, PortalError};

use serde_json::json;

use super::Name;
use super::approve::ask_phone;
use super::browser::SignIn;
use super::watch::Signals;
use crate::cli::login::{Second, ask};
use crate::input;
use crate::output::Output;

#[derive(Debug, Args)]
pub(super) struct AccountArgs {
    /// The server's address outside of the tunnel
    #[arg(long, env = "PORTCULLIS_SERVER", value_name = "https://ADDRESS:PORT")]
    server: String,
    /// The fingerprint of the CA that the server has to belong to
    #[arg(long, env = "PORTCULLIS_CA_FINGERPRINT", value_name = "sha256:HEX")]
    ca_fingerprint: Fingerprint,
    /// The name to log in with
    #[arg(long, env = "PORTCULLIS_USER", value_name = "NAME")]
    pub(super) user: String,
    /// Make this device's key known with an invitation: what `portcullis device invite` printed
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub(super) enrol: Option<String>,
    /// What to call the device then [default: this machine's name]
    #[arg(long, value_name = "NAME", requires = "enrol")]
    name: Option<String>,
    /// Take the password from the first line of stdin
    #[arg(long)]
    password_stdin: bool,
    /// Take the password from the first line of a file that nobody else can read
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
    /// A shell command that prints the six digits of the authenticator
    #[arg(long, value_name = "COMMAND")]
    totp_command: Option<String>,
    /// Be approved by phone: shows a QR code and a number
    #[arg(long, conflicts_with = "totp_command")]
    phone: bool,
    /// Use a passkey in this machine's browser, in place of the password and everything else
    #[arg(long, conflicts_with_all = ["password_stdin", "password_file", "totp_command", "phone"])]
    browser: bool,
    /// Sign in by this provider, in this machine's browser, in place of the password
    #[arg(long, value_name = "PROVIDER", conflicts_with_all = ["password_stdin", "password_file", "phone", "browser"])]
    sso: Option<String>,
}

/// A login whose last factor is there, and not yet sent.
pub(super) struct Login {
    pub(super) portal: Arc<PortalClient>,
    last: Last,
}

/// The last factor.
enum Last {
    Typed(Attempt, Second),
    ByPhone(Attempt),
    /// All of them.
    InBrowser {
        sign_in: Box<SignIn>,
        totp_command: Option<String>,
    },
}

impl AccountArgs {
    /// The steps before the last one, which opens a session, or renews the one that there is.
    pub(super) fn begin(
        &self,
        location: &Name,
        device: &KeyPair,
        renew: bool,
        output: Output,
    ) -> Result<Login> {
        let filed = self.password_file.as_deref();
        let filed = filed.map(input::from_private_file).transpose()?;
        let portal = Arc::new(PortalClient::connect(&self.server, self.ca_fingerprint)?);
        if let Some(invitation) = &self.enrol {
            let called = self.name.clone().unwrap_or_else(machine);
            portal.enrol_device(&location.0, device, &self.user, invitation, &called)?;
            output.line(
                || json!({ "event": "enrolled", "name": called }),
                || format!("This device is known as {called:?} now."),
            )?;
        }
        if self.browser || self.sso.is_some() {
            let provider = self.sso.as_deref();
            let sign_in = SignIn::begin(&portal, &location.0, device, &self.user, provider, renew)
                .inspect_err(|error| {
                    if !renew && matches!(error.downcast_ref(), Some(PortalError::Refused(_))) {
                        output.note(&hint(device, &self.user, &location.0));
                    }
                })?;
            let last = Last::InBrowser {
                sign_in: Box::new(sign_in),
                totp_command: self.totp_command.clone(),
            };
            return Ok(Login { portal, last });
        }
        let password = match filed {
            Some(password) => password,
            None => input::password(self.password_stdin, "Password: ")?.into(),
        };
        let begun = portal.begin_connect(&location.0, device, &self.user, &password, renew);
        if !renew && matches!(begun, Err(PortalError::Refused(_))) {
            output.note(&hint(device, &self.user, &location.0));
        }
        let attempt = begun?;
        let last = self.last(attempt)?;
        Ok(Login { portal, last })
    }

    fn last(&self, attempt: Attempt) -> Result<Last> {
        let can = attempt.wants("phone");
        match (&self.totp_command, self.phone) {
            (Some(command), _) => {
                let code = input::from_command(command)?;
                Ok(Last::Typed(attempt, Second::Totp(code)))
            }
            (None, false) if attempt.can_be_typed() || !can => {
                let typed = ask(&attempt, &self.server)?;
                Ok(Last::Typed(attempt, typed))
            }
            (None, _) if !can => bail!(PortalError::Refused(
                "this location takes no approval by phone".to_owned()
            )),
            (None, _) => Ok(Last::ByPhone(attempt)),
        }
    }
}

impl Login {
    /// The last factor. Signals that are listened for end the wait for somebody's approval.
    pub(super) async fn finish(
        self,
        signals: Option<&mut Signals>,
        output: Output,
    ) -> Result<Granted> {
        let portal = &self.portal;
        Ok(match self.last {
            Last::Typed(attempt, typed) => typed.connect(portal, &attempt)?,
            Last::ByPhone(attempt) => ask_phone(portal, &attempt, signals, output).await?,
            Last::InBrowser {
                sign_in,
                totp_command,
            } => {
                let command = totp_command.as_deref();
                sign_in.finish(portal, command, signals, output).await?
            }
        })
    }
}

impl Second {
    pub(super) fn connect(
        self,
        portal: &PortalClient,
        attempt: &Attempt,
    ) -> Result<Granted, PortalError> {
        match self {
            Self::Totp(code) => portal.connect_by_totp(attempt, code.trim()),
            Self::Recovery(code) => portal.connect_by_recovery(attempt, &code),
        }
    }
}

fn machine() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    match name.is_empty() {
        true => "computer".to_owned(),
        false => name.into_owned(),
    }
}

/// The server answers for devices that it does not know as it does for wrong passwords.
fn hint(device: &KeyPair, user: &str, location: &str) -> String {
    format!(
        "The server does not say whether it knows this device. If it may not, an administrator invites it:\n  \
         portcullis device invite --user {user} --location {location}\nor adds its key:\n  \
         portcullis device add NAME --user {user} --location {location} --public-key {}",
        device.public()
    )
}
