//! `portcullis ssh-session`: sshd's `ForceCommand`. A session that lives as long as the SSH connection.

use std::env;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use portcullis_proto::v1::ssh_client::SshClient;
use portcullis_proto::v1::{HoldRequest, SessionInfo};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tonic::Code;

use super::connect::reason;
use crate::admin::{self, SocketError};
use crate::exit::Exit;
use crate::output::Output;
use crate::time;

const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
#[command(after_help = "\
Example, in sshd's configuration:
  Match Group portcullis
      ForceCommand portcullis ssh-session

and then, with the device's name where there are several:
  ssh bastion.example.org
  ssh bastion.example.org ada-laptop")]
pub(super) struct SshSessionArgs {
    /// The device, by name; what the SSH client asks to run, unless this is given
    #[arg(long, value_name = "NAME")]
    device: Option<String>,

    /// Control's socket for SSH sessions
    #[arg(
        long,
        env = "PORTCULLIS_SSH_SOCKET",
        default_value = "/run/portcullis/ssh.sock",
        value_name = "PATH"
    )]
    ssh_socket: PathBuf,
}

/// How a hold ended.
enum Held {
    /// The connection is gone, or its user has had enough.
    Left,
    /// The session ended.
    Ended(SessionInfo),
    /// Control did not say anything: it is being restarted.
    Lost,
}

impl SshSessionArgs {
    pub(super) async fn run(self, output: Output) -> Result<Exit> {
        let variable = |name| env::var(name).unwrap_or_default();
        let mut request = HoldRequest {
            device: self
                .device
                .clone()
                .unwrap_or_else(|| variable("SSH_ORIGINAL_COMMAND").trim().to_owned()),
            // The client's address, its port, and the same of the server.
            address: first_word(&variable("SSH_CONNECTION")),
            session: String::new(),
        };
        let mut end = watch_connection()?;
        let mut waiting = false;
        loop {
            match self
                .hold(&mut request, &mut end, &mut waiting, output)
                .await
            {
                Ok(Held::Left) => return Ok(Exit::Done),
                Ok(Held::Ended(session)) => {
                    output.line(
                        || json!({ "event": "ended", "session": session.id, "state": session.state }),
                        || format!("{}.", reason(&session.state)),
                    )?;
                    return Ok(Exit::Ended);
                }
                Ok(Held::Lost) => {}
                Err(error) if request.session.is_empty() || !is_passing(&error) => {
                    return Err(error);
                }
                Err(error) => tracing::debug!("{error:#}"),
            }
            if !waiting {
                waiting = true;
                let left = "Portcullis does not answer; the session goes on, and ends in half a minute if this lasts.";
                output.line(|| json!({ "event": "waiting" }), || left.to_owned())?;
            }
            tokio::select! {
                _ = end.recv() => return Ok(Exit::Done),
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn hold(
        &self,
        request: &mut HoldRequest,
        end: &mut mpsc::Receiver<()>,
        waiting: &mut bool,
        output: Output,
    ) -> Result<Held> {
        let channel = match admin::channel(&self.ssh_socket).await {
            Err(error) if matches!(error.downcast_ref(), Some(SocketError::Missing(_))) => bail!(
                "there is no {}: is portcullis running, with [control.ssh] in its configuration?",
                self.ssh_socket.display()
            ),
            other => other?,
        };
        let stream = SshClient::new(channel).hold(request.clone()).await;
        let mut stream = stream.context("no session")?.into_inner();
        loop {
            let answer = tokio::select! {
                _ = end.recv() => return Ok(Held::Left),
                answer = stream.message() => answer,
            };
            let Ok(Some(held)) = answer else {
                return Ok(Held::Lost);
            };
            let session = held.session.context("control answered without a session")?;
            if session.state != "live" {
                return Ok(Held::Ended(session));
            }
            if request.session.is_empty() || *waiting {
                tell(&session, *waiting, output)?;
            }
            request.session = session.id;
            *waiting = false;
        }
    }
}

fn tell(session: &SessionInfo, again: bool, output: Output) -> io::Result<()> {
    output.line(
        || {
            json!({
                "event": if again { "resumed" } else { "opened" },
                "session": session.id,
                "device": session.device,
                "location": session.location,
                "deadline": time::json(session.deadline_ms),
            })
        },
        || {
            let until = time::text(session.deadline_ms);
            let (device, location) = (&session.device, &session.location);
            if again {
                return "Portcullis is back, and the session goes on.".to_owned();
            }
            format!(
                "{device} is signed in at {location} until {until}, for as long as this connection is open.\nTo end it: Ctrl-C, or close the connection."
            )
        },
    )
}

/// Whether a restart of control explains it.
fn is_passing(error: &anyhow::Error) -> bool {
    let status = error.chain().find_map(|cause| cause.downcast_ref());
    status.is_none_or(|status: &tonic::Status| {
        matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal
        )
    })
}

/// Says once that the SSH connection is gone or that its user wants to leave. Without a terminal sshd sends no
/// signal: it closes its end of our output. With one, that hangs up.
fn watch_connection() -> Result<mpsc::Receiver<()>> {
    let (tell, end) = mpsc::channel(4);
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        let (tell, mut signal) = (
            tell.clone(),
            signal(kind).context("cannot listen for signals")?,
        );
        tokio::spawn(async move {
            signal.recv().await;
            let _ = tell.send(()).await;
        });
    }
    // What a shell between sshd and this process does not pass on.
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot follow sshd")?;
    if getppid().is_none_or(|parent| parent.is_init()) {
        bail!("sshd is gone");
    }
    let gone = tell.clone();
    std::thread::spawn(move || {
        let stdout = io::stdout();
        let closed = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        loop {
            // Asks for nothing: what is wrong is told all the same.
            let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
            match poll(&mut polled, None) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) if !polled[0].revents().intersects(closed) => {}
                _ => break,
            }
        }
        let _ = gone.blocking_send(());
    });
    if io::stdin().is_terminal() {
        std::thread::spawn(move || {
            let mut typed = [0; 64];
            let mut stdin = io::stdin().lock();
            while !matches!(stdin.read(&mut typed), Ok(0) | Err(_)) {}
            let _ = tell.blocking_send(());
        });
    }
    Ok(end)
}

fn first_word(text: &str) -> String {
    text.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}
