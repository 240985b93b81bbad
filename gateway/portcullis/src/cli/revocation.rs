//! How commands that end sessions report what every gateway has acknowledged.

use anyhow::Result;
use portcullis_proto::v1::RevocationStatus;
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::output::Output;

/// Done only once each gateway has read its kernel back and said so.
pub(super) fn is_done(status: &RevocationStatus) -> bool {
    status.gateways.iter().all(|gateway| gateway.acknowledged)
}

pub(super) fn exit(status: &RevocationStatus) -> Exit {
    if is_done(status) {
        Exit::Done
    } else {
        Exit::Pending
    }
}

pub(super) fn gateways_json(status: &RevocationStatus) -> Value {
    status
        .gateways
        .iter()
        .map(|gateway| {
            json!({
                "gateway": gateway.gateway,
                "acknowledged": gateway.acknowledged,
                "connected": gateway.connected,
                "removing": gateway.removing,
                "applied_revision": gateway.applied_revision,
                "took_ms": gateway.acknowledged.then_some(gateway.took_ms),
            })
        })
        .collect()
}

pub(super) fn json(status: &RevocationStatus) -> Value {
    json!({
        "revision": status.revision,
        "sessions": status.sessions,
        "done": is_done(status),
        "gateways": gateways_json(status),
    })
}

pub(super) fn text(status: &RevocationStatus) -> String {
    let ended = match status.sessions {
        0 => "No live session was ended.\n".to_owned(),
        1 => format!("1 session ended at revision {}.\n", status.revision),
        sessions => format!(
            "{sessions} sessions ended at revision {}.\n",
            status.revision
        ),
    };
    ended + &gateways_text(status)
}

/// A line for each gateway.
pub(super) fn gateways_text(status: &RevocationStatus) -> String {
    let mut text = String::new();
    for gateway in &status.gateways {
        let state = match (gateway.acknowledged, gateway.connected) {
            (true, _) => format!("acknowledged after {} ms", gateway.took_ms),
            (false, _) if gateway.removing => {
                "PENDING: being removed, still holds its peers".to_owned()
            }
            (false, true) => "PENDING: connected, has not acknowledged yet".to_owned(),
            (false, false) => {
                "PENDING: not connected; applies it on reconnect, or the deadline does".to_owned()
            }
        };
        text.push_str(&format!("  {}: {state}\n", gateway.gateway));
    }
    text
}

/// Prints the status as the whole answer.
pub(super) fn report(output: Output, done: &str, status: &RevocationStatus) -> Result<Exit> {
    output.answer(
        || json(status),
        || {
            if done.is_empty() {
                text(status)
            } else {
                format!("{done}\n{}", text(status))
            }
        },
    )?;
    Ok(exit(status))
}

#[cfg(test)]
mod tests {
    use portcullis_proto::v1::GatewayRevocation;

    use super::*;

    fn gateway(acknowledged: bool) -> GatewayRevocation {
        GatewayRevocation {
            gateway: "gw1".to_owned(),
            acknowledged,
            ..GatewayRevocation::default()
        }
    }

    #[test]
    fn inv4_one_silent_gateway_makes_it_pending() {
        let mut status = RevocationStatus {
            revision: 7,
            sessions: 1,
            gateways: vec![gateway(true)],
            ..RevocationStatus::default()
        };
        assert_eq!(
            (exit(&status), json(&status)["done"].as_bool()),
            (Exit::Done, Some(true))
        );
        status.gateways.push(gateway(false));
        assert_eq!(
            (exit(&status), json(&status)["done"].as_bool()),
            (Exit::Pending, Some(false))
        );
        assert!(text(&status).contains("PENDING"));
        assert_eq!(json(&status)["gateways"][1]["took_ms"], Value::Null);
    }
}
