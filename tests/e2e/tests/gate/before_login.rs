//! What a tunnel without a session is good for.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use e2e_tests::flows::{Echo, connects};
use e2e_tests::{Options, SERVER_V4, SERVER_V6, with_gate};

use crate::{echo_v4, echo_v6};

#[test]
fn inv1_before_login_a_peer_reaches_the_portal_and_nothing_else() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        // A second service on the gateway itself: only the portal's port is open, not the gateway.
        let _other = Echo::start(gate.namespace(), 8443)?;
        let user = gate.add_user("alice")?;
        let peer = gate.add_peer(0, &user)?;

        ensure!(peer.latest_handshake()? > 0, "the tunnel itself is up");
        ensure!(peer.reaches_portal()?, "the portal is reachable");
        for (what, to) in [
            ("the server", SERVER_V4),
            ("the server over IPv6", SERVER_V6),
        ] {
            ensure!(
                !peer.pings(to)?,
                "{what} must not answer a ping before login"
            );
        }
        ensure!(!peer.pings("10.77.0.1".parse()?)?, "nor may the gateway");
        for to in [
            echo_v4(),
            echo_v6(),
            "10.77.0.1:8443".parse::<SocketAddr>()?,
            "10.9.0.1:8443".parse()?,
        ] {
            ensure!(
                !connects(&peer.namespace, to)?,
                "{to} must not accept a connection before login"
            );
        }

        // Invariant 9: every drop is counted under its reason.
        gate.wait_for_drop("locked")?;
        Ok(())
    })
}

#[test]
fn inv3_before_login_nothing_reaches_the_peer() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let user = gate.add_user("alice")?;
        let peer = gate.add_peer(0, &user)?;
        let _echo = Echo::start(&peer.namespace, 7)?;
        for address in [peer.v4, peer.v6] {
            ensure!(
                !connects(&gate.world.server, (address, 7).into())?,
                "the server must not reach {address}"
            );
            ensure!(
                !e2e_tests::flows::ping(&gate.world.server, address)?,
                "nor ping it"
            );
        }
        // Invariant 9: every drop is counted under its reason.
        gate.wait_for_drop("unsolicited")?;
        Ok(())
    })
}
