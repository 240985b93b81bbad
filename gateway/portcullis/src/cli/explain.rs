//! `portcullis explain`.

use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Args;
use gateway_common::verdict::{Reason, Verdict};
use portcullis_proto::v1::{ExplainRequest, ExplainResponse, Explanation, Level};
use serde_json::{Value, json};

use super::{Context, level_name};
use crate::exit::Exit;
use crate::output::Fields;
use crate::protocol::{self, Destination};

/// Decides as the gateway would about the first packet of a new flow, and changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portcullis explain ada-laptop 10.9.0.2:22
  portcullis explain 10.77.0.2 10.9.0.53:53/udp
  portcullis explain ada-laptop 10.9.0.2            (a ping)
  portcullis explain --to-peer ada-laptop 10.9.0.2:5985/tcp")]
pub(super) struct ExplainArgs {
    /// The device: its name, tunnel address or public key
    peer: String,
    /// ADDRESS[:PORT][/PROTOCOL]: where the packet goes; with --to-peer, where it comes from and the device's port
    destination: Destination,
    /// A packet towards the device instead of one from it
    #[arg(long)]
    to_peer: bool,
}

impl ExplainArgs {
    pub(super) async fn run(self, context: Context) -> Result<Exit> {
        let request = ExplainRequest {
            device: self.peer,
            direction: self.to_peer.into(),
            remote: self.destination.address.to_string(),
            protocol: self.destination.protocol.into(),
            port: self.destination.port.into(),
        };
        let response = context.admin().await?.explain(request).await?.into_inner();
        let explanation = response
            .explanation
            .clone()
            .ok_or_else(|| anyhow!("control gave no explanation"))?;
        let reason = u8::try_from(explanation.reason)
            .ok()
            .and_then(Reason::from_number);
        let reason = reason.ok_or_else(|| {
            anyhow!(
                "the gateway is newer: reason {} is unknown",
                explanation.reason
            )
        })?;
        let answer = Answer {
            response: &response,
            explanation: &explanation,
            reason,
            to_peer: self.to_peer,
        };
        context.output.answer(
            || answer.json(self.destination),
            || answer.text(self.destination),
        )?;
        Ok(Exit::Done)
    }
}

struct Answer<'a> {
    response: &'a ExplainResponse,
    explanation: &'a Explanation,
    reason: Reason,
    to_peer: bool,
}

impl Answer<'_> {
    fn passes(&self) -> bool {
        self.reason.verdict() == Verdict::Pass
    }

    fn json(&self, destination: Destination) -> Value {
        let explanation = self.explanation;
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        let session = explanation.has_session.then(|| {
            json!({
                "level": level_name(explanation.level()),
                "age_ms": explanation.age_ms,
                "deadline_in_ms": explanation.deadline_in_ms,
                "idle_in_ms": explanation.idle_limited.then_some(explanation.idle_in_ms),
            })
        });
        json!({
            "device": some(&self.response.device),
            "user": some(&self.response.user),
            "location": some(&self.response.location),
            "gateway": some(&self.response.gateway),
            "decided_at": some(&self.response.decided_at),
            "direction": if self.to_peer { "to_peer" } else { "from_peer" },
            "remote": destination.address,
            "protocol": protocol::name(destination.protocol.into()),
            "port": (destination.port != 0).then_some(destination.port),
            "verdict": if self.passes() { "pass" } else { "drop" },
            "reason": self.reason.name(),
            "explanation": self.reason.explanation(),
            "rule": some(&explanation.rule),
            "required": (explanation.required() != Level::None).then(|| level_name(explanation.required())),
            "max_age_ms": (explanation.max_age_ms != 0).then_some(explanation.max_age_ms),
            "session": session,
            "ends_in_ms": (explanation.ends_in_ms != 0).then_some(explanation.ends_in_ms),
            "ends_by": some(&explanation.ends_by),
            "to_change": self.advice(),
        })
    }

    fn text(&self, destination: Destination) -> String {
        let explanation = self.explanation;
        let protocol = protocol::name(destination.protocol.into());
        let place = protocol::endpoint(&destination.address.to_string(), destination.port.into());
        let verdict = if self.passes() {
            "passes"
        } else {
            "is dropped"
        };
        let peer = match self.response.device.as_str() {
            "" => "that address",
            device => device,
        };
        let way = if self.to_peer {
            format!("{protocol} from {} to {peer}", destination.address)
        } else {
            format!("{protocol} from {peer} to {place}")
        };
        let mut fields = Fields::default()
            .field("Verdict", format!("{way} {verdict}"))
            .field(
                "Reason",
                format!("{}: {}", self.reason.name(), self.reason.explanation()),
            );
        if let Some(side) = self.side() {
            fields = fields.field("Decided", side);
        }
        fields = fields
            .field("Rule", &explanation.rule)
            .field("Requires", self.requires())
            .field("Session", self.session());
        if explanation.ends_in_ms != 0 {
            let by = match explanation.ends_by.as_str() {
                "max_age" => "the login is then too old for the destination",
                _ => "the session's deadline",
            };
            fields = fields.field("Ends", format!("in {}, {by}", span(explanation.ends_in_ms)));
        }
        if self.passes() && explanation.idle_limited {
            let text = format!(
                "in {} without a packet from the device",
                span(explanation.idle_in_ms)
            );
            fields = fields.field("Ends sooner", text);
        }
        fields = fields.field("To change it", self.advice());
        let source = match self.response.gateway.as_str() {
            "" if self.response.device.is_empty() => {
                "No device has that address, at any location.".to_owned()
            }
            "" => "No gateway answers: decided by control's store, not by a kernel.".to_owned(),
            gateway => format!("Decided by what the kernel of gateway {gateway} holds now."),
        };
        format!("{}\n{source}\n", fields.render())
    }

    /// Which of two devices' sides it is about: a packet between devices has to satisfy both.
    fn side(&self) -> Option<String> {
        let device = &self.response.decided_at;
        let way = match self.response.decided_direction {
            0 => "leaving",
            _ => "entering",
        };
        (!device.is_empty())
            .then(|| format!("{way} {device}; a packet between devices has to satisfy both"))
    }

    fn requires(&self) -> String {
        let explanation = self.explanation;
        let level = match explanation.required() {
            Level::None => return String::new(),
            level => level_name(level),
        };
        match explanation.max_age_ms {
            0 => level.to_owned(),
            age => format!("{level}, login no older than {}", span(age)),
        }
    }

    fn session(&self) -> String {
        let explanation = self.explanation;
        if !explanation.has_session {
            return "none".to_owned();
        }
        let left = match explanation.deadline_in_ms {
            0 => "deadline passed".to_owned(),
            left => format!("{} left", span(left)),
        };
        format!(
            "{}, logged in {} ago, {left}",
            level_name(explanation.level()),
            span(explanation.age_ms)
        )
    }

    /// What somebody would have to do for the other verdict.
    fn advice(&self) -> &'static str {
        match self.reason {
            Reason::Session => "revoke the session, or let a rule deny it",
            Reason::OpenService => {
                "it is open to every device of the location: change the location"
            }
            Reason::OpenRule => "the rule needs no session: change the rule",
            Reason::Answer => "it is the gate's own answer",
            Reason::Locked => "log in on the device: portcullis login",
            Reason::Expired => {
                "log in again on the device, or extend sessions before their deadline"
            }
            Reason::Idle => {
                "log in again on the device; the location's idle timeout says how long it may be silent"
            }
            Reason::LevelTooLow => "step up: log in again with a factor of the required level",
            Reason::NotFresh => "log in again: the rule wants a fresh login for this destination",
            Reason::NoRule => "add a rule that allows it for the user or one of its groups",
            Reason::Unsolicited => {
                "let the device open the flow, or add a rule with `from` for the sender"
            }
            Reason::Denied => "change the rule: a deny holds whatever else allows it",
            Reason::UnknownPeer if self.response.device.is_empty() => {
                "add a device with that address: portcullis device add"
            }
            Reason::UnknownPeer => {
                "the gateway does not know the address: wait for it to catch up, see portcullis status"
            }
            _ => "nothing about the session or the rules: the packet itself is at fault",
        }
    }
}

