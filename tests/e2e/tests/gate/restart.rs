//! Dying and coming back.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e_tests::flows::{Echo, Probe, Transfer, ping};
use e2e_tests::{Mode, Options, SERVER_V4, eventually, for_a_while, with_gate};

use crate::{INTERVAL, SILENCE, SOON, echo_v4, echo_v6};

#[test]
fn inv1_killing_and_restarting_agent_and_control_loses_no_packet_and_resets_no_handshake()
-> Result<()> {
    with_gate(
        Options {
            mode: Mode::Split,
            ..Options::default()
        },
        |gate| {
            let _echo = Echo::start(&gate.world.server, 7)?;
            let (_, peer) = gate.add_logged_in(0, "alice")?;
            let locked = gate.add_user("bob")?;
            let other = gate.add_peer(1, &locked)?;
            let probes = [
                Probe::start(&peer.namespace, echo_v4(), INTERVAL)?,
                Probe::start(&peer.namespace, echo_v6(), INTERVAL)?,
            ];
            let transfer = Transfer::start(&peer.namespace, echo_v4())?;
            eventually("everything flows", SOON, || {
                Ok(probes.iter().all(|p| p.answered() > 10))
            })?;
            let handshake = gate.settled_handshake(&peer.public_key)?;

            gate.kill("agent")?;
            ensure!(!other.pings(SERVER_V4)?, "a dead agent opens nothing");
            gate.start_service("agent")?;
            gate.wait_in_sync()?;
            gate.kill("control")?;
            ensure!(!other.pings(SERVER_V4)?, "nor does a dead control");
            gate.start_service("control")?;
            gate.wait_in_sync()?;
            gate.kill_all()?;
            for_a_while("live sessions go on with both dead", SILENCE, || {
                Ok(probes.iter().all(|probe| probe.is_alive_within(SILENCE)))
            })?;
            ensure!(
                !ping(&other.namespace, SERVER_V4)?,
                "and locked ones stay locked"
            );
            gate.start_service("control")?;
            gate.start_service("agent")?;
            gate.wait_in_sync()?;

            let sessions = gate.ask(&["session", "list"])?;
            ensure!(
                sessions["sessions"]
                    .as_array()
                    .is_some_and(|all| all.len() == 1),
                "nobody was logged out: {sessions}"
            );
            let received = transfer.received();
            eventually("the same TCP connection still moves", SOON, || {
                Ok(transfer.received() > received)
            })?;
            for probe in probes {
                let report = probe.finish()?;
                ensure!(
                    report.lost() == 0,
                    "of {} datagrams {} were lost",
                    report.sent,
                    report.lost()
                );
            }
            ensure!(
                gate.keeps_keys(&peer.public_key, handshake)?,
                "a WireGuard session was reset"
            );
            Ok(())
        },
    )
}

#[test]
fn inv1_one_process_restarts_as_well_and_sigterm_closes_nothing() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
        eventually("datagrams come back", SOON, || Ok(probe.answered() > 10))?;
        gate.kill("up")?;
        gate.start_service("up")?;
        gate.wait_in_sync()?;
        gate.terminate("up")?;
        for_a_while("the session goes on", SILENCE, || {
            Ok(probe.is_alive_within(SILENCE))
        })?;
        gate.start_service("up")?;
        gate.wait_in_sync()?;
        let report = probe.finish()?;
        ensure!(
            report.lost() == 0,
            "of {} datagrams {} were lost",
            report.sent,
            report.lost()
        );

        // What ended while nobody watched is ended when somebody looks again.
        let revoked = gate.ask(&["session", "revoke", "--all"])?;
        ensure!(
            revoked["done"] == true && !peer.pings(SERVER_V4)?,
            "the adopted session can be revoked: {revoked}"
        );
        Ok(())
    })
}

#[test]
fn inv1_an_agent_that_starts_without_control_keeps_what_the_kernel_has() -> Result<()> {
    with_gate(
        Options {
            mode: Mode::Split,
            ..Options::default()
        },
        |gate| {
            let _echo = Echo::start(&gate.world.server, 7)?;
            let (_, peer) = gate.add_logged_in(0, "alice")?;
            let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
            eventually("datagrams come back", SOON, || Ok(probe.answered() > 10))?;
            gate.kill_all()?;
            gate.start_service("agent")?;
            for_a_while("the session goes on", Duration::from_secs(8), || {
                Ok(probe.answered() == 0 || probe.is_alive_within(SILENCE))
            })?;
            let report = probe.finish()?;
            ensure!(
                report.lost() == 0,
                "of {} datagrams {} were lost",
                report.sent,
                report.lost()
            );
            Ok(())
        },
    )
}

#[test]
fn teardown_removes_everything_and_only_teardown_does() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        gate.terminate("up")?;
        ensure!(
            gate.has_interface()? && peer.pings(SERVER_V4)?,
            "ending the service leaves all in place"
        );
        let output = gate.teardown()?;
        ensure!(output.code == 0, "{output:?}");
        ensure!(!gate.has_interface()?, "the interface is gone");
        let pinned = walk(gate.pins())?;
        ensure!(pinned.is_empty(), "nothing is pinned any more: {pinned:?}");
        let again = gate.teardown()?;
        ensure!(again.code == 0, "tearing down twice is fine: {again:?}");
        Ok(())
    })
}

fn walk(dir: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    if dir.exists() {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                files.extend(walk(&path)?)
            } else {
                files.push(path)
            }
        }
    }
    Ok(files)
}
