//! What rules come to, in words.

use portcullis_control::level_name;
use portcullis_proto::v1::policy_outcome_view::Kind;
use portcullis_proto::v1::{Level, PolicyOutcomeView};
use serde_json::{Value, json};

use crate::time;

/// `deny`, or what a session must be.
pub(super) fn text(outcome: &PolicyOutcomeView) -> String {
    match outcome.kind() {
        Kind::NoRule => "nothing permits it".to_owned(),
        Kind::Deny => "denied".to_owned(),
        Kind::Allow => {
            let level = match outcome.level() {
                Level::None => return "no login".to_owned(),
                level => level_name(level),
            };
            match outcome.max_age_ms {
                0 => level.to_owned(),
                ms => format!("{level}, login within {}", time::duration_text(ms)),
            }
        }
    }
}

pub(super) fn json(outcome: &PolicyOutcomeView) -> Value {
    let rule = (!outcome.rule.is_empty()).then_some(&outcome.rule);
    match outcome.kind() {
        Kind::NoRule => json!({ "verdict": "drop", "rule": null }),
        Kind::Deny => json!({ "verdict": "deny", "rule": rule }),
        Kind::Allow => json!({
            "verdict": "allow",
            "rule": rule,
            "require": level_name(outcome.level()),
            "max_age_ms": (outcome.max_age_ms != 0).then_some(outcome.max_age_ms),
        }),
    }
}

/// The destination or sender, with what is excepted.
pub(super) fn remote(remote: &str, except: &[String]) -> String {
    match except {
        [] => remote.to_owned(),
        [one] => format!("{remote} without {one}"),
        [one, ..] => format!("{remote} without {one} and {} more", except.len() - 1),
    }
}

/// Who a packet is from or to: `to` and `from` as in rules.
pub(super) fn direction(to_peer: bool) -> &'static str {
    if to_peer { "from" } else { "to" }
}

/// A dash for nothing.
pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}
