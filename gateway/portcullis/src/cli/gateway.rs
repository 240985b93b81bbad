//! `portcullis gateway`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use gateway_common::shield::ShieldReason;
use gateway_common::verdict::{Reason, Verdict};
use portcullis_client::Fingerprint;
use portcullis_proto::v1::{
    AddGatewayRequest, AddGatewayResponse, Gateway, ListRequest, NameRequest, ReasonCount,
    RemoveGatewayRequest,
};
use serde_json::{Value, json};

use super::{Context, choice, revocation};
use crate::config::Config;
use crate::exit::Exit;
use crate::output::{Fields, Table};
use crate::time;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portcullis gateway add gw1 --location office
  portcullis gateway enroll --config portcullis.toml --control https://control.example.org:7443 \\
      --token TOKEN --ca-fingerprint sha256:…
  portcullis gateway token gw1
  portcullis gateway list")]
pub(super) struct GatewayCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a gateway and print its one-time enrolment token
    #[command(after_help = "Example:\n  portcullis gateway add gw1 --location office")]
    Add {
        name: String,
        /// The location it serves; may be left out where there is only one
        #[arg(long)]
        location: Option<String>,
    },
    /// On the gateway itself: exchange the token for a certificate
    #[command(after_help = "\
Control's certificate is checked against the CA's fingerprint before the token is sent.

Example:
  portcullis gateway enroll --config portcullis.toml --control https://control.example.org:7443 \\
      --token TOKEN --ca-fingerprint sha256:…")]
    Enroll(Enroll),
    /// List gateways
    List,
    /// Show a gateway
    Show { name: String },
    /// Print a new enrolment token; enrolling with it replaces the certificate there is
    #[command(after_help = "Example:\n  portcullis gateway token gw1")]
    Token { name: String },
    /// Remove a gateway; control refuses it once it has let go of its peers
    #[command(after_help = "\
The gateway is told to let go of every peer. Until it has acknowledged that, or the last deadline
that it can hold has passed, it is listed as being removed, and the command exits with 3.

