//! What a location demands of logins, in force at once.

use anyhow::{Result, ensure};
use e2e_tests::flows::{Echo, Probe};
use e2e_tests::{Options, SERVER_V4, eventually, with_gate};

use crate::{INTERVAL, SILENCE, SOON, echo_v4};

#[test]
fn inv4_raising_the_level_of_a_location_drops_the_next_packet() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let (alice, peer) = gate.add_logged_in(0, "alice")?;
        let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
        eventually("datagrams are answered", SOON, || Ok(probe.answered() > 10))?;

        let raised = gate.ask(&[
            "location",
            "set",
            "office",
            "--require",
            "phishing-resistant",
        ])?;
        // What was already on its way back through the client's own stack arrives within this moment.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let at_change = probe.answered();
        ensure!(
            raised["revocation"]["done"] == true && raised["revocation"]["sessions"] == 1,
            "every gateway has acknowledged the end of one session: {raised}"
        );
        std::thread::sleep(SILENCE);
        ensure!(probe.answered() == at_change, "nothing may pass after it");
        probe.finish()?;
        let refused = gate.admin(&["session", "add", "--device", &peer.device])?;
        ensure!(
            refused.code == 1 && refused.stderr.contains("phishing-resistant"),
            "an administrator grants nothing below it: {refused:?}"
        );

        gate.ask(&["location", "set", "office", "--require", "mfa"])?;
        ensure!(
            !peer.pings(SERVER_V4)?,
            "lowering it opens nothing by itself"
        );
        peer.login(&alice)?;
        ensure!(peer.pings(SERVER_V4)?, "a new login does");
        Ok(())
    })
}

#[test]
fn inv2_a_shorter_idle_timeout_reaches_running_sessions() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        ensure!(peer.pings(SERVER_V4)?, "logged in");
        let shorter = gate.ask(&["location", "set", "office", "--idle-timeout", "2s"])?;
        ensure!(
            shorter["revocation"]["done"] == true && shorter["revocation"]["shortened"] == 1,
            "the session has it: {shorter}"
        );
        std::thread::sleep(std::time::Duration::from_secs(3));
        ensure!(!peer.pings(SERVER_V4)?, "idle for too long by now");
        Ok(())
    })
}
