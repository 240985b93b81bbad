//! Cut with a reason: what is dropped fails at once instead of hanging.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e_tests::flows::{Echo, Transfer};
use e2e_tests::{Namespace, Options, SERVER_V4, SERVER_V6, eventually, with_gate};

use crate::{SILENCE, SOON};

/// An application that hangs for longer than this has not been told.
const AT_ONCE: Duration = Duration::from_millis(900);
/// A SYN is sent again after a second, and once more after three.
const PATIENCE: Duration = Duration::from_secs(5);

/// How an attempt to connect fails, and how fast; `None` when it does not fail.
fn refusal(namespace: &Namespace, to: SocketAddr) -> Result<Option<(ErrorKind, Duration)>> {
    namespace.enter(move || {
        let begun = Instant::now();
        let failed = TcpStream::connect_timeout(&to, PATIENCE).err();
        failed.map(|error| (error.kind(), begun.elapsed()))
    })
}

/// The error that a datagram comes back as.
fn datagram(namespace: &Namespace, to: SocketAddr) -> Result<std::io::Error> {
    namespace
        .enter(move || -> std::io::Result<std::io::Error> {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(AT_ONCE))?;
            socket.send(b"anybody there?")?;
            let mut buffer = [0; 16];
            Ok(socket
                .recv(&mut buffer)
                .err()
                .unwrap_or_else(|| ErrorKind::Other.into()))
        })?
        .context("no datagram could be sent")
}

fn refused_at_once(namespace: &Namespace, to: SocketAddr) -> Result<()> {
    let refusal = refusal(namespace, to)?;
    ensure!(
        matches!(refusal, Some((ErrorKind::ConnectionRefused, took)) if took < AT_ONCE),
        "connecting to {to} must be refused at once: {refusal:?}"
    );
    Ok(())
}

#[test]
fn a_forbidden_destination_fails_at_once_and_hangs_where_the_location_wants_no_answers()
-> Result<()> {
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let user = gate.add_user("alice")?;
        let peer = gate.add_peer(0, &user)?;
        for server in [SERVER_V4, SERVER_V6] {
            refused_at_once(&peer.namespace, (server, 7).into())?;
            let error = datagram(&peer.namespace, (server, 7).into())?;
            // "Administratively prohibited" as Linux passes it on.
            let wanted = if server.is_ipv4() {
                errno::EHOSTUNREACH
            } else {
                errno::EACCES
            };
            ensure!(
                error.raw_os_error() == Some(wanted),
                "a datagram to {server}: {error}"
            );
        }
        // The portal, reachable before login, is not refused.
        ensure!(peer.reaches_portal()?, "the portal");

        gate.ask(&["location", "set", "office", "--answer-drops", "false"])?;
        eventually("the gateway falls silent", SOON, || {
            let refusal = refusal(&peer.namespace, (SERVER_V4, 7).into())?;
            Ok(matches!(refusal, Some((_, took)) if took >= PATIENCE - Duration::from_millis(100)))
        })?;
        Ok(())
    })
}

#[test]
fn who_may_not_reach_a_peer_is_told_at_once() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        let _echo = Echo::start(&peer.namespace, 7)?;
        for address in [peer.v4, peer.v6] {
            for from in [&gate.world.server, gate.namespace()] {
                refused_at_once(from, (address, 7).into())?;
                let error = datagram(from, (address, 7).into())?;
                let wanted = if address.is_ipv4() {
                    errno::EHOSTUNREACH
                } else {
                    errno::EACCES
                };
                ensure!(
                    error.raw_os_error() == Some(wanted),
                    "a datagram to {address}: {error}"
                );
            }
            // inv3: an answer in the peer's name has opened nothing.
            refused_at_once(&gate.world.server, (address, 7).into())?;
        }
        Ok(())
    })
}

#[test]
fn inv4_a_flow_that_a_revocation_cuts_is_silent_and_new_ones_are_refused() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let (user, peer) = gate.add_logged_in(0, "alice")?;
        let transfer = Transfer::start(&peer.namespace, (SERVER_V4, 7).into())?;
        eventually("the transfer runs", SOON, || {
            Ok(transfer.received() > 10_000)
        })?;
        gate.ask(&["session", "revoke", "--user", "alice"])?;
        refused_at_once(&peer.namespace, (SERVER_V4, 7).into())?;
        let before = transfer.received();
        std::thread::sleep(SILENCE);
        ensure!(transfer.received() == before, "nothing passes");
        // A reset would have ended the connection; a new login resumes it.
        peer.login(&user)?;
        eventually("the transfer goes on", SOON, || {
            Ok(transfer.received() > before + 10_000)
        })?;
        Ok(())
    })
}

/// Numbers of Linux on every architecture that it shares them on.
mod errno {
    pub(super) const EACCES: i32 = 13;
    pub(super) const EHOSTUNREACH: i32 = 113;
}
