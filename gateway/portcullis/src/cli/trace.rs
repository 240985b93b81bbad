//! `portcullis trace`.

use std::io::{self, ErrorKind};

use anyhow::Result;
use clap::Args;
use gateway_common::verdict::{Reason, Verdict};
use portcullis_proto::v1::{TraceEvent, TraceItem, TraceRequest};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use crate::exit::Exit;
use crate::output::Output;
use crate::{protocol, time};

/// Live, until interrupted or --count packets have been shown.
#[derive(Debug, Args)]
#[command(after_help = "\
Shows the first packet of each flow: those that were permitted, and those that were dropped. A flow that
goes on shows nothing more. Under load the kernel tells of a part only; what is lost is counted.
With --output json, one JSON document a line.

Examples:
  portcullis trace --peer ada-laptop
  portcullis trace --user ada --reason locked --count 10
  portcullis --output json trace")]
pub(super) struct TraceArgs {
    /// Only this device's packets: its name, tunnel address or public key
    #[arg(long, value_name = "PEER")]
    peer: Option<String>,
    /// Only packets of this user's devices
    #[arg(long)]
    user: Option<String>,
    /// Only packets that passed or were dropped for this reason, by its name
    #[arg(long)]
    reason: Option<String>,
    /// End after so many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl TraceArgs {
    pub(super) async fn run(self, context: Context) -> Result<Exit> {
        let request = TraceRequest {
            device: self.peer.unwrap_or_default(),
            user: self.user.unwrap_or_default(),
            reason: self.reason.unwrap_or_default(),
        };
        let mut items = context.admin().await?.trace(request).await?.into_inner();
        // Listens all the time: Ctrl-C may come while a line is being written to a slow terminal.
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (mut shown, mut lost) = (0, 0);
        loop {
            let item = tokio::select! {
                // First: where packets never cease, it must be heard all the same.
                biased;
                _ = interrupt.recv() => None,
                item = items.message() => item?,
            };
            let Some(item) = item else { break };
            if item.lost != lost {
                let more = item.lost.saturating_sub(lost);
                lost = item.lost;
                context
                    .output
                    .note(&format!("({more} more packets were not told of)"));
            }
            let Some(event) = &item.event else {
                if context.output.is_json() {
                    context
                        .output
                        .line(|| json!({ "lost": lost }), String::new)?;
                }
                continue;
            };
            match show(context.output, &item, event) {
                // Whoever read the lines, head(1) for one, has seen enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Exit::Done),
                told => told?,
            }
            shown += 1;
            if self.count.is_some_and(|count| shown >= count) {
                break;
            }
        }
        context
            .output
            .note(&format!("{shown} packets shown, {lost} lost"));
        Ok(Exit::Done)
    }
}

fn show(output: Output, item: &TraceItem, event: &TraceEvent) -> io::Result<()> {
    output.line(|| json_of(item, event), || text_of(item, event))
}

fn reason_of(event: &TraceEvent) -> Option<Reason> {
    u8::try_from(event.reason)
        .ok()
        .and_then(Reason::from_number)
}

fn verdict_of(event: &TraceEvent) -> &'static str {
    match reason_of(event).map(Reason::verdict) {
        Some(Verdict::Pass) => "pass",
        Some(Verdict::Drop) | None => "drop",
    }
}

fn json_of(item: &TraceItem, event: &TraceEvent) -> Value {
    let port = |port: u32| (port != 0).then_some(port);
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    json!({
        "at": time::json(event.at_ms),
        "gateway": item.gateway,
        "device": some(&item.device),
        "user": some(&item.user),
        "direction": direction_name(event.direction),
        "verdict": verdict_of(event),
        "reason": reason_of(event).map(Reason::name),
        "rule": some(&event.rule),
        "protocol": protocol::name(event.protocol),
        "source": some(&event.source),
        "source_port": port(event.source_port),
        "destination": some(&event.destination),
        "destination_port": port(event.destination_port),
        "length": event.length,
        "lost": item.lost,
    })
}

fn text_of(item: &TraceItem, event: &TraceEvent) -> String {
    let whose = if item.device.is_empty() {
        "-".to_owned()
    } else {
        format!("{} ({})", item.device, item.user)
    };
    let packet = if event.source.is_empty() {
        "unreadable packet".to_owned()
    } else {
        let protocol = protocol::name(event.protocol);
        let source = protocol::endpoint(&event.source, event.source_port);
        let destination = protocol::endpoint(&event.destination, event.destination_port);
        format!("{protocol} {source} -> {destination}")
    };
    let rule = if event.rule.is_empty() {
        String::new()
    } else {
        format!(" (rule {})", event.rule)
    };
    format!(
        "{} {:4} {} {} {packet}, {} bytes: {}{rule}",
        time::text_with_millis(event.at_ms),
        verdict_of(event),
        whose,
        direction_name(event.direction).replace('_', " "),
        event.length,
        reason_of(event).map_or("unknown reason", Reason::name),
    )
}

fn direction_name(direction: u32) -> &'static str {
    if direction == 0 {
        "from_peer"
    } else {
        "to_peer"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_told_in_one_line() {
        let event = TraceEvent {
            at_ms: 1_700_000_000_123,
            reason: Reason::Denied as u32,
            rule: "no-ssh".into(),
            protocol: 6,
            source: "fd77::2".into(),
            source_port: 5000,
            destination: "fd09::1".into(),
            destination_port: 22,
            length: 60,
            ..TraceEvent::default()
        };
        let item = TraceItem {
            gateway: "gw1".into(),
            device: "laptop".into(),
            user: "ada".into(),
            ..TraceItem::default()
        };
        assert_eq!(
            text_of(&item, &event),
            "2023-11-14 22:13:20.123Z drop laptop (ada) from peer tcp [fd77::2]:5000 -> [fd09::1]:22, 60 bytes: \
             denied (rule no-ssh)"
        );
        let json = json_of(&item, &event);
        assert_eq!(json["verdict"], "drop");
        assert_eq!(json["destination_port"], 22);
        let unreadable = TraceEvent {
            reason: 9,
            ..TraceEvent::default()
        };
        assert!(text_of(&TraceItem::default(), &unreadable).contains("unreadable"));
    }
}
