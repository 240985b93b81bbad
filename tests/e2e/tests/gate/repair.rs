//! What somebody breaks under the agent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e_tests::flows::{Echo, Flood, Sink};
use e2e_tests::{Options, SERVER_V4, eventually, run, with_gate};

use crate::{INTERVAL, SOON};

#[test]
fn inv1_a_deleted_interface_is_rebuilt_closed() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        let bob = gate.add_user("bob")?;
        let locked = gate.add_peer(1, &bob)?;
        let leaked = Sink::start(&gate.world.server, 9, locked.v4)?;
        let flood = Flood::start(
            &locked.namespace,
            (SERVER_V4, 9).into(),
            Duration::from_millis(5),
        )?;
        let key = gate.wg(&["public-key"])?;

        for _ in 0..2 {
            gate.namespace().ip("link delete wg0\n")?;
            eventually("the interface is back with its peers", SOON, || {
                Ok(gate.has_interface()?
                    && gate
                        .wg(&["peers"])
                        .is_ok_and(|peers| peers.lines().count() == 2))
            })?;
            ensure!(gate.wg(&["public-key"])? == key, "under its own key");
            locked.reconnect()?;
            eventually("the locked peer has a tunnel again", SOON, || {
                Ok(gate.latest_handshake(&locked.public_key)? > 0)
            })?;
        }
        std::thread::sleep(Duration::from_secs(2));
        drop(flood);
        ensure!(
            leaked.arrived() == 0,
            "{} packets of a locked peer passed",
            leaked.arrived()
        );

        peer.reconnect()?;
        eventually("the live session passes again", SOON, || {
            peer.pings(SERVER_V4)
        })?;
        ensure!(!locked.pings(SERVER_V4)?, "and the locked peer does not");
        Ok(())
    })
}

#[test]
fn inv1_detached_programs_are_attached_again() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let bob = gate.add_user("bob")?;
        let locked = gate.add_peer(0, &bob)?;
        ensure!(!locked.pings(SERVER_V4)?, "locked");
        let links = pinned_links(gate.pins())?;
        if links.is_empty() {
            // Before tcx: the programs hang on the clsact qdisc.
            run(
                gate.namespace()
                    .command("tc")
                    .args(["qdisc", "delete", "dev", "wg0", "clsact"]),
                "",
            )?;
        }
        for link in &links {
            run(
                gate.namespace()
                    .command("bpftool")
                    .args(["link", "detach", "pinned"])
                    .arg(link),
                "",
            )?;
        }
        std::thread::sleep(INTERVAL);
        eventually(
            "enforcement is back",
            SOON,
            || Ok(!locked.pings(SERVER_V4)?),
        )?;
        gate.wait_in_sync()?;
        ensure!(!locked.pings(SERVER_V4)?, "and stays");
        Ok(())
    })
}

/// The pins that bpftool knows as links.
fn pinned_links(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut links = Vec::new();
    for entry in std::fs::read_dir(dir).context("there are pins")? {
        let path = entry?.path();
        if path.is_dir() {
            links.extend(pinned_links(&path)?);
        } else if run(
            std::process::Command::new("bpftool")
                .args(["link", "show", "pinned"])
                .arg(&path),
            "",
        )
        .is_ok()
        {
            links.push(path);
        }
    }
    Ok(links)
}
