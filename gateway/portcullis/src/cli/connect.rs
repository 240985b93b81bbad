//! `portcullis connect`: the login that comes before a session-key location's tunnel, and the tunnel.

mod disconnect;
mod dns;
mod tunnel;
mod watch;

pub(super) use self::disconnect::DisconnectArgs;
pub(super) use self::watch::reason;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use portcullis_client::portal::Attempt;
use portcullis_client::{Connection, DeviceState, Fingerprint, KeyPair, PortalClient, PortalError};
use serde_json::json;

use self::dns::{Resolvers, Resolving};
use self::tunnel::Tunnel;
use self::watch::{Ended, Signals};
use super::login::{Second, ask};
use crate::exit::{Exit, UsageError};
use crate::input;
use crate::output::Output;
use crate::run::capabilities;

/// Where the device's key is, unless that is said.
const STATE: &str = "/var/lib/portcullis-connect";
/// The kernel's IFNAMSIZ without the zero at the end.
const INTERFACE_NAME: usize = 15;

#[derive(Debug, Args)]
#[command(after_help = "\
Needs CAP_NET_ADMIN. The device's key is made at first use and stays in the state directory; an
administrator makes it known with `portcullis device add NAME --user USER --public-key KEY`.
Goes on until the session has ended, or Ctrl-C or SIGTERM ends it, and takes the interface along.
Exits with 4 when the login is refused or delayed, 5 when the server cannot be reached, 6 without
CAP_NET_ADMIN, 7 when the session was ended by somebody or something else, 0 after Ctrl-C.

Examples:
  portcullis connect vault --server https://vpn.example.org:8443 --ca-fingerprint sha256:… --user ada
  portcullis connect vault --server https://vpn.example.org:8443 --ca-fingerprint sha256:… --user ada \\
    --password-stdin --totp-command 'oathtool --totp --base32 @seed' < password")]
pub(super) struct ConnectArgs {
    /// The location
    location: Name,
    /// The server's address outside of the tunnel
    #[arg(long, env = "PORTCULLIS_SERVER", value_name = "https://ADDRESS:PORT")]
    server: String,
    /// The fingerprint of the CA that the server has to belong to
    #[arg(long, env = "PORTCULLIS_CA_FINGERPRINT", value_name = "sha256:HEX")]
    ca_fingerprint: Fingerprint,
    /// The name to log in with
    #[arg(long, value_name = "NAME")]
    user: String,
    /// Take the password from the first line of stdin
    #[arg(long)]
    password_stdin: bool,
    /// Take the password from the first line of a file that nobody else can read
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
    /// A shell command that prints the six digits of the authenticator
    #[arg(long, value_name = "COMMAND")]
    totp_command: Option<String>,
    /// The WireGuard interface to make [default: the location's name]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Leave the machine's resolver alone
    #[arg(long)]
    no_dns: bool,
    /// Where the device's key is kept
    #[arg(
        long,
        env = "PORTCULLIS_CONNECT_STATE",
        default_value = STATE,
        value_name = "DIR"
    )]
    state: PathBuf,
}

/// A location's name, which is a file's name here too.
#[derive(Clone, Debug)]
struct Name(String);

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
        let first = text.chars().next();
        if !first.is_some_and(|c| c.is_ascii_alphanumeric())
            || text.len() > 64
            || !text.chars().all(plain)
        {
            return Err(
                "a location's name has letters, digits and ._-@+, and begins with one of the first two"
                    .to_owned(),
            );
        }
        Ok(Self(text.to_owned()))
    }
}

impl ConnectArgs {
    pub(super) async fn run(self, output: Output) -> Result<Exit> {
        let interface = self.interface_name()?;
        let state = DeviceState::open(&self.state)?;
        let (device, new) = state.key()?;
        let _lock = state.lock(&self.location.0)?;
        if new {
            tell_new_key(&device, &self.user, output)?;
        }
        // Before anything is asked for.
        capabilities::require_for_client()?;
        let filed = self.password_file.as_deref();
        let filed = filed.map(input::from_private_file).transpose()?;
        let portal = Arc::new(PortalClient::connect(&self.server, self.ca_fingerprint)?);
        let password = match filed {
            Some(password) => password,
            None => input::password(self.password_stdin, "Password: ")?.into(),
        };
        let begun = portal.begin_connect(&self.location.0, &device, &self.user, &password);
        if matches!(begun, Err(PortalError::Refused(_))) {
            output.note(&hint(&device, &self.user));
        }
        let attempt = begun?;
        let second = self.second(&attempt)?;

        // From here on there is something to take down: a signal is obeyed, but does not end the process.
        let mut signals = Signals::listen()?;
        let tunnel = Tunnel::prepare(&interface, &device).await?;
        let result = self
            .connected(&portal, &attempt, second, &tunnel, &mut signals, output)
            .await;
        let removed = tunnel.remove().await;
        let ended = result?;
        removed?;
        ended.tell(&interface, output)
    }

