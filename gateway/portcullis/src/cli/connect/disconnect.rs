//! `portcullis disconnect`: what Ctrl-C does, from another terminal or a script.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use portcullis_client::DeviceState;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;

use super::tunnel::Tunnel;
use super::{Name, STATE};
use crate::exit::Exit;
use crate::output::Output;

/// The session is ended at the server first, which may not answer.
const WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

#[derive(Debug, Args)]
#[command(after_help = "\
Ends the session at the server and takes the interface down, as Ctrl-C in its terminal does. What a
killed `portcullis connect` has left is taken down as well; its session ends at its deadline.

Examples:
  portcullis disconnect
  portcullis disconnect vault")]
pub(in crate::cli) struct DisconnectArgs {
    /// The location; all of them, unless one is named
    location: Option<Name>,
    /// Where the keys of this device are kept
    #[arg(long, env = "PORTCULLIS_CONNECT_STATE", default_value = STATE, value_name = "DIR")]
    state: PathBuf,
}

impl DisconnectArgs {
    pub(in crate::cli) async fn run(self, output: Output) -> Result<Exit> {
        let state = DeviceState::existing(&self.state)?;
        let locations = match &self.location {
            Some(location) => vec![location.0.clone()],
            None => state.locations()?,
        };
        let mut ended = Vec::new();
        for location in locations {
            if end(&state, &location).await? || left(&state, &location).await? {
                ended.push(location);
            }
        }
        if let (Some(location), true) = (&self.location, ended.is_empty()) {
            bail!(
                "{} is not connected from {}",
                location.0,
                self.state.display()
            );
        }
        output.answer(
            || json!({ "disconnected": ended }),
            || match ended.is_empty() {
                true => "Nothing is connected.".to_owned(),
                false => format!("Disconnected: {}.", ended.join(", ")),
            },
        )?;
        Ok(Exit::Done)
    }
}

/// Ends the process that has the location connected, if there is one.
async fn end(state: &DeviceState, location: &str) -> Result<bool> {
    let Some(holder) = state.holder(location)? else {
        return Ok(false);
    };
    let pid = i32::try_from(holder).ok().and_then(Pid::from_raw);
    let pid = pid.context("the lock's file names no process")?;
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
        // It has just ended.
        return Ok(true);
    };
    // Still the same one: its number cannot have gone to another process before it was opened.
    if state.holder(location)? != Some(holder) {
        return Ok(true);
    }
    pidfd_send_signal(&process, Signal::TERM)
        .with_context(|| format!("cannot end process {holder}, which has {location} connected"))?;
    let begun = Instant::now();
    while state.holder(location)? == Some(holder) {
        if begun.elapsed() > WITHIN {
            bail!(
                "process {holder}, which has {location} connected, does not end; `kill -KILL {holder}`, and then this again, takes its interface down"
            );
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(true)
}

/// Removes the interface that a killed process has left.
async fn left(state: &DeviceState, location: &str) -> Result<bool> {
    let _lock = state.lock(location)?;
    let Some(device) = state.known_key(location)? else {
        return Ok(false);
    };
    let record = state.recorded(location)?;
    let interface = record.map_or_else(|| location.to_owned(), |record| record.interface);
    let removed = Tunnel::remove_left(&interface, &device).await?;
    state.forget(location)?;
    Ok(removed)
}
