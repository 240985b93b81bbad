//! What must not be cut: peers that roam, that come over IPv6, and that were there before the shield.

use std::net::Ipv6Addr;

use anyhow::{Result, ensure};
use e2e_tests::flows::{Echo, Probe, ping};
use e2e_tests::{Options, SERVER_V4, eventually, for_a_while, run, with_gate};

use super::{SHIELDED, end_learning, knows, message, send_to};
use crate::{INTERVAL, SILENCE, SOON, echo_v4};

#[test]
fn shield_lets_a_peer_roam_and_come_over_ipv6() -> Result<()> {
    with_gate(SHIELDED, |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        end_learning(gate)?;
        let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
        eventually("datagrams come back", SOON, || Ok(probe.answered() > 10))?;
        let handshake = gate.settled_handshake(&peer.public_key)?;

        // Another port, as behind a NAT that forgot, then another address.
        let wg = |args: &[&str]| run(peer.namespace.command("wg").args(args), "").map(drop);
        wg(&["set", "wg0", "listen-port", "40123"])?;
        ensure!(peer.pings(SERVER_V4)?, "from another port");
        peer.namespace.ip("address add 192.0.2.99/24 dev wan0\n\
             address delete 192.0.2.11/24 dev wan0\n\
             address replace 192.0.2.99/24 dev wan0\n")?;
        eventually("it works from another address", SOON, || {
            peer.pings(SERVER_V4)
        })?;
        eventually("the gateway has followed", SOON, || {
            Ok(gate.wg(&["endpoints"])?.contains("192.0.2.99:40123"))
        })?;
        ensure!(
            gate.keeps_keys(&peer.public_key, handshake)?,
            "under the same keys"
        );

        // Whatever the gateway still sends over IPv4 would call the client back.
        probe.finish()?;

        // The same tunnel over IPv6, once the agent has noticed the gateway's new address.
        let gateway: Ipv6Addr = "2001:db8::1".parse()?;
        gate.namespace()
            .ip(&format!("address add {gateway}/64 dev wan0 nodad\n"))?;
        for (place, namespace) in gate.world.peers.iter().enumerate() {
            namespace.ip(&format!(
                "address add 2001:db8::{}/64 dev wan0 nodad\n",
                11 + place
            ))?;
            eventually("there is IPv6 underneath", SOON, || {
                ping(namespace, gateway.into())
            })?;
        }
        let public_key = gate.wg(&["public-key"])?;
        eventually("it works over IPv6", SOON, || {
            let endpoint = format!("[{gateway}]:51820");
            wg(&[
                "set",
                "wg0",
                "peer",
                public_key.trim(),
                "endpoint",
                &endpoint,
            ])?;
            Ok(peer.pings(SERVER_V4)? && gate.wg(&["endpoints"])?.contains("[2001:db8::11]:40123"))
        })?;
        ensure!(
            gate.keeps_keys(&peer.public_key, handshake)?,
            "under the same keys"
        );
        eventually("the shield knows the address", SOON, || {
            knows(gate, gateway)
        })?;
        // The agent, which does not know that time has passed, has written its own with the address.
        end_learning(gate)?;
        let dead = gate.counted("dead_index", "shield")?;
        eventually("forged messages over IPv6 are dropped", SOON, || {
            send_to(gate, 1, "[2001:db8::1]:51820", 100, |i| {
                message(4, (i + 3).wrapping_mul(0x9e37_79b1), 128)
            })?;
            Ok(gate.counted("dead_index", "shield")? >= dead + 100)
        })?;
        ensure!(peer.pings(SERVER_V4)?, "and the peer's are not");
        peer.reconnect()?;
        eventually("a handshake over IPv6 is learned", SOON, || {
            Ok(peer.pings(SERVER_V4)? && gate.latest_handshake(&peer.public_key)? > handshake)
        })?;
        Ok(())
    })
}

#[test]
fn shield_put_on_a_running_gateway_cuts_nobody() -> Result<()> {
    let unshielded = Options {
        shield: false,
        ..SHIELDED
    };
    with_gate(unshielded, |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
        eventually("datagrams come back", SOON, || Ok(probe.answered() > 10))?;
        let handshake = gate.settled_handshake(&peer.public_key)?;
        ensure!(!super::xdp(gate)?, "off unless configured");

        gate.terminate("agent")?;
        gate.write_configuration(SHIELDED)?;
        gate.start_service("agent")?;
        gate.wait_in_sync()?;
        eventually("the shield is on", SOON, || super::xdp(gate))?;
        for_a_while("the peer goes on", SILENCE, || {
            Ok(probe.is_alive_within(SILENCE))
        })?;
        ensure!(
            gate.keeps_keys(&peer.public_key, handshake)?,
            "under keys that the shield has never seen"
        );
        eventually("because it learns", SOON, || {
            Ok(gate.counted("learning", "shield")? > 0)
        })?;

        // Off again: the next start takes it away.
        gate.terminate("agent")?;
        gate.write_configuration(unshielded)?;
        gate.start_service("agent")?;
        gate.wait_in_sync()?;
        ensure!(!super::xdp(gate)?, "nothing is left");
        let report = probe.finish()?;
        // A veth pair changes its way of receiving with each program that is put on or taken off, and
        // frees what lies in its ring: a datagram each time.
        ensure!(
            report.lost() <= 2,
            "of {} datagrams {} were lost",
            report.sent,
            report.lost()
        );
        Ok(())
    })
}
