//! What a session permits, and what it does not.

use anyhow::{Result, ensure};
use e2e_tests::flows::{Echo, Probe, Transfer, connects, ping};
use e2e_tests::{Options, SERVER_V4, SERVER_V6, eventually, with_gate};

use crate::{INTERVAL, SOON, echo_v4, echo_v6};

#[test]
fn inv3_after_login_replies_pass_and_unsolicited_traffic_does_not() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let (_, peer) = gate.add_logged_in(0, "alice")?;

        ensure!(
            peer.pings(SERVER_V4)? && peer.pings(SERVER_V6)?,
            "the server answers pings of both versions"
        );
        for to in [echo_v4(), echo_v6()] {
            let transfer = Transfer::start(&peer.namespace, to)?;
            eventually("a TCP transfer moves in both directions", SOON, || {
                Ok(transfer.received() > 10_000)
            })?;
            let probe = Probe::start(&peer.namespace, to, INTERVAL)?;
            eventually("datagrams come back", SOON, || Ok(probe.answered() > 20))?;
            let report = probe.finish()?;
            ensure!(
                report.lost() == 0,
                "of {} datagrams {} were lost",
                report.sent,
                report.lost()
            );
        }

        // A session lets the peer out; it lets nobody in.
        let _open = Echo::start(&peer.namespace, 8080)?;
        for address in [peer.v4, peer.v6] {
            ensure!(
                !connects(&gate.world.server, (address, 8080).into())?,
                "unsolicited TCP to {address} must drop"
            );
            ensure!(
                !ping(&gate.world.server, address)?,
                "unsolicited ping of {address} must drop"
            );
        }
        Ok(())
    })
}

#[test]
fn inv3_one_peers_session_is_of_no_use_to_another() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let (_, alice) = gate.add_logged_in(0, "alice")?;
        let user = gate.add_user("bob")?;
        let bob = gate.add_peer(1, &user)?;
        ensure!(alice.pings(SERVER_V4)?, "alice is logged in");
        ensure!(!bob.pings(SERVER_V4)?, "bob is not");
        // Peer to peer has to satisfy both: alice's session does not open bob's device, nor bob's key alice's.
        let _bobs = Echo::start(&bob.namespace, 8080)?;
        ensure!(
            !connects(&alice.namespace, (bob.v4, 8080).into())?,
            "alice must not reach bob's device"
        );
        ensure!(
            !ping(&bob.namespace, alice.v4)?,
            "bob must not reach alice's device"
        );
        // Spoofing the other's address ends in WireGuard's cryptokey routing; the portal does not take it either.
        let refused = bob.try_login(&user, "not the password", &["--totp", "000000"])?;
        ensure!(
            refused.code == 4,
            "a wrong password is refused with 4, not {}",
            refused.code
        );
        bob.login(&user)?;
        ensure!(
            bob.pings(SERVER_V4)?,
            "bob's own login opens bob's own tunnel"
        );
        ensure!(alice.pings(SERVER_V4)?, "and alice's stays as it was");
        Ok(())
    })
}
