//! What an administrator sees of packets, peers and the kernel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use e2e_tests::flows::{Echo, connects};
use e2e_tests::{Gate, Options, Peer, SERVER_V4, eventually, with_gate};
use serde_json::Value;

use crate::{SOON, echo_v4};

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
        Ok(())
    })
}
