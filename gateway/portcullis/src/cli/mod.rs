//! The command line. One file per noun.

mod account;
mod audit;
mod certificate;
mod choice;
mod connect;
mod device;
mod doctor;
mod explain;
mod gateway;
mod location;
mod login;
mod policy;
mod revocation;
mod session;
mod ssh_session;
mod status;
mod top;
mod totp;
mod trace;
mod user;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use portcullis_control::level_name;
use portcullis_proto::v1::admin_client::AdminClient;
use tonic::transport::Channel;

use crate::config::Config;
use crate::exit::Exit;
use crate::output::{Format, Output};
use crate::{admin, run};

const EXAMPLES: &str = "\
Examples:
  portcullis up --config /etc/portcullis/portcullis.toml
  portcullis location add office --pool 10.77.0.0/24 --endpoint vpn.example.org:51820 --route 10.9.0.0/24
  portcullis user add ada
  portcullis device add ada-laptop --user ada
  portcullis session revoke --user ada

Exit codes: 0 done, 1 failed, 2 wrong usage, configuration or policy, 3 committed but not yet
acknowledged by every gateway, 4 login refused or delayed, 5 server unreachable, 6 CAP_NET_ADMIN is missing,
7 the session has ended.";

/// A gateway for kernel WireGuard that lets a peer's packets through only while it is logged in.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,

    /// How to print
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub(crate) output: Format,

    /// Control's admin socket
    #[arg(
        long,
        global = true,
        env = "PORTCULLIS_SOCKET",
        default_value = "/run/portcullis/admin.sock",
        value_name = "PATH"
    )]
    socket: PathBuf,

    /// What to log on stderr, for example `debug` or `info,portcullis_agent=debug`
    #[arg(long, global = true, env = "PORTCULLIS_LOG", value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run control, portal and agent of a single gateway in one process
    #[command(after_help = "Example:\n  portcullis up --config /etc/portcullis/portcullis.toml")]
    Up(ConfigArgs),
    /// Run the control service, and the portal where [portal] listen names an address
    #[command(
        after_help = "Example:\n  portcullis control --config /etc/portcullis/portcullis.toml"
    )]
    Control(ConfigArgs),
    /// Run a gateway's agent, or undo what it set up
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  portcullis agent --config /etc/portcullis/portcullis.toml\n  portcullis agent teardown --config /etc/portcullis/portcullis.toml"
    )]
    Agent(AgentCommand),
    /// Check the configuration file
    Config(ConfigCommand),
    /// Add, list, show and remove users; reset their factors
    User(user::UserCommand),
    /// Add, list, show and remove devices
    Device(device::DeviceCommand),
    /// Add, list, show and remove locations
    Location(location::LocationCommand),
    /// Check, compare, try and apply the rules; show what a user may reach
    Policy(policy::PolicyCommand),
    /// List, grant, extend and revoke sessions
    Session(session::SessionCommand),
    /// Add, enrol, list, show and remove gateways; make them enrol again
    Gateway(gateway::GatewayCommand),
    /// Show control's state and its gateways
    #[command(after_help = "Example:\n  portcullis --output json status")]
    Status,
    /// Show devices with their sessions, traffic and drops, live
    Top(top::TopArgs),
    /// Tell what becomes of a device's packets to a destination, why, until when, and what would change it
    Explain(explain::ExplainArgs),
    /// Show first packets of flows, permitted and dropped, as they happen
    Trace(trace::TraceArgs),
    /// Check what this machine needs, and say what to do about what is missing
    Doctor(doctor::DoctorArgs),
    /// Show the audit records, newest first
    Audit(audit::AuditArgs),
    /// Log this device in at the portal
    Login(login::LoginArgs),
    /// Log in to a session-key location and hold its tunnel
    Connect(connect::ConnectArgs),
    /// End `portcullis connect`, from another terminal or a script
    Disconnect(connect::DisconnectArgs),
    /// Show what `portcullis connect` holds: time left, interface, traffic
    Connection(connect::ConnectionArgs),
    /// List the locations that were connected from here
    Locations(connect::LocationsArgs),
    /// Print an authenticator's code, for scripts
    Totp(totp::TotpArgs),
    /// Hold a session for as long as an SSH connection lives: for sshd's ForceCommand
    SshSession(ssh_session::SshSessionArgs),
    /// End this device's session
    Logout(login::LogoutArgs),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
}

