//! What another policy would change.

use anyhow::Result;
use portcullis_proto::v1::{PolicyChange, PolicySource};
use serde_json::{Value, json};

use super::{File, outcome};
use crate::cli::Context;
use crate::exit::Exit;
use crate::output::Table;
use crate::refused::Refused;

/// Users named before the rest is counted.
const NAMED: usize = 3;

pub(super) async fn diff(file: &File, context: Context) -> Result<Exit> {
    let source = PolicySource { text: file.read()? };
    let answer = context.admin().await?.diff_policy(source).await?;
    let answer = answer.into_inner();
    if !answer.problems.is_empty() {
        return Err(Refused::new(&file.name(), answer.problems).into());
    }
    context.output.answer(
        || {
            json!({
                "policy": (answer.policy != 0).then_some(answer.policy),
                "changes": answer.changes.iter().map(change_json).collect::<Vec<_>>(),
            })
        },
        || {
            let mut table =
                Table::new(&["USERS", "", "", "REMOTE", "PORTS", "NOW", "THEN", "RULE"]);
            for change in &answer.changes {
                let before = change.before.clone().unwrap_or_default();
                let after = change.after.clone().unwrap_or_default();
                let rule = if after.rule.is_empty() {
                    &before.rule
                } else {
                    &after.rule
                };
                table.row([
                    users(&change.users),
                    word(&change.effect).to_owned(),
                    outcome::direction(change.to_peer).to_owned(),
                    outcome::remote(&change.remote, &change.except),
                    change.ports.join(", "),
                    outcome::text(&before),
                    outcome::text(&after),
                    outcome::or_dash(rule),
                ]);
            }
            table.render("Nothing would change for any user.")
        },
    )?;
    Ok(Exit::Done)
}

/// The effect as a verb after the users.
fn word(effect: &str) -> &str {
    match effect {
        "loses" => "lose",
        "gains" => "gain",
        "stricter" => "need more",
        "looser" => "need less",
        _ => "need other",
    }
}

fn users(users: &[String]) -> String {
    let named = users.iter().take(NAMED).cloned().collect::<Vec<_>>();
    match users.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn change_json(change: &PolicyChange) -> Value {
    json!({
        "users": change.users,
        "effect": change.effect,
        "direction": outcome::direction(change.to_peer),
        "remote": change.remote,
        "except": change.except,
        "ports": change.ports,
        "before": change.before.as_ref().map(outcome::json),
        "after": change.after.as_ref().map(outcome::json),
    })
}
