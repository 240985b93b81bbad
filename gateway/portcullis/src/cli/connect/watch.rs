//! A connection from its first moment to its end.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use portcullis_client::{Connected, Connection, DeviceError, PortalClient, PortalError, Session};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::exit::Exit;
use crate::output::Output;

/// The public listener gives a network 60 requests, and then one every two seconds.
const POLL: Duration = Duration::from_secs(12);
/// A server that has not said anything for so long is away.
const SILENCE: Duration = Duration::from_secs(60);
const WARN_BEFORE_S: i64 = 300;

/// Ctrl-C, SIGTERM and a terminal that is closed, none of which ends the process any more.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    pub(super) async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
            _ = self.hangup.recv() => (),
        }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By who began it. Pending as long as some gateway has not acknowledged it.
    Here { pending: bool },
    /// By the server: `revoked`, `expired`, `idle` or `replaced`.
    Elsewhere { state: String },
}

impl Ended {
    pub(super) fn tell(&self, interface: &str, output: Output) -> Result<Exit> {
        let (state, text, exit) = match self {
            Self::Here { pending: false } => ("disconnected", "Disconnected", Exit::Done),
            Self::Here { pending: true } => (
                "pending",
                "Disconnected, but not every gateway has confirmed it yet",
                Exit::Pending,
            ),
            Self::Elsewhere { state } => (state.as_str(), reason(state), Exit::Ended),
        };
        output.line(
            || json!({ "event": "ended", "state": state, "interface": interface }),
            || format!("{text}. The interface {interface} is gone."),
        )?;
        Ok(exit)
    }
}

/// The state of a session that has ended, in words.
pub(in crate::cli) fn reason(state: &str) -> &'static str {
    match state {
        "revoked" => "The session was revoked",
        "expired" => "The session has reached its deadline",
        "idle" => "The session was idle for too long",
        "moved" => "The device was heard from another network, which this location does not allow",
        "replaced" => "A newer session of this device took this one's place",
        _ => "The session has ended",
    }
}

/// Shows the time left, and asks what became of the session, until it has ended or a signal comes.
pub(super) async fn until_the_end(
    portal: &Arc<PortalClient>,
    connection: &Arc<Connection>,
    record: impl Fn(&Session) -> Result<(), DeviceError>,
    signals: &mut Signals,
    output: Output,
) -> Result<Ended> {
    let mut known = connection.session.clone();
    let mut deadline = parse(&known.deadline)?;
    let mut heard = Instant::now();
    let mut answers = ask_regularly(Arc::clone(portal), Arc::clone(connection));
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut view = View::new(output);
    loop {
        tokio::select! {
            () = signals.any() => {
                view.finish();
                return Ok(Ended::Here { pending: false });
            }
            answer = answers.recv() => match answer {
                Some(Ok(Some(now))) if now.live => {
                    deadline = parse(&now.session.deadline)?;
                    heard = Instant::now();
                    if now.session != known {
                        // Renewed, or made longer or shorter.
                        known = now.session;
                        record(&known)?;
                    }
                }
                Some(Ok(now)) => {
                    view.finish();
                    let state = now.map_or_else(|| "unknown".to_owned(), |now| now.state);
                    return Ok(Ended::Elsewhere { state });
                }
                // The gateway enforces the session; a server that is away for a while changes nothing of it.
                Some(Err(error)) => tracing::debug!(%error, "the server does not say what became of the session"),
                None => anyhow::bail!("nobody asks the server any more"),
            },
            _ = tick.tick() => {
                let left_s = deadline.as_second() - Timestamp::now().as_second();
                // What the server says counts more than this machine's clock.
                if left_s < 0 && heard.elapsed() > SILENCE {
                    view.finish();
                    return Ok(Ended::Elsewhere { state: "expired".to_owned() });
                }
                view.show(left_s)?;
            }
        }
    }
}

fn parse(deadline: &str) -> Result<Timestamp> {
    deadline
        .parse()
        .with_context(|| format!("the server's answer names the deadline `{deadline}`"))
}

/// The client blocks: it asks beside the loop that obeys signals.
fn ask_regularly(
    portal: Arc<PortalClient>,
    connection: Arc<Connection>,
) -> mpsc::Receiver<Result<Option<Connected>, PortalError>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(POLL).await;
            let (portal, connection) = (Arc::clone(&portal), Arc::clone(&connection));
            let asked = tokio::task::spawn_blocking(move || portal.connected(&connection)).await;
            let Ok(answer) = asked else { return };
            if sender.send(answer).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// One line that is drawn again in a terminal, and nothing but the warning elsewhere.
struct View {
    output: Output,
    redraws: bool,
    warned: bool,
}

impl View {
    fn new(output: Output) -> Self {
        let redraws = !output.is_json() && std::io::stderr().is_terminal();
        Self {
            output,
            redraws,
            warned: false,
        }
    }

    fn show(&mut self, left_s: i64) -> Result<()> {
        if left_s > WARN_BEFORE_S {
            // Extended meanwhile.
            self.warned = false;
        } else if !self.warned {
            self.warned = true;
            self.finish();
            self.output.line(
                || json!({ "event": "ends_soon", "left_s": left_s.max(0) }),
                || {
                    format!(
                        "The session ends in {}. `portcullis connect --renew` makes it longer.",
                        time_left(left_s)
                    )
                },
            )?;
        }
        if self.redraws {
            redraw(&format!("{} left", time_left(left_s)));
        }
        Ok(())
    }

    fn finish(&self) {
        if self.redraws {
            redraw("");
        }
    }
}

/// Without a panic where the terminal is gone: its end is told by a signal.
fn redraw(line: &str) {
    let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
}

/// `7:59 h` or `4:59 min`.
pub(super) fn time_left(left_s: i64) -> String {
    let left_s = left_s.max(0);
    let (hours, minutes, seconds) = (left_s / 3600, left_s / 60 % 60, left_s % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02} min"),
        _ => format!("{hours}:{minutes:02} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_for_people() {
        assert_eq!(time_left(7 * 3600 + 59 * 60 + 59), "7:59 h");
        assert_eq!(time_left(299), "4:59 min");
        assert_eq!(time_left(-5), "0:00 min");
    }

    #[test]
    fn each_end_has_its_words() {
        let states = ["revoked", "expired", "idle", "replaced", "moved"];
        let words: std::collections::HashSet<_> = states.map(reason).into();
        assert_eq!(words.len(), states.len());
        assert!(!words.contains(reason("something else")));
    }
}
