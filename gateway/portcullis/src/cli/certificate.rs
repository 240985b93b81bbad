//! The certificate at the portal's name, as administrators see it.

use portcullis_proto::v1::PortalCertificate;
use serde_json::{Value, json};

use crate::time;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Whole days until it ends. `None`: there is none, and the own CA's is shown.
pub(super) fn days_left(found: &PortalCertificate) -> Option<i64> {
    (found.not_after_ms > 0).then(|| (found.not_after_ms - time::now_ms()).max(0) / DAY_MS)
}

pub(super) fn json_of(found: &PortalCertificate) -> Value {
    json!({
        "source": found.source,
        "name": found.name,
        "not_after": time::json(found.not_after_ms),
        "days_left": days_left(found),
        "failures": found.failures,
        "problem": (!found.problem.is_empty()).then_some(&found.problem),
        "next_attempt": time::json(found.next_ms),
    })
}

pub(super) fn text_of(found: &PortalCertificate) -> String {
    let mut text = match days_left(found) {
        Some(days) => format!(
            "{} ({}), until {}, {days} days left",
            found.name,
            found.source,
            time::text(found.not_after_ms)
        ),
        None => format!(
            "none for {} ({}); the own CA's is shown",
            found.name, found.source
        ),
    };
    if !found.problem.is_empty() {
        text.push_str(&format!("; PROBLEM: {}", found.problem));
        if found.failures > 0 {
            let next = time::text(found.next_ms);
            text.push_str(&format!(" ({} failed, next {next})", found.failures));
        }
    }
    text
}
