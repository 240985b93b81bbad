//! Traffic through the tunnel whose every packet is accounted for.

mod echo;
mod pinger;
mod probe;
mod sink;
mod transfer;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;

use crate::command::try_run;
use crate::namespace::Namespace;

pub use echo::Echo;
pub use pinger::Pinger;
pub use probe::{Probe, Report};
pub use sink::{Flood, Sink};
pub use transfer::Transfer;

/// The port of [`Echo`], both protocols.
pub const ECHO_PORT: u16 = 7;

/// How long silence must last to count as "does not answer". Emulated machines answer within tens of
/// milliseconds, and this has room for a second SYN.
const SILENCE: Duration = Duration::from_millis(1500);
/// How often a server's thread looks whether it should end.
const TICK: Duration = Duration::from_millis(100);

/// Whether one of two pings from `namespace` to `to` is answered.
pub fn ping(namespace: &Namespace, to: IpAddr) -> Result<bool> {
    let mut command = namespace.command("ping");
    command
        .args(["-n", "-q", "-c", "2", "-i", "0.3", "-W", "1"])
        .arg(to.to_string());
    let output = try_run(&mut command, "")?;
    // `3 packets transmitted, 1 received, …`; nothing at all where there is no route.
    let received = output
        .stdout
        .split(", ")
        .find_map(|part| part.strip_suffix(" received")?.parse::<u32>().ok());
    Ok(received.is_some_and(|count| count > 0))
}

/// Whether a TCP connection from `namespace` to `to` is accepted.
pub fn connects(namespace: &Namespace, to: SocketAddr) -> Result<bool> {
    match namespace.enter(move || TcpStream::connect_timeout(&to, SILENCE))? {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error.into()),
        Err(_) => Ok(false),
    }
}

/// Whether a socket's own time limit was the reason.
fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
