//! Hand-made changes against desired state.

use anyhow::{Context as _, Result, ensure};
use e2e_tests::flows::{Echo, Probe};
use e2e_tests::{Options, SERVER_V4, eventually, run, with_gate};

use crate::{INTERVAL, SOON, echo_v4};

/// Any valid key that is nobody's.
const STRANGER: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

#[test]
fn inv5_hand_made_changes_to_peers_are_undone_and_others_left_alone() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        let bob = gate.add_user("bob")?;
        let other = gate.add_peer_with(1, &bob, &["--preshared-key"], None)?;
        let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
        let psk = preshared_key(gate, &other.public_key)?;
        ensure!(
            psk.len() == 44,
            "the kernel holds the device's pre-shared key"
        );
        let set = |args: &[&str]| {
            run(
                gate.namespace()
                    .command("wg")
                    .args(["set", "wg0"])
                    .args(args),
                "",
            )
        };

        set(&["peer", STRANGER, "allowed-ips", "10.77.0.77/32"])?;
        set(&["peer", &other.public_key, "preshared-key", "/dev/null"])?;
        eventually("the stranger is gone and the key is back", SOON, || {
            Ok(!gate.wg(&["peers"])?.contains(STRANGER)
                && preshared_key(gate, &other.public_key)? == psk)
        })?;
        set(&["peer", &other.public_key, "allowed-ips", "10.77.0.99/32"])?;
        eventually("its addresses are back", SOON, || {
            let shown = gate.wg(&["allowed-ips"])?;
            let line = shown
                .lines()
                .find(|line| line.starts_with(&other.public_key))
                .unwrap_or_default();
            Ok(line.contains(&other.v4.to_string()) && !line.contains("10.77.0.99"))
        })?;
        set(&["peer", &other.public_key, "remove"])?;
        eventually("the removed peer is back", SOON, || {
            Ok(preshared_key(gate, &other.public_key).is_ok_and(|key| key == psk))
        })?;

        let report = probe.finish()?;
        ensure!(
            report.answered > 0 && report.lost() == 0,
            "the other peer lost {} of {}",
            report.lost(),
            report.sent
        );
        ensure!(!other.pings(SERVER_V4)?, "no repair opened anything");
        Ok(())
    })
}

fn preshared_key(gate: &e2e_tests::Gate, public_key: &str) -> Result<String> {
    let shown = gate.wg(&["preshared-keys"])?;
    let line = shown
        .lines()
        .find(|line| line.starts_with(public_key))
        .context("no such peer")?;
    Ok(line
        .split_whitespace()
        .nth(1)
        .unwrap_or_default()
        .to_owned())
}
