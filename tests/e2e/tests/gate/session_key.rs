//! Locations where a device is a peer only while it has a session, with a key of its own.

use anyhow::{Context as _, Result, ensure};
use e2e_tests::flows::{Echo, Probe, connects};
use e2e_tests::{Gate, Options, Peer, SERVER_V4, SERVER_V6, eventually, with_gate};
use serde_json::Value;

use crate::{INTERVAL, SILENCE, SOON, echo_v4};

/// Zero, which WireGuard takes for none.
const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn vault() -> Options {
    Options {
        location: "session-key",
        ..Options::default()
    }
}

/// Whether the gateway's kernel holds the peer, by its own account.
fn is_peer(gate: &Gate, peer: &Peer) -> Result<bool> {
    Ok(gate.wg(&["peers"])?.contains(&peer.public_key))
}

/// A session for the device, and its key.
fn connect(gate: &Gate, peer: &Peer, lifetime: &str) -> Result<(Value, String)> {
    let args = ["session", "add", "--device", &peer.device];
    let args = [&args[..], &["--lifetime", lifetime]].concat();
    let session = gate.ask(&args)?;
    let key = session["preshared_key"].as_str().context("a key")?;
    ensure!(is_peer(gate, peer)?, "shown once the kernel holds the peer");
    let held = gate.wg(&["preshared-keys"])?;
    ensure!(held.contains(key), "with this key");
    let key = key.to_owned();
    peer.use_preshared_key(&key)?;
    Ok((session, key))
}

/// Forgets the tunnel's keys, and tries whether a new handshake succeeds.
fn handshakes(peer: &Peer) -> Result<bool> {
    peer.reconnect()?;
    let before = peer.latest_handshake()?;
    // Each makes the client ask, at most every five seconds.
    for _ in 0..3 {
        if peer.pings(SERVER_V4)? || peer.latest_handshake()? != before {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn inv1_no_handshake_without_a_session_and_none_after_it() -> Result<()> {
    with_gate(vault(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let user = gate.add_user("alice")?;
        let peer = gate.add_silent_peer(0, &user, &[], None)?;
        ensure!(!is_peer(gate, &peer)?);
        ensure!(!peer.pings(SERVER_V4)? && !peer.reaches_portal()?);
        ensure!(peer.latest_handshake()? == 0, "an initiation was answered");

        let (_, first) = connect(gate, &peer, "1h")?;
        for to in [SERVER_V4, SERVER_V6] {
            eventually("traffic passes", SOON, || peer.pings(to))?;
        }
        ensure!(
            !connects(&gate.world.server, (peer.v4, 7).into())?,
            "nothing unasked for"
        );

        // The next packet is dropped, and the peer goes.
        let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
        eventually("it flows", SOON, || Ok(probe.answered() > 10))?;
        let revoked = gate.ask(&["session", "revoke", "--device", &peer.device])?;
        ensure!(revoked["done"] == true, "{revoked}");
        // What was already on its way back through the client's own stack arrives within this moment.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let answered = probe.answered();
        std::thread::sleep(SILENCE);
        ensure!(probe.answered() == answered, "it still flows");
        probe.finish()?;
        ensure!(!is_peer(gate, &peer)?, "the peer is still there");
        ensure!(!handshakes(&peer)?, "after the session");

        // Neither the old key nor none opens the next session.
        let (_, second) = connect(gate, &peer, "1h")?;
        ensure!(first != second, "each session has its own key");
        for wrong in [first.as_str(), NONE] {
            peer.use_preshared_key(wrong)?;
            ensure!(!handshakes(&peer)?, "with the key {wrong}");
        }
        peer.use_preshared_key(&second)?;
        eventually("with its own", SOON, || peer.pings(SERVER_V4))?;
        Ok(())
    })
}

#[test]
fn inv1_a_newer_session_leaves_nothing_to_who_has_only_the_older_ones_keys() -> Result<()> {
    with_gate(vault(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let user = gate.add_user("alice")?;
        let peer = gate.add_silent_peer(0, &user, &[], None)?;
        connect(gate, &peer, "1h")?;
        let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
        eventually("it flows", SOON, || Ok(probe.answered() > 10))?;

        // Of the same device, by somebody else who has its private key, or has copied it: the transport keys of the
        // first one's last handshake are good for three minutes by WireGuard's own rules.
        let newer = gate.ask(&["session", "add", "--device", &peer.device])?;
        eventually("it is cut", SOON, || Ok(!probe.is_alive_within(SILENCE)))?;
        ensure!(!peer.pings(SERVER_V4)? && !handshakes(&peer)?);
        probe.finish()?;

        peer.use_preshared_key(newer["preshared_key"].as_str().context("a key")?)?;
        eventually("with the newer one's", SOON, || peer.pings(SERVER_V4))?;
        Ok(())
    })
}

#[test]
fn inv2_the_deadline_cuts_with_every_process_killed_and_the_peer_goes_when_they_are_back()
-> Result<()> {
    with_gate(vault(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let user = gate.add_user("alice")?;
        let peer = gate.add_silent_peer(0, &user, &[], None)?;
        connect(gate, &peer, "60s")?;
        eventually("traffic passes", SOON, || peer.pings(SERVER_V4))?;
        gate.kill_all()?;
        let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
        eventually("it outlives them", SOON, || Ok(probe.answered() > 10))?;
        eventually(
            "the deadline cuts",
            std::time::Duration::from_secs(90),
            || Ok(!probe.is_alive_within(SILENCE)),
        )?;
        probe.finish()?;
        gate.start()?;
        eventually("the peer goes", SOON, || Ok(!is_peer(gate, &peer)?))?;
        ensure!(!handshakes(&peer)?);
        Ok(())
    })
}
