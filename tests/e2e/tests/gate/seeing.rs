//! What an administrator sees of packets, peers and the kernel.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e_tests::flows::{Echo, Flood, Transfer, connects};
use e2e_tests::{Gate, Options, Peer, SERVER_V4, eventually, run, with_gate};
use serde_json::{Value, json};

use crate::{SILENCE, SOON, echo_v4};

/// Traces until so many packets were seen, while the peer keeps connecting to the server: a trace takes
/// a moment to reach the kernel, and what came before is not seen.
fn traced(gate: &Gate, peer: &Peer, count: &str, args: &[&str]) -> Result<Vec<Value>> {
    let arguments = [&["trace", "--count", count][..], args].concat();
    let namespace = &peer.namespace;
    let over = AtomicBool::new(false);
    let output = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // Whether it succeeds is what the trace is about.
                connects(namespace, echo_v4()).ok();
            }
        });
        let output = gate.admin(&arguments);
        over.store(true, Ordering::Relaxed);
        output
    })?;
    ensure!(
        output.code == 0,
        "trace ended with {}: {}",
        output.code,
        output.stderr
    );
    let lines = output.stdout.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().context("not JSON lines")
}

#[test]
fn a_trace_shows_what_is_dropped_and_what_is_opened() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let user = gate.add_user("alice")?;
        let peer = gate.add_peer(0, &user)?;
        let dropped = traced(
            gate,
            &peer,
            "1",
            &["--peer", "alice-device", "--reason", "locked"],
        )?;
        let packet = &dropped[0];
        for (field, wanted) in [
            ("verdict", "drop"),
            ("user", "alice"),
            ("direction", "from_peer"),
            ("protocol", "tcp"),
            ("destination", "10.9.0.2"),
            ("gateway", "local"),
        ] {
            ensure!(packet[field] == wanted, "{field}: {packet}");
        }
        ensure!(packet["destination_port"] == 7, "{packet}");
        peer.login(&user)?;
        let opened = traced(
            gate,
            &peer,
            "2",
            &["--user", "alice", "--reason", "session"],
        )?;
        ensure!(
            opened.iter().all(|packet| packet["verdict"] == "pass"),
            "{opened:?}"
        );
        Ok(())
    })
}

/// Devices that the lines of a trace are about, and how many packets it has lost.
fn told(lines: &str) -> Result<(BTreeSet<String>, u64)> {
    let (mut devices, mut lost) = (BTreeSet::new(), 0);
    for line in lines.lines() {
        let item: Value = serde_json::from_str(line).context("not a JSON line")?;
        lost = item["lost"].as_u64().context("a line tells of loss")?;
        if let Some(device) = item["device"].as_str() {
            devices.insert(device.to_owned());
        }
    }
    Ok((devices, lost))
}

#[test]
fn traces_run_side_by_side_end_on_interrupt_and_count_what_they_lose() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let (alice, bob) = (gate.add_user("alice")?, gate.add_user("bob")?);
        let (alice, bob) = (gate.add_peer(0, &alice)?, gate.add_peer(1, &bob)?);
        let to = (SERVER_V4, 9).into();
        let slow = Duration::from_millis(20);
        let floods = (
            Flood::start(&alice.namespace, to, slow)?,
            Flood::start(&bob.namespace, to, slow)?,
        );
        let mut traces = [
            gate.start_admin(&["trace", "--peer", "alice-device"])?,
            gate.start_admin(&["trace", "--peer", &bob.v4.to_string()])?,
            gate.start_admin(&["trace", "--reason", "locked"])?,
        ];
        for trace in &mut traces {
            trace.next_line()?;
        }
        thread::sleep(SILENCE);
        let mut devices = Vec::new();
        for trace in traces {
            let output = trace.interrupt()?;
            ensure!(
                output.code == 0,
                "an interrupted trace ends well: {}",
                output.stderr
            );
            devices.push(told(&output.stdout)?.0);
        }
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let wanted: [BTreeSet<String>; 3] = [
            names(&["alice-device"]),
            names(&["bob-device"]),
            names(&["alice-device", "bob-device"]),
        ];
        ensure!(devices == wanted, "{devices:?}");

        // More than the kernel tells of: what is missing is counted.
        let mut trace = gate.start_admin(&["trace", "--peer", "alice-device"])?;
        trace.next_line()?;
        drop(floods);
        // Towards the peer: what is dropped there costs no encryption, which is slow on an emulated machine.
        let fast = Flood::start(&gate.world.server, (alice.v4, 9).into(), Duration::ZERO)?;
        thread::sleep(2 * SILENCE);
        drop(fast);
        let output = trace.interrupt()?;
        let (_, lost) = told(&output.stdout)?;
        ensure!(
            output.code == 0,
            "the trace ended with {}: {}",
            output.code,
            output.stderr
        );
        ensure!(lost > 0, "a flood is not told of packet by packet");
        Ok(())
    })
}

