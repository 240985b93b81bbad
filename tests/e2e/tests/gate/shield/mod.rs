//! The shield on the gateway's network card, before WireGuard.

mod cut_off;
mod live_peers;

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e_tests::flows::{Echo, Probe};
use e2e_tests::{Gate, Mode, Options, SERVER_V4, eventually, for_a_while, run, with_gate};

use crate::{INTERVAL, SILENCE, SOON, echo_v4};

const SHIELDED: Options = Options {
    location: "gate",
    mode: Mode::Split,
    lifetime: "1h",
    idle_timeout: None,
    disk: None,
    routes: &["10.9.0.0/24", "fd09::/64"],
    shield: true,
    metrics: "",
};

#[test]
fn shield_drops_forged_messages_and_none_of_the_peers() -> Result<()> {
    with_gate(SHIELDED, |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
        eventually("datagrams come back", SOON, || Ok(probe.answered() > 10))?;

        // While it learns, what it does not know passes.
        send(gate, 1, 20, |i| message(4, 0xbad0_0000 + i, 128))?;
        eventually("the shield reports", SOON, || {
            Ok(gate.counted("learning", "shield")? >= 20)
        })?;
        end_learning(gate)?;

        let before = received(gate)?;
        send(gate, 1, 500, |i| {
            message(4, i.wrapping_mul(0x9e37_79b1), 128)
        })?;
        send(gate, 0, 100, |i| message(2, 7 + i, 92))?;
        send(gate, 1, 50, |i| message(3, 7 + i, 64))?;
        send(gate, 1, 50, |_| b"no WireGuard message".to_vec())?;
        let others = received(gate)? - before;
        ensure!(
            others < 300,
            "{others} datagrams reached the stack, the peer's included"
        );
        for (reason, least) in [("dead_index", 500), ("unexpected", 100), ("malformed", 50)] {
            eventually("every one is counted", SOON, || {
                Ok(gate.counted(reason, "shield")? >= least)
            })?;
        }

        // New keys, at the client's will and at the gateway's.
        for by_gateway in [false, true, false] {
            let old = gate.latest_handshake(&peer.public_key)?;
            std::thread::sleep(Duration::from_millis(1100));
            if by_gateway {
                gate.namespace()
                    .ip("link set wg0 down\nlink set wg0 up\n")?;
                let keepalive = [
                    "set",
                    "wg0",
                    "peer",
                    &peer.public_key,
                    "persistent-keepalive",
                    "1",
                ];
                run(gate.namespace().command("wg").args(keepalive), "")?;
            } else {
                peer.reconnect()?;
            }
            eventually("there is a new handshake", SOON, || {
                Ok(gate.latest_handshake(&peer.public_key)? > old)
            })?;
            eventually("and the tunnel works", SOON, || peer.pings(SERVER_V4))?;
        }
        let answered = probe.answered();
        eventually("the same flow goes on", SOON, || {
            Ok(probe.answered() > answered + 10)
        })?;
        ensure!(gate.counted("live", "shield")? > 0, "by the shield's leave");
        Ok(())
    })
}

#[test]
fn shield_outlives_the_agent_and_a_restart_cuts_nobody() -> Result<()> {
    with_gate(SHIELDED, |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        end_learning(gate)?;
        let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
        eventually("datagrams come back", SOON, || Ok(probe.answered() > 10))?;
        let handshake = gate.settled_handshake(&peer.public_key)?;

        gate.kill("agent")?;
        let passed = forged_that_passed(gate)?;
        ensure!(passed < 300, "{passed} passed a dead agent's shield");
        for_a_while("the peer goes on", SILENCE, || {
            Ok(probe.is_alive_within(SILENCE))
        })?;
        gate.start_service("agent")?;
        gate.wait_in_sync()?;
        let passed = forged_that_passed(gate)?;
        ensure!(passed < 300, "{passed} passed: it has begun to learn again");
        eventually("each of them is counted", SOON, || {
            Ok(gate.counted("dead_index", "shield")? >= 2000)
        })?;
        let report = probe.finish()?;
        ensure!(
            report.lost() == 0,
            "of {} datagrams {} were lost",
            report.sent,
            report.lost()
        );
        ensure!(
            gate.keeps_keys(&peer.public_key, handshake)?,
            "under the same keys"
        );

        gate.terminate("agent")?;
        ensure!(xdp(gate)?, "ending the service leaves it in place");
        let output = gate.teardown()?;
        ensure!(output.code == 0, "{output:?}");
        ensure!(!xdp(gate)?, "teardown takes it away");
        let filters = run(
            gate.namespace()
                .command("tc")
                .args(["filter", "show", "dev", "wan0", "egress"]),
            "",
        )?;
        ensure!(filters.stdout.trim().is_empty(), "{}", filters.stdout);
        Ok(())
    })
}

