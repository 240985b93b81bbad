//! Cutting off what runs.

use anyhow::{Context as _, Result, ensure};
use e2e_tests::flows::{Echo, Pinger, Probe, Transfer};
use e2e_tests::{Options, SERVER_V4, eventually, with_gate};

use crate::{INTERVAL, SILENCE, SOON, echo_v4, echo_v6};

#[test]
fn inv4_revocation_cuts_a_running_transfer_and_a_running_ping_and_nobody_else() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let (alice, first) = gate.add_logged_in(0, "alice")?;
        let (_, second) = gate.add_logged_in(1, "bob")?;
        let transfers = [
            Transfer::start(&first.namespace, echo_v4())?,
            Transfer::start(&first.namespace, echo_v6())?,
        ];
        let pinger = Pinger::start(&first.namespace, SERVER_V4)?;
        let other = Probe::start(&second.namespace, echo_v4(), INTERVAL)?;
        eventually("everything flows", SOON, || {
            Ok(transfers.iter().all(|t| t.received() > 10_000)
                && pinger.replies() > 2
                && other.answered() > 10)
        })?;

        let revoked = gate.ask(&["session", "revoke", "--user", "alice"])?;
        // What was already on its way back through the client's own stack arrives within this moment.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let at_revocation = (
            transfers.each_ref().map(Transfer::received),
            pinger.replies(),
        );

        ensure!(
            revoked["done"] == true,
            "every gateway has acknowledged: {revoked}"
        );
        ensure!(revoked["sessions"] == 1, "one session was ended: {revoked}");
        std::thread::sleep(SILENCE);
        let later = (
            transfers.each_ref().map(Transfer::received),
            pinger.replies(),
        );
        ensure!(
            at_revocation == later,
            "nothing may pass after it: {at_revocation:?} became {later:?}"
        );

        let report = other.finish()?;
        ensure!(
            report.lost() == 0,
            "the other peer lost {} of {} datagrams",
            report.lost(),
            report.sent
        );
        first.login(&alice)?;
        ensure!(
            first.pings(SERVER_V4)?,
            "a new login opens the tunnel again"
        );
        Ok(())
    })
}

#[test]
fn inv4_each_way_to_revoke_cuts() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        let device = peer.device.clone();
        let session = gate.ask(&["session", "list"])?;
        let id = session["sessions"][0]["id"]
            .as_str()
            .context("there is a session")?
            .to_owned();
        let ways: [&[&str]; 5] = [
            &["--session", &id],
            &["--device", &device],
            &["--user", "alice"],
            &["--location", "office"],
            &["--all"],
        ];
        for way in ways {
            if !peer.pings(SERVER_V4)? {
                gate.ask(&["session", "add", "--device", &device])?;
                eventually("a granted session opens", SOON, || peer.pings(SERVER_V4))?;
            }
            let revoked = gate.ask(&[&["session", "revoke"], way].concat())?;
            ensure!(revoked["done"] == true, "{way:?}: {revoked}");
            ensure!(!peer.pings(SERVER_V4)?, "{way:?} must cut");
        }
        Ok(())
    })
}

#[test]
fn inv4_disabling_or_removing_a_user_or_device_cuts() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let (alice, first) = gate.add_logged_in(0, "alice")?;
        let (_, second) = gate.add_logged_in(1, "bob")?;
        gate.ask(&["user", "disable", "alice"])?;
        ensure!(
            !first.pings(SERVER_V4)?,
            "a disabled user's session is over"
        );
        let refused = first.try_login(
            &alice,
            &alice.password,
            &["--totp-command", &alice.authenticator()],
        )?;
        ensure!(
            refused.code == 4,
            "a disabled user cannot log in: {refused:?}"
        );

        gate.ask(&["device", "remove", &second.device])?;
        ensure!(
            !second.pings(SERVER_V4)?,
            "a removed device's session is over"
        );
        ensure!(
            !gate.wg(&["peers"])?.contains(&second.public_key),
            "and its key is gone from the kernel"
        );

        gate.ask(&["user", "remove", "alice"])?;
        ensure!(
            !gate.wg(&["peers"])?.contains(&first.public_key),
            "as are a removed user's keys"
        );
        Ok(())
    })
}

#[test]
fn inv4_logging_out_cuts() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        ensure!(peer.pings(SERVER_V4)?, "logged in");
        let output = peer.portcullis(&["logout"])?;
        ensure!(output.code == 0, "{output:?}");
        eventually("the tunnel is closed", SOON, || Ok(!peer.pings(SERVER_V4)?))?;
        let status = peer.portcullis(&["login", "--status"])?;
        ensure!(
            status.code == 1,
            "--status tells that there is no session: {status:?}"
        );
        Ok(())
    })
}