/// To the second: nobody acts on less.
fn span(ms: u64) -> String {
    humantime::format_duration(Duration::from_secs(ms.div_ceil(1000))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(explanation: Explanation, reason: Reason) -> String {
        let response = ExplainResponse {
            device: "laptop".into(),
            gateway: "gw1".into(),
            ..ExplainResponse::default()
        };
        text_of(response, explanation, reason)
    }

    fn text_of(response: ExplainResponse, explanation: Explanation, reason: Reason) -> String {
        let answer = Answer {
            response: &response,
            explanation: &explanation,
            reason,
            to_peer: false,
        };
        answer.text("10.9.0.2:22".parse().unwrap())
    }

    #[test]
    fn between_devices_it_tells_whose_side_decides() {
        let response = ExplainResponse {
            device: "laptop".into(),
            decided_at: "phone".into(),
            decided_direction: 1,
            ..ExplainResponse::default()
        };
        let told = text_of(response, Explanation::default(), Reason::Unsolicited);
        assert!(
            told.contains("from laptop to 10.9.0.2:22 is dropped"),
            "{told}"
        );
        assert!(told.contains("entering phone; "), "{told}");
    }

    #[test]
    fn an_address_that_no_device_has_is_told_as_such() {
        let told = text_of(
            ExplainResponse::default(),
            Explanation::default(),
            Reason::UnknownPeer,
        );
        assert!(told.contains("portcullis device add"), "{told}");
        assert!(told.contains("No device has that address"), "{told}");
    }

    #[test]
    fn a_person_reads_verdict_cause_end_and_remedy() {
        let stale = Explanation {
            rule: "prod-ssh".into(),
            required: Level::Mfa.into(),
            max_age_ms: 900_000,
            has_session: true,
            level: Level::Mfa.into(),
            age_ms: 1_000_000,
            deadline_in_ms: 60_000,
            ..Explanation::default()
        };
        let told = text(stale.clone(), Reason::NotFresh);
        for part in [
            "is dropped",
            "not_fresh",
            "prod-ssh",
            "no older than 15m",
            "log in again",
            "gateway gw1",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let passing = Explanation {
            age_ms: 1000,
            ends_in_ms: 60_000,
            ends_by: "deadline".into(),
            ..stale
        };
        let told = text(passing, Reason::Session);
        assert!(
            told.contains("passes") && told.contains("in 1m, the session's deadline"),
            "{told}"
        );
    }
}
