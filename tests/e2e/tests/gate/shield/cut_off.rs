//! Peers that are locked or removed: their indexes are dead at once.

use anyhow::{Result, ensure};
use e2e_tests::flows::{Echo, Probe};
use e2e_tests::{Gate, Peer, SERVER_V4, eventually, with_gate};

use super::{SHIELDED, end_learning};
use crate::{INTERVAL, SOON, echo_v4};

#[test]
fn shield_forgets_a_removed_peer_at_once() -> Result<()> {
    with_gate(SHIELDED, |gate| {
        let (_, gone) = gate.add_logged_in(0, "alice")?;
        let (_, stays) = gate.add_logged_in(1, "bob")?;
        end_learning(gate)?;
        let dead = gate.counted("dead_index", "shield")?;
        gate.ask(&["device", "remove", &gone.device])?;
        gate.wait_in_sync()?;
        // The client does not know, and goes on under its keys.
        ensure!(!gone.pings(SERVER_V4)?, "it is gone");
        eventually("its packets are dropped on the card", SOON, || {
            Ok(gate.counted("dead_index", "shield")? > dead)
        })?;
        ensure!(stays.pings(SERVER_V4)?, "and nobody else's");
        Ok(())
    })
}

#[test]
fn inv4_a_revoked_peers_index_is_dead_at_once_and_its_next_handshake_reaches_the_portal()
-> Result<()> {
    with_gate(SHIELDED, |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let (user, cut) = gate.add_logged_in(0, "alice")?;
        let (_, stays) = gate.add_logged_in(1, "bob")?;
        end_learning(gate)?;
        let probe = Probe::start(&stays.namespace, echo_v4(), INTERVAL)?;
        ensure!(
            cut.pings(SERVER_V4)? && stays.pings(SERVER_V4)?,
            "both are in"
        );
        let dead = gate.counted("dead_index", "shield")?;

        gate.ask(&["session", "revoke", "--user", &user.name])?;
        // Not before: a slow machine's client may just have made new keys.
        let handshake = gate.latest_handshake(&cut.public_key)?;
        let received = received_from(gate, &cut)?;
        ensure!(!cut.pings(SERVER_V4)?, "it is locked");
        ensure!(
            received_from(gate, &cut)? == received,
            "its packets must not have been decrypted"
        );
        ensure!(
            gate.latest_handshake(&cut.public_key)? == handshake,
            "they came under the old keys"
        );
        eventually("they are dropped on the card", SOON, || {
            Ok(gate.counted("dead_index", "shield")? > dead)
        })?;

        // A client that hears nothing for 15 s shakes hands anew; it may log in again then, and no sooner.
        eventually("it reaches the portal again", SOON, || cut.reaches_portal())?;
        ensure!(
            gate.latest_handshake(&cut.public_key)? > handshake,
            "under new keys"
        );
        ensure!(!cut.pings(SERVER_V4)?, "and nothing else");
        cut.login(&user)?;
        ensure!(cut.pings(SERVER_V4)?, "it is in again");
        let report = probe.finish()?;
        ensure!(
            report.lost() == 0,
            "of somebody else's {} datagrams {} were lost",
            report.sent,
            report.lost()
        );
        Ok(())
    })
}

/// Bytes that WireGuard has decrypted of this peer's, by its own account.
fn received_from(gate: &Gate, peer: &Peer) -> Result<String> {
    let shown = gate.wg(&["transfer"])?;
    Ok(shown
        .lines()
        .find(|line| line.starts_with(&peer.public_key))
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap_or_default()
        .to_owned())
}