    fn interface_name(&self) -> Result<String> {
        let name = self.interface.as_ref().unwrap_or(&self.location.0);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty()
            || name.len() > INTERFACE_NAME
            || name == "."
            || name == ".."
            || !name.chars().all(plain)
        {
            bail!(UsageError(format!(
                "`{name}` names no interface (at most {INTERFACE_NAME} letters, digits, - _ and .): name one with --interface"
            )));
        }
        Ok(name.clone())
    }

    fn second(&self, attempt: &Attempt) -> Result<Second> {
        match &self.totp_command {
            Some(command) => Ok(Second::Totp(input::from_command(command)?)),
            None => ask(attempt, &self.server),
        }
    }

    /// From the last factor to the session's end. Whatever goes wrong, the session does not outlive it.
    async fn connected(
        &self,
        portal: &Arc<PortalClient>,
        attempt: &Attempt,
        second: Second,
        tunnel: &Tunnel,
        signals: &mut Signals,
        output: Output,
    ) -> Result<Ended> {
        let connection = Arc::new(match second {
            Second::Totp(code) => portal.connect_by_totp(attempt, code.trim())?,
            Second::Recovery(code) => portal.connect_by_recovery(attempt, &code)?,
        });
        let ended = self
            .hold(portal, &connection, tunnel, signals, output)
            .await;
        if !matches!(ended, Ok(Ended::Elsewhere { .. })) {
            // The packets stop here at once, also where the server cannot be told.
            let down = tunnel.take_down().await;
            let told = portal.disconnect(&connection);
            if ended.is_ok() {
                down?;
                let told =
                    told.context("the server could not be told: the session ends at its deadline")?;
                return Ok(Ended::Here {
                    pending: told.is_some_and(|told| told.pending),
                });
            }
        }
        ended
    }

    async fn hold(
        &self,
        portal: &Arc<PortalClient>,
        connection: &Arc<Connection>,
        tunnel: &Tunnel,
        signals: &mut Signals,
        output: Output,
    ) -> Result<Ended> {
        tunnel.bring_up(connection).await?;
        let dns = self.set_dns(connection, tunnel.name(), output);
        let how = dns.as_ref().map_or("not set", Resolving::how);
        tell_connected(connection, tunnel.name(), how, output)?;
        watch::until_the_end(portal, connection, signals, output).await
    }

    /// A connection without it is still one.
    fn set_dns(
        &self,
        connection: &Connection,
        interface: &str,
        output: Output,
    ) -> Option<Resolving> {
        let servers = &connection.tunnel.dns;
        let set = match self.no_dns {
            true => None,
            false => Resolvers::of_this_machine()
                .set(interface, servers)
                .unwrap_or_else(|error| {
                    output.note(&format!("{error:#}"));
                    None
                }),
        };
        if set.is_none() && !servers.is_empty() {
            output.note(&format!(
                "DNS was not set: the location's resolver is {}.",
                servers.join(", ")
            ));
        }
        set
    }
}

/// The server answers for devices that it does not know as it does for wrong passwords.
fn hint(device: &KeyPair, user: &str) -> String {
    format!(
        "The server does not say whether it knows this device. If it may not, an administrator adds it:\n  \
         portcullis device add NAME --user {user} --public-key {}",
        device.public()
    )
}

fn tell_new_key(device: &KeyPair, user: &str, output: Output) -> Result<()> {
    output.line(
        || json!({ "event": "key_made", "public_key": device.public().to_string() }),
        || {
            format!(
                "Made this device's key. Unless it is known already, an administrator adds it: \
                 portcullis device add NAME --user {user} --public-key {}",
                device.public()
            )
        },
    )?;
    Ok(())
}

fn tell_connected(
    connection: &Connection,
    interface: &str,
    dns: &str,
    output: Output,
) -> Result<()> {
    let session = &connection.session;
    output.line(
        || json!({ "event": "connected", "interface": interface, "session": session, "dns": dns }),
        || {
            format!(
                "Connected to {} as {} on {interface}, until {}.",
                session.location, session.user, session.deadline
            )
        },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locations_name_is_a_files_name() {
        for good in ["vault", "hq.example", "a@b+c_d-e", "7"] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "../vault",
            "a/b",
            "-x",
            "a b",
            &"x".repeat(65),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