Examples:
  portcullis gateway remove gw1
  portcullis gateway remove gw1 --force")]
    Remove {
        name: String,
        /// Forget it at once, also when it still lets peers through
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
struct Enroll {
    /// The configuration file of this gateway
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Where control listens for gateways
    #[arg(long, value_name = "URL")]
    control: String,
    /// The one-time token of `portcullis gateway add` or `portcullis gateway token`
    #[arg(
        long,
        env = "PORTCULLIS_TOKEN",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    token: String,
    /// The CA's fingerprint, from `portcullis gateway add` or `portcullis status`
    #[arg(long, value_name = "sha256:HEX")]
    ca_fingerprint: Fingerprint,
}

impl GatewayCommand {
    pub(super) async fn run(self, context: Context) -> Result<Exit> {
        match self.action {
            Action::Add { name, location } => add(name, location, context).await,
            Action::Enroll(args) => enroll(args, context).await,
            Action::List => list(context).await,
            Action::Show { name } => {
                let gateway = context
                    .admin()
                    .await?
                    .get_gateway(NameRequest { name })
                    .await?
                    .into_inner();
                context
                    .output
                    .answer(|| json_of(&gateway), || text_of(&gateway))?;
                Ok(Exit::Done)
            }
            Action::Token { name } => {
                let request = NameRequest { name };
                let answer = context.admin().await?.gateway_token(request).await?;
                print_token("The token is for gateway", answer.into_inner(), &context)
            }
            Action::Remove { name, force } => remove(name, force, context).await,
        }
    }
}

async fn remove(name: String, force: bool, context: Context) -> Result<Exit> {
    let request = RemoveGatewayRequest {
        name: name.clone(),
        force,
    };
    let status = context.admin().await?.remove_gateway(request).await?;
    let status = status.into_inner();
    let until = time::text(status.open_until_ms);
    let removed = force || revocation::is_done(&status);
    if removed && status.open_until_ms != 0 {
        context.output.note(&format!(
            "warning: gateway {name} was not waited for. If it still runs, every peer whose session it holds passes there until that session's deadline, {until} at the latest; no revocation reaches it. Stop it with `portcullis agent teardown`."
        ));
    }
    context.output.answer(
        || {
            let mut answer = revocation::json(&status);
            answer["removed"] = removed.then_some(name.as_str()).into();
            answer["done"] = removed.into();
            answer["open_until"] = time::json(status.open_until_ms);
            answer
        },
        || {
            if removed {
                format!("Gateway {name} is removed.")
            } else {
                format!(
                    "Gateway {name} is being removed, PENDING: it has not acknowledged that it holds no peer. Sessions that it holds pass there until their deadlines, {until} at the latest; then it is forgotten. To forget it now: portcullis gateway remove {name} --force"
                )
            }
        },
    )?;
    Ok(if removed { Exit::Done } else { Exit::Pending })
}

async fn add(name: String, location: Option<String>, context: Context) -> Result<Exit> {
    let mut admin = context.admin().await?;
    let location = choice::location(&mut admin, location).await?;
    let request = AddGatewayRequest { name, location };
    let answer = admin.add_gateway(request).await?.into_inner();
    print_token("Added: gateway", answer, &context)
}

/// The token is shown this once.
fn print_token(what: &str, answer: AddGatewayResponse, context: &Context) -> Result<Exit> {
    let gateway = answer.gateway.unwrap_or_default();
    context.output.answer(
        || {
            json!({
                "gateway": json_of(&gateway),
                "token": answer.token,
                "ca_fingerprint": answer.ca_fingerprint,
                "control_url": answer.control_url,
            })
        },
        || {
            format!(
                "{what} {}. Within the hour, on the gateway:\n\n\
                 portcullis gateway enroll --config FILE --control {} --token {} --ca-fingerprint {}\n\n\
                 The token works once and is not shown again.\n",
                gateway.name, answer.control_url, answer.token, answer.ca_fingerprint
            )
        },
    )?;
    Ok(Exit::Done)
}

async fn enroll(args: Enroll, context: Context) -> Result<Exit> {
    let config = Config::load(&args.config)?.agent;
    let enrolled = portcullis_agent::enroll::enroll(
        &args.control,
        &args.token,
        &args.ca_fingerprint.to_string(),
        &config.state_dir,
    )
    .await
    .with_context(|| format!("cannot enrol at {}", args.control))?;
    context.output.answer(
        || json!({ "gateway": enrolled.gateway, "location": enrolled.location, "control": args.control }),
        || {
            format!(
                "This machine is gateway {} of {}. Start it with `portcullis agent --config {}`.\n",
                enrolled.gateway,
                enrolled.location,
                args.config.display()
            )
        },
    )?;
    Ok(Exit::Done)
}

async fn list(context: Context) -> Result<Exit> {
    let gateways = context
        .admin()
        .await?
        .list_gateways(ListRequest {})
        .await?
        .into_inner()
        .gateways;
    context.output.answer(
        || json!({ "gateways": gateways.iter().map(json_of).collect::<Vec<_>>() }),
        || table(&gateways),
    )?;
    Ok(Exit::Done)
}

pub(super) fn table(gateways: &[Gateway]) -> String {
    let mut table = Table::new(&[
        "GATEWAY",
        "LOCATION",
        "STATE",
        "REVISION",
        "LAST SEEN",
        "SHIELD",
    ]);
    for gateway in gateways {
        table.row([
            gateway.name.clone(),
            gateway.location.clone(),
            state(gateway).to_owned(),
            gateway.applied_revision.to_string(),
            time::text(gateway.last_seen_ms),
            shield(gateway),
        ]);
    }
    table.render("No gateways: portcullis gateway add NAME --location LOCATION")
}

/// How many messages its shield has dropped; "-" for one that has none, or nothing to tell yet.
fn shield(gateway: &Gateway) -> String {
    let mut counts = gateway
        .reasons
        .iter()
        .filter(|count| count.direction == portcullis_agent::datapath::SHIELD_REPORTED_AS)
        .peekable();
    if counts.peek().is_none() {
        return "-".to_owned();
    }
    let dropped = counts
        .filter(|count| {
            u8::try_from(count.reason)
                .ok()
                .and_then(ShieldReason::from_number)
                .is_some_and(|reason| reason.verdict() == Verdict::Drop)
        })
        .fold(0, |all: u64, count| all.saturating_add(count.packets));
    format!("{dropped} dropped")
}

fn state(gateway: &Gateway) -> &'static str {
    if gateway.removing {
        return "BEING REMOVED";
    }
    match (gateway.enrolled, gateway.connected, gateway.in_sync) {
        (false, ..) => "not enrolled",
        (true, false, _) => "NOT CONNECTED",
        (true, true, false) => "behind",
        (true, true, true) => "in sync",
    }
}