#[test]
fn shield_budgets_a_flood_of_initiations_and_others_still_get_in() -> Result<()> {
    with_gate(SHIELDED, |gate| {
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        end_learning(gate)?;
        let before = received(gate)?;
        send(gate, 1, 1000, |i| message(1, i, 148))?;
        let passed = received(gate)? - before;
        ensure!(passed < 200, "{passed} of 1000 initiations passed");
        eventually("the rest is counted", SOON, || {
            Ok(gate.counted("source_budget", "shield")? > 800)
        })?;
        let old = gate.latest_handshake(&peer.public_key)?;
        std::thread::sleep(Duration::from_millis(1100));
        send(gate, 1, 200, |i| message(1, i, 148))?;
        peer.reconnect()?;
        eventually("a peer elsewhere shakes hands", SOON, || {
            Ok(peer.pings(SERVER_V4)? && gate.latest_handshake(&peer.public_key)? > old)
        })?;
        Ok(())
    })
}

/// A message of this type for this index, of this length.
fn message(kind: u8, index: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend(index.to_le_bytes());
    bytes.extend(index.to_le_bytes());
    bytes.resize(length, 0x5a);
    bytes
}

/// Sends messages to WireGuard's port from where a peer is.
fn send(gate: &Gate, place: usize, count: u32, message: fn(u32) -> Vec<u8>) -> Result<()> {
    send_to(gate, place, "192.0.2.1:51820", count, message)
}

/// The same to this address of the gateway's.
fn send_to(
    gate: &Gate,
    place: usize,
    to: &str,
    count: u32,
    message: fn(u32) -> Vec<u8>,
) -> Result<()> {
    let to: SocketAddr = to.parse()?;
    gate.world.peers[place].enter(move || -> Result<()> {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        for i in 0..count {
            socket.send_to(&message(i), to)?;
            // No queue on the way is to overflow.
            if i % 20 == 19 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    })?
}

/// Of 1000 forged data messages, those that reached the gateway's stack, and what a probe has sent in the meantime.
fn forged_that_passed(gate: &Gate) -> Result<u64> {
    let before = received(gate)?;
    send(gate, 1, 1000, |i| {
        message(4, (i + 3).wrapping_mul(0x9e37_79b1), 128)
    })?;
    Ok(received(gate)? - before)
}

/// UDP datagrams that the gateway's stack has taken, WireGuard's included: the kernel's own account.
fn received(gate: &Gate) -> Result<u64> {
    // Frames pass through softirqs of a slow machine.
    std::thread::sleep(Duration::from_millis(500));
    let table = gate
        .namespace()
        .enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    table
        .lines()
        .filter_map(|line| line.strip_prefix("Udp: "))
        .nth(1)
        .and_then(|values| values.split(' ').next()?.parse().ok())
        .context("the kernel tells no InDatagrams")
}

/// As if the time had passed in which the shield learns: the first word of its settings. The agent writes them too, at
/// each change of the gateway's addresses: it must have done so before, or what it writes meanwhile is undone here.
fn end_learning(gate: &Gate) -> Result<()> {
    let pin = settings(gate)?;
    let mut value = read(&pin)?;
    value[..8].fill("00".to_owned());
    let mut update = Command::new("bpftool");
    update.args(["map", "update", "pinned"]).arg(&pin);
    update
        .args(["key", "hex", "00", "00", "00", "00", "value", "hex"])
        .args(&value);
    run(&mut update, "")?;
    Ok(())
}

/// Whether the agent has told the shield of this address of the gateway's.
fn knows(gate: &Gate, address: Ipv6Addr) -> Result<bool> {
    let address = address.octets().map(|byte| format!("{byte:02x}"));
    let value = read(&settings(gate)?)?;
    Ok(value.windows(address.len()).any(|bytes| bytes == address))
}

/// The shield's settings as they lie in memory, a byte in hexadecimal each.
fn read(pin: &Path) -> Result<Vec<String>> {
    let mut dump = Command::new("bpftool");
    dump.args(["--json", "map", "dump", "pinned"]).arg(pin);
    let dump: serde_json::Value = serde_json::from_str(&run(&mut dump, "")?.stdout)?;
    Ok(dump[0]["value"]
        .as_array()
        .context("the settings have a value")?
        .iter()
        .filter_map(|byte| {
            byte.as_str()
                .map(|byte| byte.trim_start_matches("0x").to_owned())
        })
        .collect())
}

/// The pin of the shield's settings, under whichever version and network namespace.
fn settings(gate: &Gate) -> Result<PathBuf> {
    for version in std::fs::read_dir(gate.pins())? {
        for pins in std::fs::read_dir(version?.path())? {
            let pins = pins?;
            if pins.file_name().to_string_lossy().ends_with("wg0%shield") {
                return Ok(pins.path().join("SHIELD_SETTINGS"));
            }
        }
    }
    anyhow::bail!("the shield has no pins")
}

/// Whether there is an XDP program on the card.
fn xdp(gate: &Gate) -> Result<bool> {
    let shown = run(
        gate.namespace()
            .command("ip")
            .args(["link", "show", "dev", "wan0"]),
        "",
    )?;
    Ok(shown.stdout.contains("prog/xdp"))
}
