//! `portcullis location`.

mod show;

use std::net::IpAddr;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;
use portcullis_proto::v1::{
    AddLocationRequest, FactorNames, Level, Location, NameRequest, SetLocationRequest,
};
use serde_json::json;

use self::show::{json_of, list, text_of};
use super::{Context, revocation};
use crate::exit::{Exit, UsageError};
use crate::time::Span;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portcullis location add office --pool 10.77.0.0/24 --pool fd77::/64 \\
      --endpoint vpn.example.org:51820 --route 10.9.0.0/24 --preset aal2
  portcullis location set office --require phishing-resistant")]
pub(super) struct LocationCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a location: a WireGuard network
    #[command(
        after_help = "Example:\n  portcullis location add office --pool 10.77.0.0/24 --endpoint vpn.example.org:51820 --route 10.9.0.0/24"
    )]
    Add(Add),
    /// Change a location
    #[command(after_help = "\
Changes what is given and nothing else, in force at once. A higher level ends the sessions below it;
a shorter lifetime or idle timeout shortens those there are, and a longer one leaves them alone; factors
are asked of logins from now on. Exits with 3 while a gateway has not confirmed what ended or shrank.

Presets (NIST SP 800-63B-4) set what is not given: `aal2` requires mfa, with a lifetime of 24h and an
idle timeout of 1h at most; `aal3` requires phishing-resistant, with 12h and 15m at most. What is
stricter already stays.

Examples:
  portcullis location set office --preset aal2
  portcullis location set office --require phishing-resistant --wait 30s
  portcullis location set office --factors password,totp --session-lifetime 8h
  portcullis location set office --answer-drops false
  portcullis location set office --roaming false")]
    Set(Set),
    /// List locations
    List,
    /// Show a location
    Show { name: String },
    /// Remove a location that has no devices and gateways left
    Remove { name: String },
}

#[derive(Debug, Args)]
struct Add {
    name: String,
    /// A network for tunnel addresses, its first host being the gateway's; once for IPv4, once for IPv6
    #[arg(long = "pool", value_name = "CIDR", required = true, value_parser = network)]
    pools: Vec<IpNet>,
    /// Where clients find the gateway
    #[arg(long, value_name = "HOST:PORT", value_parser = endpoint)]
    endpoint: String,
    /// How sessions begin; for good
    #[arg(long, value_enum, default_value = "gate")]
    mode: Mode,
    /// The UDP port WireGuard listens on [default: the endpoint's]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    listen_port: Option<u16>,
    /// The tunnel's MTU [default: control's choice]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(576..=65535))]
    mtu: Option<u32>,
    /// A network behind the gateway that clients route into the tunnel; may be given again
    #[arg(long = "route", value_name = "CIDR", value_parser = network)]
    routes: Vec<IpNet>,
    /// A resolver for clients, reachable before login; may be given again
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,
    /// The portal's TCP port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    portal_port: Option<u16>,
    /// An address of the portal, where it is not the gateway's; may be given again
    #[arg(long = "portal", value_name = "IP")]
    portals: Vec<IpAddr>,
    #[command(flatten)]
    login: Login,
    /// Seconds between keepalives, written to client configurations
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16))]
    keepalive: Option<u16>,
    /// Whether senders of dropped openers are told at once, by RST or ICMP, instead of waiting [default: true]
    #[arg(long, value_name = "BOOL")]
    answer_drops: Option<bool>,
    /// Whether plain HTTP of devices that have to log in leads to the portal [default: true]
    #[arg(long, value_name = "BOOL")]
    captive: Option<bool>,
    /// Whether a session goes on when its device is heard from another network [default: true]
    #[arg(long, value_name = "BOOL")]
    roaming: Option<bool>,
}