impl ConfigArgs {
    fn load(&self) -> Result<Config> {
        Ok(Config::load(&self.config)?)
    }
}

#[derive(Debug, Args)]
struct AgentCommand {
    #[command(subcommand)]
    action: Option<AgentAction>,
    #[command(flatten)]
    run: Option<ConfigArgs>,
}

#[derive(Debug, Subcommand)]
enum AgentAction {
    /// Detach and unpin the programs and remove the interface; the gateway forgets its peers
    Teardown(ConfigArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  portcullis config check --config /etc/portcullis/portcullis.toml"
)]
struct ConfigCommand {
    #[command(subcommand)]
    action: ConfigAction,
}

#[derive(Debug, Subcommand)]
enum ConfigAction {
    /// Read the file as the services would, and change nothing
    Check(ConfigArgs),
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(self, output: &Output) -> Result<Exit> {
        let long_running = matches!(
            &self.command,
            Command::Up(_) | Command::Control(_) | Command::Agent(_)
        );
        run::start_logging(
            self.log.as_deref(),
            if long_running { "info" } else { "warn" },
        )?;
        run::install_crypto_provider();
        match self.command {
            // These use a blocking client.
            Command::Login(args) => args.run(*output),
            Command::Logout(args) => args.run(*output),
            command => runtime()?.block_on(command.run(Context {
                output: *output,
                socket: self.socket,
            })),
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")
}

impl Command {
    async fn run(self, context: Context) -> Result<Exit> {
        match self {
            Self::Up(args) => run::up(args.load()?, context.output).await,
            Self::Control(args) => run::control(args.load()?, context.output).await,
            Self::Agent(command) => command.run(context.output).await,
            Self::Config(ConfigCommand {
                action: ConfigAction::Check(args),
            }) => check(&args, context.output),
            Self::User(command) => command.run(context).await,
            Self::Device(command) => command.run(context).await,
            Self::Location(command) => command.run(context).await,
            Self::Policy(command) => command.run(context).await,
            Self::Session(command) => command.run(context).await,
            Self::Gateway(command) => command.run(context).await,
            Self::Status => status::run(context).await,
            Self::Top(args) => args.run(context).await,
            Self::Explain(args) => args.run(context).await,
            Self::Trace(args) => args.run(context).await,
            Self::Doctor(args) => args.run(context).await,
            Self::Audit(args) => args.run(context).await,
            Self::Connect(args) => args.run(context.output).await,
            Self::Disconnect(args) => args.run(context.output).await,
            Self::Connection(args) => args.run(context.output),
            Self::Locations(args) => args.run(context.output),
            Self::SshSession(args) => args.run(context.output).await,
            Self::Totp(args) => args.run(context.output),
            // Handled before the runtime starts.
            Self::Login(args) => args.run(context.output),
            Self::Logout(args) => args.run(context.output),
        }
    }
}

impl AgentCommand {
    async fn run(self, output: Output) -> Result<Exit> {
        match (self.action, self.run) {
            (Some(AgentAction::Teardown(args)), _) => run::teardown(args.load()?, output).await,
            (None, Some(args)) => run::agent(args.load()?).await,
            (None, None) => Err(crate::exit::UsageError(
                "which configuration? Name it with --config FILE".to_owned(),
            )
            .into()),
        }
    }
}

fn check(args: &ConfigArgs, output: Output) -> Result<Exit> {
    args.load()?;
    let file = args.config.display().to_string();
    output.answer(
        || serde_json::json!({ "ok": true, "file": file }),
        || format!("{file} is in order"),
    )?;
    Ok(Exit::Done)
}

/// What every admin command needs.
struct Context {
    output: Output,
    socket: PathBuf,
}

impl Context {
    async fn admin(&self) -> Result<AdminClient<Channel>> {
        admin::connect(&self.socket).await
    }
}