pub(super) fn json_of(gateway: &Gateway) -> Value {
    let reasons: Vec<Value> = gateway
        .reasons
        .iter()
        .map(|count| {
            json!({
                "reason": reason(count),
                "direction": direction(count.direction),
                "packets": count.packets,
            })
        })
        .collect();
    json!({
        "id": gateway.id,
        "name": gateway.name,
        "location": gateway.location,
        "public_key": (!gateway.public_key.is_empty()).then(|| STANDARD.encode(&gateway.public_key)),
        "enrolled": gateway.enrolled,
        "connected": gateway.connected,
        "applied_revision": gateway.applied_revision,
        "in_sync": gateway.in_sync,
        "removing": gateway.removing,
        "open_until": time::json(gateway.open_until_ms),
        "last_seen": time::json(gateway.last_seen_ms),
        "reasons": reasons,
    })
}

fn text_of(gateway: &Gateway) -> String {
    let mut fields = Fields::default()
        .field("Name", &gateway.name)
        .field("Id", &gateway.id)
        .field("Location", &gateway.location)
        .field("State", state(gateway))
        .field("Public key", STANDARD.encode(&gateway.public_key))
        .field("Revision", gateway.applied_revision)
        .field("Last seen", time::text(gateway.last_seen_ms));
    if gateway.removing {
        fields = fields.field("Forgotten", time::text(gateway.open_until_ms));
    }
    let mut text = fields.render();
    let mut table = Table::new(&["VERDICT", "DIRECTION", "PACKETS"]);
    for count in gateway.reasons.iter().filter(|count| count.packets != 0) {
        table.row([
            reason(count),
            direction(count.direction).to_owned(),
            count.packets.to_string(),
        ]);
    }
    text.push('\n');
    text.push_str(&table.render("No packets counted yet."));
    text
}

/// A gateway of a newer version may count for reasons this one has no name for.
fn reason(count: &ReasonCount) -> String {
    let name = u8::try_from(count.reason)
        .ok()
        .and_then(|number| match count.direction {
            portcullis_agent::datapath::SHIELD_REPORTED_AS => {
                ShieldReason::from_number(number).map(ShieldReason::name)
            }
            _ => Reason::from_number(number).map(Reason::name),
        });
    name.map_or_else(|| format!("reason {}", count.reason), str::to_owned)
}

fn direction(number: u32) -> &'static str {
    match number {
        0 => "from_peer",
        1 => "to_peer",
        _ => "shield",
    }
}

#[cfg(test)]
mod tests {
    use portcullis_proto::v1::ReasonCount;

    use super::*;

    #[test]
    fn a_shield_may_claim_to_have_dropped_any_number() {
        let drops = (0..=u8::MAX)
            .filter_map(ShieldReason::from_number)
            .filter(|reason| reason.verdict() == Verdict::Drop);
        let gateway = Gateway {
            reasons: drops
                .map(|reason| ReasonCount {
                    reason: reason as u32,
                    direction: portcullis_agent::datapath::SHIELD_REPORTED_AS,
                    packets: u64::MAX,
                })
                .collect(),
            ..Gateway::default()
        };
        assert!(gateway.reasons.len() > 1, "several to add");
        assert_eq!(shield(&gateway), format!("{} dropped", u64::MAX));
    }
}
