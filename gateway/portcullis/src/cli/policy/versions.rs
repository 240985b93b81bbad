//! Applied policies, and what the live one means for a user.

use anyhow::Result;
use clap::Args;
use portcullis_proto::v1::{
    GetPolicyRequest, ListRequest, NameRequest, PolicyReach, PolicyReachLine, PolicyVersion,
};
use serde_json::{Value, json as value};

use super::outcome;
use crate::cli::Context;
use crate::exit::Exit;
use crate::output::{Fields, Table};
use crate::time;

#[derive(Debug, Args)]
pub(super) struct Show {
    /// What this user may reach, and who may reach the user's devices
    #[arg(long, conflicts_with_all = ["number", "source"])]
    user: Option<String>,
    /// Another policy than the live one, by its number in `policy history`
    #[arg(long)]
    number: Option<u64>,
    /// Print the file itself
    #[arg(long)]
    source: bool,
}

impl Show {
    pub(super) async fn run(self, context: Context) -> Result<Exit> {
        let mut admin = context.admin().await?;
        if let Some(name) = self.user {
            let reach = admin.show_policy(NameRequest { name }).await?.into_inner();
            context
                .output
                .answer(|| reach_json(&reach), || reach_text(&reach))?;
            return Ok(Exit::Done);
        }
        let request = GetPolicyRequest {
            number: self.number.unwrap_or(0),
        };
        let version = admin.get_policy(request).await?.into_inner();
        context.output.answer(
            || {
                let mut shown = json(&version);
                shown["source"] = version.text.clone().into();
                shown
            },
            || {
                if self.source {
                    return version.text.clone();
                }
                Fields::default()
                    .field("Policy", version.number)
                    .field("Live", if version.live { "yes" } else { "no" })
                    .field("Rules", version.rules)
                    .field("Applied", time::text(version.applied_ms))
                    .field("By", &version.applied_by)
                    .field("Revision", version.revision)
                    .field("SHA-256", &version.sha256)
                    .render()
            },
        )?;
        Ok(Exit::Done)
    }
}

pub(super) async fn history(context: Context) -> Result<Exit> {
    let versions = context.admin().await?.list_policies(ListRequest {}).await?;
    let versions = versions.into_inner().versions;
    context.output.answer(
        || value!({ "policies": versions.iter().map(json).collect::<Vec<_>>() }),
        || {
            let mut table =
                Table::new(&["NUMBER", "APPLIED", "BY", "RULES", "REVISION", "SHA-256"]);
            for version in &versions {
                table.row([
                    version.number.to_string(),
                    time::text(version.applied_ms),
                    version.applied_by.clone(),
                    version.rules.to_string(),
                    version.revision.to_string(),
                    version.sha256.chars().take(16).collect(),
                ]);
            }
            table.render("No policy was ever applied: a session of two factors reaches everything.")
        },
    )?;
    Ok(Exit::Done)
}

pub(super) fn json(version: &PolicyVersion) -> Value {
    value!({
        "number": version.number,
        "applied": time::json(version.applied_ms),
        "applied_by": version.applied_by,
        "revision": version.revision,
        "rules": version.rules,
        "sha256": version.sha256,
        "live": version.live,
    })
}

fn reach_json(reach: &PolicyReach) -> Value {
    let line = |line: &PolicyReachLine| {
        value!({
            "direction": outcome::direction(line.to_peer),
            "remote": line.remote,
            "except": line.except,
            "ports": line.ports,
            "outcome": line.outcome.as_ref().map(outcome::json),
        })
    };
    value!({
        "user": reach.user,
        "groups": reach.groups,
        "policy": (reach.policy != 0).then_some(reach.policy),
        "lines": reach.lines.iter().map(line).collect::<Vec<_>>(),
    })
}

fn reach_text(reach: &PolicyReach) -> String {
    let table = |to_peer: bool, heading: &str, empty: &str| {
        let mut table = Table::new(&[heading, "PORTS", "NEEDS", "RULE"]);
        for line in reach.lines.iter().filter(|line| line.to_peer == to_peer) {
            let found = line.outcome.clone().unwrap_or_default();
            table.row([
                outcome::remote(&line.remote, &line.except),
                line.ports.join(", "),
                outcome::text(&found),
                outcome::or_dash(&found.rule),
            ]);
        }
        table.render(empty)
    };
    let groups = match reach.groups.as_slice() {
        [] => "no group".to_owned(),
        groups => format!("groups {}", groups.join(", ")),
    };
    let policy = match reach.policy {
        0 => "no policy is applied".to_owned(),
        number => format!("policy {number}"),
    };
    format!(
        "{} ({groups}), {policy}. What is not listed is dropped; the portal is always reachable.\n\n{}\n{}",
        reach.user,
        table(false, "MAY REACH", "May reach nothing."),
        table(
            true,
            "MAY BE REACHED FROM",
            "Nobody may reach the user's devices."
        ),
    )
}
