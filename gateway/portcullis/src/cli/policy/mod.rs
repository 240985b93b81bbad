//! `portcullis policy`.

mod changes;
mod eval;
mod outcome;
mod shadow;
mod versions;

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use portcullis_control::policy;
use portcullis_proto::v1::{ApplyPolicyRequest, PolicySource};
use serde_json::json;

use super::{Context, revocation};
use crate::exit::{Exit, UsageError};
use crate::output::Output;
use crate::refused::Refused;
use crate::time::Span;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portcullis policy check policy.toml
  portcullis policy diff policy.toml
  portcullis policy shadow policy.toml --for 10m
  portcullis policy apply policy.toml
  portcullis policy show --user ada")]
pub(super) struct PolicyCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Read a policy file and tell everything that is wrong with it; needs no service
    #[command(after_help = "\
Exits with 2 when the file is refused.

Examples:
  portcullis policy check policy.toml
  portcullis policy check --users policy.toml")]
    Check {
        #[command(flatten)]
        file: File,
        /// Check it against control's users and groups as well
        #[arg(long)]
        users: bool,
    },
    /// Make a file the live policy, everywhere at once, and wait for every gateway to confirm it
    #[command(after_help = "\
Live flows obey it from their next packet. Exits with 2 when the file is refused (nothing has
changed then), with 3 while a gateway has not confirmed it: it is applied and stays so.

Example:
  portcullis policy apply policy.toml --wait 30s")]
    Apply {
        #[command(flatten)]
        file: File,
        /// How long to wait for the gateways
        #[arg(long, value_name = "DURATION", default_value = "5s")]
        wait: Span,
    },
    /// Show the live policy, or what a user may reach and with what
    #[command(after_help = "\
Examples:
  portcullis policy show
  portcullis policy show --user ada
  portcullis policy show --source --number 3 > old.toml")]
    Show(versions::Show),
    /// Show who would gain and who would lose what
    #[command(after_help = "Example:\n  portcullis policy diff policy.toml")]
    Diff {
        #[command(flatten)]
        file: File,
    },
    /// List every policy that was applied, newest first
    #[command(after_help = "Example:\n  portcullis policy history")]
    History,
    /// Run a candidate beside the live policy and count what it would drop, by user
    #[command(after_help = "\
Judges packets that open a flow while it runs. Flows that are open already are not seen.

Example:
  portcullis policy shadow policy.toml --for 10m")]
    Shadow(shadow::Shadow),
    /// Decide about packets in a file, one answer a line; needs no service
    #[command(after_help = "\
Each line of the vectors is the first packet of a new flow:
  {\"peer\":{\"address\":\"10.77.0.2\",\"user\":\"ops1\",\"groups\":[\"sre\"]},
   \"session\":{\"level\":\"mfa\",\"age_s\":600,\"idle_s\":0,\"lifetime_s\":43200,\"idle_timeout_s\":3600},
   \"packet\":{\"direction\":\"from-peer\",\"protocol\":\"tcp\",\"remote\":\"10.1.0.5\",
             \"peer_port\":40000,\"remote_port\":22}}
and each answer {\"verdict\":\"pass\"|\"drop\",\"reason\":\"…\",\"rule\":\"name\"|null}.

Examples:
  portcullis policy eval --policy policy.toml --vectors vectors.jsonl
  sudo portcullis policy eval --policy policy.toml --vectors vectors.jsonl --engine kernel")]
    Eval(eval::Eval),
}

/// A policy file.
#[derive(Debug, Args)]
struct File {
    /// The policy, TOML
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl File {
    fn name(&self) -> String {
        self.file.display().to_string()
    }

    fn read(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.file)
            .map_err(|error| UsageError(format!("cannot read {}: {error}", self.name())))?)
    }
}

impl PolicyCommand {
    pub(super) async fn run(self, context: Context) -> Result<Exit> {
        match self.action {
            Action::Check { file, users: false } => check(&file, context.output),
            Action::Check { file, users: true } => check_users(&file, context).await,
            Action::Apply { file, wait } => apply(&file, wait, context).await,
            Action::Show(show) => show.run(context).await,
            Action::Diff { file } => changes::diff(&file, context).await,
            Action::History => versions::history(context).await,
            Action::Shadow(shadow) => shadow.run(context).await,
            Action::Eval(eval) => eval.run(),
        }
    }
}

fn check(file: &File, output: Output) -> Result<Exit> {
    let (policy, compiled) =
        policy::load(&file.read()?).map_err(|refusal| Refused::offline(&file.name(), refusal))?;
    let (rules, prefixes) = (policy.rules().len(), compiled.prefix_count());
    output.answer(
        || json!({ "ok": true, "file": file.name(), "rules": rules, "prefixes": prefixes }),
        || {
            format!(
                "{} is in order: {rules} rules, {prefixes} prefixes",
                file.name()
            )
        },
    )?;
    Ok(Exit::Done)
}

async fn check_users(file: &File, context: Context) -> Result<Exit> {
    let source = PolicySource { text: file.read()? };
    let answer = context.admin().await?.check_policy(source).await?;
    let answer = answer.into_inner();
    if !answer.problems.is_empty() {
        return Err(Refused::new(&file.name(), answer.problems).into());
    }
    context.output.answer(
        || {
            json!({
                "ok": true,
                "file": file.name(),
                "rules": answer.rules,
                "prefixes": answer.prefixes,
                "classes": answer.classes,
            })
        },
        || {
            format!(
                "{} is in order: {} rules, {} prefixes, {} different sets of rules for the users there are",
                file.name(),
                answer.rules,
                answer.prefixes,
                answer.classes
            )
        },
    )?;
    Ok(Exit::Done)
}

async fn apply(file: &File, wait: Span, context: Context) -> Result<Exit> {
    let request = ApplyPolicyRequest {
        text: file.read()?,
        wait_ms: wait.as_millis(),
    };
    let answer = context.admin().await?.apply_policy(request).await?;
    let answer = answer.into_inner();
    if !answer.problems.is_empty() {
        return Err(Refused::new(&file.name(), answer.problems).into());
    }
    let version = answer.version.unwrap_or_default();
    let status = answer.status.unwrap_or_default();
    context.output.answer(
        || {
            json!({
                "policy": versions::json(&version),
                "revision": status.revision,
                "done": revocation::is_done(&status),
                "gateways": revocation::gateways_json(&status),
            })
        },
        || {
            format!(
                "Policy {} with {} rules is live at revision {}.\n{}",
                version.number,
                version.rules,
                status.revision,
                revocation::gateways_text(&status)
            )
        },
    )?;
    Ok(revocation::exit(&status))
}