#[test]
fn a_trace_that_loses_its_service_says_so() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let trace = gate.start_admin(&["trace"])?;
        thread::sleep(SILENCE);
        gate.kill("up")?;
        // Its stream breaks before the interrupt, which it could not tell from an end that was asked for.
        thread::sleep(SILENCE);
        let output = trace.finish()?;
        ensure!(output.code == 1, "code {}: {}", output.code, output.stderr);
        Ok(())
    })
}

#[test]
fn the_kernel_explains_itself_and_top_counts() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let user = gate.add_user("alice")?;
        let peer = gate.add_peer(0, &user)?;
        let explain = || gate.ask(&["explain", "alice-device", "10.9.0.2:7"]);
        let locked = explain()?;
        ensure!(
            locked["gateway"] == "local" && locked["reason"] == "locked",
            "{locked}"
        );
        connects(&peer.namespace, echo_v4())?;
        peer.login(&user)?;
        let live = explain()?;
        ensure!(
            live["verdict"] == "pass" && live["ends_by"] == "deadline",
            "{live}"
        );
        ensure!(live["session"]["level"] == "mfa", "{live}");
        let portal = gate.ask(&["explain", "alice-device", "10.77.0.1:443"])?;
        ensure!(portal["reason"] == "open_service", "{portal}");
        // Figures are served where the configuration says, and nowhere else.
        let listening = run(gate.namespace().command("ss").arg("-Htln"), "")?.stdout;
        let ports: BTreeSet<_> = listening
            .lines()
            .filter_map(|line| line.split_whitespace().nth(3)?.rsplit(':').next())
            .collect();
        ensure!(ports == BTreeSet::from(["443", "7443"]), "{listening}");
        let unasked = gate.ask(&["explain", "--to-peer", "alice-device", "10.9.0.2:22"])?;
        ensure!(unasked["reason"] == "unsolicited", "{unasked}");
        // What was explained has opened nothing and counted as nothing: the server still answers a ping.
        ensure!(peer.pings(SERVER_V4)?, "a live session");
        eventually("traffic and drops are reported", SOON, || {
            let top = gate.ask(&["top"])?;
            let device = &top["peers"][0];
            Ok(device["rx_bytes"].as_u64() > Some(0)
                && device["drops"]["locked"].as_u64() > Some(0)
                && device["session"]["left_ms"].as_u64() > Some(0))
        })?;
        let transfer = Transfer::start(&peer.namespace, echo_v4())?;
        eventually("there are rates both ways", SOON, || {
            let top = gate.ask(&["top", "--user", "alice"])?;
            let device = &top["peers"][0];
            Ok(device["rx_rate"].as_u64() > Some(1000) && device["tx_rate"].as_u64() > Some(1000))
        })?;
        drop(transfer);
        let nobody = gate.ask(&["top", "--user", "bob"])?;
        ensure!(nobody["peers"] == json!([]), "{nobody}");

        // For people: one picture without a terminal, one after another on one.
        let text = gate.read(&["top"])?;
        for part in ["SESSION LEFT", "alice-device", "kB/s", "locked "] {
            ensure!(text.contains(part), "{part}: {text}");
        }
        ensure!(!text.contains('\x1b'), "{text:?}");
        let live = gate.on_terminal(&["top", "--every", "1s"], Duration::from_secs(5))?;
        let pictures = live.matches("SESSION LEFT").count();
        ensure!((2..=6).contains(&pictures), "{pictures} pictures: {live:?}");
        ensure!(live.contains("alice-device"), "{live:?}");
        Ok(())
    })
}