/// What the location demands of logins.
#[derive(Debug, Args)]
struct Login {
    /// The level that every session has to have [default of a new location: mfa]
    #[arg(long, value_name = "LEVEL", value_enum)]
    require: Option<Require>,
    /// What a login may be proven with, of password, totp, recovery-code, passkey, sso and phone [default of a new
    /// location: all]
    #[arg(long, value_name = "FACTORS", value_delimiter = ',')]
    factors: Option<Vec<String>>,
    /// How long a session lasts at most [default of a new location: 12h]
    #[arg(long, value_name = "DURATION")]
    session_lifetime: Option<Span>,
    /// How long a session lasts without traffic from the device; 0s: as long as its lifetime [default of
    /// a new location: 0s]
    #[arg(long, value_name = "DURATION")]
    idle_timeout: Option<Span>,
    /// Values of an assurance level of NIST SP 800-63B-4 for what is not given
    #[arg(long, value_enum)]
    preset: Option<Preset>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// Tunnels come up with the device's key, and reach the portal alone until a login
    Gate,
    /// No gateway knows a device until it has a session, which has a pre-shared key of its own
    SessionKey,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::SessionKey => "session-key",
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Require {
    /// Two factors of different kinds
    Mfa,
    /// A passkey that verifies its user
    PhishingResistant,
}

impl From<Require> for Level {
    fn from(require: Require) -> Self {
        match require {
            Require::Mfa => Self::Mfa,
            Require::PhishingResistant => Self::PhishingResistant,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Preset {
    /// mfa, 24h and 1h at most
    Aal2,
    /// phishing-resistant, 12h and 15m at most
    Aal3,
}

impl Preset {
    fn as_str(self) -> &'static str {
        match self {
            Self::Aal2 => "aal2",
            Self::Aal3 => "aal3",
        }
    }
}

#[derive(Debug, Args)]
struct Set {
    name: String,
    #[command(flatten)]
    login: Login,
    /// Whether senders of dropped openers are told at once, by RST or ICMP, instead of waiting
    #[arg(long, value_name = "BOOL")]
    answer_drops: Option<bool>,
    /// Whether plain HTTP of devices that have to log in leads to the portal
    #[arg(long, value_name = "BOOL")]
    captive: Option<bool>,
    /// Whether a session goes on when its device is heard from another network
    #[arg(long, value_name = "BOOL")]
    roaming: Option<bool>,
    /// How long to wait for the gateways, where sessions end or get shorter
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    wait: Span,
}

/// Strict, because `10.77.0.9/24` may stand for the host or for the network.
fn network(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text
        .parse()
        .map_err(|_| "not a network in CIDR notation, like 10.77.0.0/24".to_owned())?;
    if net.addr() != net.network() {
        return Err(format!("host bits are set; did you mean {}?", net.trunc()));
    }
    Ok(net)
}

fn endpoint(text: &str) -> Result<String, String> {
    let wrong = || "not HOST:PORT, like vpn.example.org:51820 or [2001:db8::1]:51820".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if host.is_empty()
        || bare_v6
        || port == 0
        || host.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

impl LocationCommand {
    pub(super) async fn run(self, context: Context) -> Result<Exit> {
        match self.action {
            Action::Add(args) => add(args, context).await,
            Action::Set(args) => set(args, context).await,
            Action::List => list(context).await,
            Action::Show { name } => {
                let location = context
                    .admin()
                    .await?
                    .get_location(NameRequest { name })
                    .await?
                    .into_inner();
                context
                    .output
                    .answer(|| json_of(&location), || text_of(&location))?;
                Ok(Exit::Done)
            }
            Action::Remove { name } => {
                let done = format!("Location {name} is removed.");
                context
                    .admin()
                    .await?
                    .remove_location(NameRequest { name: name.clone() })
                    .await?;
                context
                    .output
                    .answer(|| json!({ "removed": name }), || done)?;
                Ok(Exit::Done)
            }
        }
    }
}

async fn add(args: Add, context: Context) -> Result<Exit> {
    let preset = args.login.preset.map_or("", Preset::as_str).to_owned();
    let request = AddLocationRequest {
        location: Some(Location::from(args)),
        preset,
    };
    let location = context
        .admin()
        .await?
        .add_location(request)
        .await?
        .into_inner();
    context.output.answer(
        || json_of(&location),
        || {
            format!(
                "Location {} is added.\n\n{}",
                location.name,
                text_of(&location)
            )
        },
    )?;
    Ok(Exit::Done)
}

async fn set(args: Set, context: Context) -> Result<Exit> {
    let Login {
        require,
        factors,
        session_lifetime,
        idle_timeout,
        preset,
    } = args.login;
    let request = SetLocationRequest {
        name: args.name,
        answer_drops: args.answer_drops,
        captive: args.captive,
        roaming: args.roaming,
        require: require.map(|require| Level::from(require).into()),
        factors: factors.map(|names| FactorNames { names }),
        session_lifetime_ms: session_lifetime.map(Span::as_millis),
        idle_timeout_ms: idle_timeout.map(Span::as_millis),
        preset: preset.map_or("", Preset::as_str).to_owned(),
        wait_ms: args.wait.as_millis(),
    };
    let nothing = SetLocationRequest {
        name: request.name.clone(),
        wait_ms: request.wait_ms,
        ..SetLocationRequest::default()
    };
    if request == nothing {
        let text = "what is to be changed? See `portcullis location set --help`";
        return Err(UsageError(text.to_owned()).into());
    }
    let location = context
        .admin()
        .await?
        .set_location(request)
        .await?
        .into_inner();
    let Some(status) = &location.revocation else {
        context
            .output
            .answer(|| json_of(&location), || text_of(&location))?;
        return Ok(Exit::Done);
    };
    context.output.answer(
        || {
            let mut json = json_of(&location);
            json["revocation"] = revocation::json(status);
            json["revocation"]["shortened"] = status.shortened.into();
            json
        },
        || {
            let shortened = match status.shortened {
                0 => String::new(),
                1 => "1 session ends sooner.\n".to_owned(),
                sessions => format!("{sessions} sessions end sooner.\n"),
            };
            format!(
                "{}\n{shortened}{}",
                text_of(&location),
                revocation::text(status)
            )
        },
    )?;
    Ok(revocation::exit(status))
}

/// What is left out stays zero, which asks control for its default.
impl From<Add> for Location {
    fn from(args: Add) -> Self {
        let port = args
            .endpoint
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        Self {
            name: args.name,
            mode: args.mode.as_str().to_owned(),
            pools: strings(args.pools),
            listen_port: args.listen_port.or(port).unwrap_or(0).into(),
            endpoint: args.endpoint,
            mtu: args.mtu.unwrap_or(0),
            routes: strings(args.routes),
            dns: strings(args.dns),
            portal_port: args.portal_port.unwrap_or(0).into(),
            portals: strings(args.portals),
            session_lifetime_ms: args.login.session_lifetime.map_or(0, Span::as_millis),
            idle_timeout_ms: args.login.idle_timeout.map_or(0, Span::as_millis),
            require: args.login.require.map_or(Level::None, Level::from).into(),
            factors: args.login.factors.unwrap_or_default(),
            persistent_keepalive_s: args.keepalive.unwrap_or(0).into(),
            answer_drops: args.answer_drops,
            captive: args.captive,
            roaming: args.roaming,
            ..Self::default()
        }
    }
}

fn strings<T: ToString>(items: Vec<T>) -> Vec<String> {
    items.iter().map(T::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_strictly() {
        assert!(network("10.77.0.0/24").is_ok());
        assert!(network("fd77::/64").is_ok());
        assert!(
            network("10.77.0.1/24")
                .unwrap_err()
                .contains("10.77.0.0/24")
        );
        for bad in ["10.77.0.0", "10.77.0.0/33", "office", ""] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn endpoints_are_read_strictly() {
        for good in [
            "vpn.example.org:51820",
            "192.0.2.1:51820",
            "[2001:db8::1]:51820",
        ] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "vpn",
            "vpn:",
            ":51820",
            "vpn:0",
            "vpn:65536",
            "2001:db8::1:51820",
            "a b:1",
        ] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }
}
