//! `portcullis connection` and `portcullis locations`: what is connected from here.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use portcullis_client::{DeviceState, KeyPair};
use serde_json::{Value, json};

use super::tunnel::{self, Traffic};
use super::watch::time_left;
use super::{Name, STATE};
use crate::exit::Exit;
use crate::output::{Fields, Output, Table};
use crate::time;

#[derive(Debug, Args)]
struct State {
    /// Where the keys of this device are kept
    #[arg(long, env = "PORTCULLIS_CONNECT_STATE", default_value = STATE, value_name = "DIR")]
    state: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Shows what `portcullis connect` holds: time left, interface, and, with CAP_NET_ADMIN, handshake and traffic.
Exits with 7 when nothing is connected.

Examples:
  portcullis connection
  portcullis connection vault --output json")]
pub(in crate::cli) struct ConnectionArgs {
    /// The location; all that are connected, unless one is named
    location: Option<Name>,
    #[command(flatten)]
    state: State,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Lists the locations that `portcullis connect` was called for here, and which of them are connected.

Example:
  portcullis locations")]
pub(in crate::cli) struct LocationsArgs {
    #[command(flatten)]
    state: State,
}

/// A connection that some process holds.
struct Live {
    interface: String,
    session: portcullis_client::Session,
    left_s: i64,
    /// Where the kernel may be asked.
    traffic: Option<Traffic>,
}

impl Live {
    fn find(state: &DeviceState, device: Option<&KeyPair>, location: &str) -> Result<Option<Self>> {
        if state.holder(location)?.is_none() {
            return Ok(None);
        }
        // Not there yet while it logs in.
        let Some(record) = state.recorded(location)? else {
            return Ok(None);
        };
        let deadline: Timestamp = record.session.deadline.parse()?;
        let left_s = deadline.as_second() - Timestamp::now().as_second();
        Ok(Some(Self {
            left_s: left_s.max(0),
            traffic: device.and_then(|device| tunnel::traffic(&record.interface, device).ok()),
            interface: record.interface,
            session: record.session,
        }))
    }

    fn json(&self) -> Value {
        json!({
            "location": self.session.location,
            "interface": self.interface,
            "session": self.session,
            "left_s": self.left_s,
            "traffic": self.traffic.as_ref().map(Traffic::json),
        })
    }

    fn text(&self) -> String {
        let fields = Fields::default()
            .field("Location", &self.session.location)
            .field("Interface", &self.interface)
            .field("User", &self.session.user)
            .field("Device", &self.session.device)
            .field("Level", &self.session.level)
            .field("Until", &self.session.deadline)
            .field("Left", time_left(self.left_s));
        match &self.traffic {
            None => fields.render(),
            Some(traffic) => fields
                .field(
                    "Gateway",
                    traffic
                        .endpoint
                        .map_or_else(String::new, |at| at.to_string()),
                )
                .field("Handshake", time::text(traffic.handshake_ms))
                .field("Received", format!("{} bytes", traffic.received))
                .field("Sent", format!("{} bytes", traffic.sent))
                .render(),
        }
    }
}

impl ConnectionArgs {
    pub(in crate::cli) fn run(self, output: Output) -> Result<Exit> {
        let state = self.state.existing()?;
        let locations = match (&self.location, &state) {
            (Some(location), _) => vec![location.0.clone()],
            (None, Some(state)) => state.locations()?,
            (None, None) => Vec::new(),
        };
        let mut live = Vec::new();
        if let Some(state) = &state {
            for location in locations {
                let device = state.known_key(&location)?;
                live.extend(Live::find(state, device.as_ref(), &location)?);
            }
        }
        output.answer(
            || live.iter().map(Live::json).collect(),
            || match (live.is_empty(), &self.location) {
                (true, Some(location)) => format!("{} is not connected.", location.0),
                (true, None) => "Nothing is connected.".to_owned(),
                (false, _) => live.iter().map(Live::text).collect::<Vec<_>>().join("\n"),
            },
        )?;
        Ok(match live.is_empty() {
            true => Exit::Ended,
            false => Exit::Done,
        })
    }
}

impl LocationsArgs {
    pub(in crate::cli) fn run(self, output: Output) -> Result<Exit> {
        let mut found = Vec::new();
        if let Some(state) = self.state.existing()? {
            for location in state.locations()? {
                let live = Live::find(&state, None, &location)?;
                found.push((location, live));
            }
        }
        output.answer(
            || {
                found
                    .iter()
                    .map(|(location, live)| {
                        json!({
                            "location": location,
                            "connected": live.is_some(),
                            "interface": live.as_ref().map(|live| &live.interface),
                            "left_s": live.as_ref().map(|live| live.left_s),
                        })
                    })
                    .collect()
            },
            || {
                let mut table = Table::new(&["LOCATION", "CONNECTED", "INTERFACE", "LEFT"]);
                for (location, live) in &found {
                    let (connected, interface, left) = match live {
                        None => ("no", "-".to_owned(), "-".to_owned()),
                        Some(live) => ("yes", live.interface.clone(), time_left(live.left_s)),
                    };
                    table.row([location.clone(), connected.to_owned(), interface, left]);
                }
                table.render("No location was connected from here yet.")
            },
        )?;
        Ok(Exit::Done)
    }
}

impl State {
    /// `None` where nothing was ever connected.
    fn existing(&self) -> Result<Option<DeviceState>> {
        match self.state.try_exists()? {
            true => Ok(Some(DeviceState::existing(&self.state)?)),
            false => Ok(None),
        }
    }
}
