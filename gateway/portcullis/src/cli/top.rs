//! `portcullis top`.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use gateway_common::verdict::Reason;
use portcullis_proto::v1::{TopPeer, TopRequest};
use serde_json::{Value, json};

use super::Context;
use crate::exit::Exit;
use crate::output::Table;
use crate::time::{self, Span};

/// Cursor home, and clear from there: without the flicker of clearing first.
const HOME: &str = "\x1b[H\x1b[J";

/// Devices with their sessions, traffic and drops, the busiest first.
#[derive(Debug, Args)]
#[command(after_help = "\
Rates and drops come with the gateways' reports, every five seconds. Live where the output is a terminal.

Examples:
  portcullis top
  portcullis top --once --user ada
  portcullis --output json top")]
pub(super) struct TopArgs {
    /// One picture, and no more; implied by --output json
    #[arg(long)]
    once: bool,
    /// Only this user's devices
    #[arg(long)]
    user: Option<String>,
    /// Between two pictures
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    every: Span,
}

impl TopArgs {
    pub(super) async fn run(self, context: Context) -> Result<Exit> {
        let mut admin = context.admin().await?;
        let live = !self.once && !context.output.is_json() && io::stdout().is_terminal();
        let pause = Duration::from_millis(self.every.as_millis().max(200));
        loop {
            let mut peers = admin.top(TopRequest {}).await?.into_inner().peers;
            if let Some(user) = &self.user {
                peers.retain(|peer| peer.user == *user);
            }
            peers.sort_by_key(|peer| (std::cmp::Reverse(busy(peer)), peer.device.clone()));
            if !live {
                context.output.answer(
                    || json!({ "peers": peers.iter().map(json_of).collect::<Vec<_>>() }),
                    || table(&peers, usize::MAX),
                )?;
                return Ok(Exit::Done);
            }
            let mut out = io::stdout().lock();
            let (columns, rows) = room(&out);
            let table = table(&peers, rows);
            write!(out, "{HOME}{}", cut(&table, columns))?;
            out.flush()?;
            drop(out);
            tokio::time::sleep(pause).await;
        }
    }
}

/// Bytes a second, both ways, as gateways tell: any numbers.
fn busy(peer: &TopPeer) -> u64 {
    peer.rx_rate.saturating_add(peer.tx_rate)
}

/// Columns, and devices that fit on the screen: asked each time, windows are resized.
fn room(terminal: &impl AsFd) -> (usize, usize) {
    /// The headings, and the line that the cursor is on.
    const OTHER: usize = 2;
    /// Of a terminal that does not tell, as of old.
    const USUAL: (u16, u16) = (80, 24);
    let size = rustix::termios::tcgetwinsize(terminal).map(|size| (size.ws_col, size.ws_row));
    let (columns, rows) = size
        .ok()
        .filter(|(columns, rows)| *columns != 0 && *rows != 0)
        .unwrap_or(USUAL);
    (
        columns.into(),
        usize::from(rows).saturating_sub(OTHER).max(1),
    )
}

/// A line that wraps would push the first ones off the screen.
fn cut(text: &str, columns: usize) -> String {
    let line = |line: &str| line.chars().take(columns).chain(['\n']).collect::<String>();
    text.lines().map(line).collect()
}

fn table(peers: &[TopPeer], most: usize) -> String {
    let mut table = Table::new(&[
        "DEVICE",
        "USER",
        "SESSION LEFT",
        "FROM PEER",
        "TO PEER",
        "DROPS",
    ]);
    for peer in peers.iter().take(most) {
        table.row([
            peer.device.clone(),
            peer.user.clone(),
            left(peer),
            rate(peer.rx_rate),
            rate(peer.tx_rate),
            drops(peer),
        ]);
    }
    table.render("No devices yet: portcullis device add NAME --user USER")
}

fn left(peer: &TopPeer) -> String {
    let Some(session) = &peer.session else {
        return "-".to_owned();
    };
    let left_ms = session.deadline_ms.saturating_sub(time::now_ms());
    let seconds = u64::try_from(left_ms / 1000).unwrap_or(0);
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// `1.5 MB/s`, decimal.
fn rate(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B/s", "kB/s", "MB/s", "GB/s"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

fn reason_name(number: u32) -> String {
    let reason = u8::try_from(number).ok().and_then(Reason::from_number);
    reason.map_or_else(|| number.to_string(), |reason| reason.name().to_owned())
}

fn drops(peer: &TopPeer) -> String {
    let mut drops = peer.drops.clone();
    drops.sort_by_key(|drop| std::cmp::Reverse(drop.packets));
    let all: Vec<_> = drops
        .iter()
        .map(|drop| format!("{} {}", reason_name(drop.reason), drop.packets))
        .collect();
    all.join(", ")
}

fn json_of(peer: &TopPeer) -> Value {
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    let drops: serde_json::Map<_, _> = peer
        .drops
        .iter()
        .map(|drop| (reason_name(drop.reason), Value::from(drop.packets)))
        .collect();
    let session = peer.session.as_ref().map(|session| {
        json!({
            "id": session.id,
            "deadline": time::json(session.deadline_ms),
            "left_ms": session.deadline_ms.saturating_sub(time::now_ms()).max(0),
        })
    });
    json!({
        "device": peer.device,
        "user": peer.user,
        "location": peer.location,
        "gateway": some(&peer.gateway),
        "addresses": peer.addresses,
        "session": session,
        "rx_bytes": peer.rx_bytes,
        "tx_bytes": peer.tx_bytes,
        "rx_rate": peer.rx_rate,
        "tx_rate": peer.tx_rate,
        "drops": drops,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_the_screen_does() {
        assert_eq!(
            cut("DEVICE  USER\nlaptop  ä\n", 9),
            "DEVICE  U\nlaptop  ä\n"
        );
        let (columns, rows) = room(&std::fs::File::open("/dev/null").unwrap());
        assert_eq!((columns, rows), (80, 22), "no terminal at all");
    }

    #[test]
    fn a_device_is_busy_by_whatever_a_gateway_claims() {
        let peer = |rx_rate, tx_rate| TopPeer {
            rx_rate,
            tx_rate,
            ..TopPeer::default()
        };
        assert_eq!(busy(&peer(1, 2)), 3);
        assert_eq!(busy(&peer(u64::MAX, u64::MAX)), u64::MAX);
    }

    #[test]
    fn rates_are_read_at_a_glance() {
        for (bytes, text) in [
            (0, "0 B/s"),
            (999, "999 B/s"),
            (1000, "1.0 kB/s"),
            (1_234_567, "1.2 MB/s"),
            (999_600, "1.0 MB/s"),
            (125_000_000, "125 MB/s"),
            (u64::MAX, "18446744074 GB/s"),
        ] {
            assert_eq!(rate(bytes), text, "{bytes}");
        }
    }
}
