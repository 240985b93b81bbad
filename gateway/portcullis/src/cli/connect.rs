//! `portcullis connect`: the login that comes before a session-key location's tunnel, and the tunnel.

mod account;
mod approve;
mod browser;
mod disconnect;
mod dns;
mod renew;
mod status;
mod tunnel;
mod watch;

pub(super) use self::disconnect::DisconnectArgs;
pub(super) use self::status::{ConnectionArgs, LocationsArgs};
pub(super) use self::watch::reason;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use portcullis_client::{Connection, DeviceState, Granted, KeyPair, PortalClient, Record, Session};
use serde_json::json;

use self::account::{AccountArgs, Login};
use self::dns::{Resolvers, Resolving};
use self::tunnel::Tunnel;
use self::watch::{Ended, Signals};
use crate::exit::{Exit, UsageError};
use crate::output::Output;
use crate::run::capabilities;

/// Where the keys of this device are, unless that is said.
const STATE: &str = "/var/lib/portcullis-connect";
/// The kernel's IFNAMSIZ without the zero at the end.
const INTERFACE_NAME: usize = 15;

#[derive(Debug, Args)]
#[command(after_help = "\
Needs CAP_NET_ADMIN. The device's key is made at first use and stays in the state directory; it is made
known with an invitation (`portcullis device invite` prints the whole command), or by an administrator with
`portcullis device add NAME --user USER --public-key KEY`.
Goes on until the session has ended, or Ctrl-C or SIGTERM ends it, and takes the interface along.
Exits with 4 when the login is refused or delayed, 5 when the server cannot be reached, 6 without
CAP_NET_ADMIN, 7 when the session was ended by somebody or something else, 0 after Ctrl-C.
With --browser and --sso the browser has to be on this machine: the answer comes back to it.
With --renew it logs in anew for a connection that is up in another process, and returns.

Examples:
  portcullis connect vault --server https://vpn.example.org:8443 --ca-fingerprint sha256:… --user ada
  portcullis connect vault --server https://vpn.example.org:8443 --ca-fingerprint sha256:… --user ada \\
    --password-stdin --totp-command 'oathtool --totp --base32 @seed' < password
  portcullis connect vault --browser --server https://vpn.example.org:8443 --ca-fingerprint sha256:… --user ada
  portcullis connect vault --sso acme --server https://vpn.example.org:8443 --ca-fingerprint sha256:… --user ada
  portcullis connect vault --renew --server https://vpn.example.org:8443 --ca-fingerprint sha256:… --user ada")]
pub(super) struct ConnectArgs {
    /// The location
    location: Name,
    #[command(flatten)]
    account: AccountArgs,
    /// Renew the session that is up, in place: no connection through it breaks
    #[arg(long, conflicts_with_all = ["interface", "no_dns"])]
    renew: bool,
    /// The WireGuard interface to make [default: the location's name]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Leave the machine's resolver alone
    #[arg(long)]
    no_dns: bool,
    /// Where the keys of this device are kept
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
        if self.renew {
            return self.renew(output).await;
        }
        let interface = self.interface_name()?;
        let state = DeviceState::open(&self.state)?;
        let (device, new) = state.key(&self.location.0)?;
        let _lock = state.lock(&self.location.0)?;
        if new && self.account.enrol.is_none() {
            tell_new_key(&device, &self.account.user, output)?;
        }
        // Before anything is asked for.
        capabilities::require_for_client()?;
        // What a killed process has left under another name goes too.
        if let Some(left) = state.recorded(&self.location.0)? {
            Tunnel::remove_left(&left.interface, &device).await?;
            state.forget(&self.location.0)?;
        }
        let login = self.account.begin(&self.location, &device, false, output)?;

        // From here on there is something to take down: a signal is obeyed, but does not end the process.
        let mut signals = Signals::listen()?;
        let tunnel = Tunnel::prepare(&interface, &device).await?;
        let result = self
            .connected(login, &state, &tunnel, &mut signals, output)
            .await;
        let removed = tunnel.remove().await;
        let forgotten = state.forget(&self.location.0);
        let ended = result?;
        removed?;
        forgotten?;
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

    /// From the last factor to the session's end. Whatever goes wrong, the session does not outlive it.
    async fn connected(
        &self,
        login: Login,
        state: &DeviceState,
        tunnel: &Tunnel,
        signals: &mut Signals,
        output: Output,
    ) -> Result<Ended> {
        let portal = Arc::clone(&login.portal);
        let connection = match login.finish(Some(&mut *signals), output).await? {
            Granted::New(connection) => Arc::new(connection),
            Granted::Renewed(_) => {
                bail!("the server has renewed a session in place of opening one")
            }
        };
        let ended = self
            .hold(&portal, &connection, state, tunnel, signals, output)
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
        state: &DeviceState,
        tunnel: &Tunnel,
        signals: &mut Signals,
        output: Output,
    ) -> Result<Ended> {
        tunnel.bring_up(connection, &portal.addresses()?).await?;
        let record = |session: &Session| {
            let record = Record {
                interface: tunnel.name().to_owned(),
                session: session.clone(),
            };
            state.record(&self.location.0, &record)
        };
        record(&connection.session)?;
        let dns = self.set_dns(connection, tunnel.name(), output);
        let how = dns.as_ref().map_or("not set", Resolving::how);
        tell_connected(connection, tunnel.name(), how, output)?;
        watch::until_the_end(portal, connection, record, signals, output).await
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
                "Connected to {} as {} on {interface}, {}.",
                session.location,
                session.user,
                tell_deadline(session)
            )
        },
    )?;
    Ok(())
}

fn tell_deadline(session: &Session) -> String {
    format!("until {}", session.deadline)
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
