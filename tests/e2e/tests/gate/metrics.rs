//! What Prometheus reads, through a reader as strict as any scraper.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e_tests::flows::{Echo, connects};
use e2e_tests::{Exposition, Gate, Options, SERVER_V4, eventually, with_gate};

use crate::{SOON, echo_v4};

/// The page as it is, and read.
fn scrape(gate: &Gate) -> Result<(String, Exposition)> {
    let answer = gate.namespace().enter(|| -> std::io::Result<String> {
        let to: SocketAddr = ([127, 0, 0, 1], 9090).into();
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no body")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let head = head.to_ascii_lowercase();
    ensure!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    let page = Exposition::parse(body).with_context(|| body.to_owned())?;
    Ok((body.to_owned(), page))
}

#[test]
fn figures_are_told_of_the_kernel_and_the_gateway_and_of_nobody_by_name() -> Result<()> {
    let options = Options {
        metrics: "listen = \"127.0.0.1:9090\"",
        ..Options::default()
    };
    with_gate(options, |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let user = gate.add_user("alice")?;
        let peer = gate.add_peer(0, &user)?;
        ensure!(!connects(&peer.namespace, echo_v4())?, "locked");
        peer.login(&user)?;
        ensure!(peer.pings(SERVER_V4)?, "a live session");

        // Flows are counted beside the first scrape, reports come every five seconds.
        let counted = |page: &Exposition| -> Result<bool> {
            let flows = page.value("portcullis_map_entries", &[("map", "flows_v4")]);
            let reported = page.value(
                "portcullis_gateway_packets_total",
                &[
                    ("gateway", "local"),
                    ("direction", "from_peer"),
                    ("reason", "locked"),
                ],
            );
            Ok(flows.is_ok_and(|flows| flows > 0.0) && reported.is_ok_and(|drops| drops > 0.0))
        };
        eventually("flows are counted and drops reported", SOON, || {
            counted(&scrape(gate)?.1)
        })?;
        let (text, page) = scrape(gate)?;
        for program in ["from_peer", "to_peer"] {
            let of = |name| page.value(name, &[("program", program)]);
            ensure!(of("portcullis_program_attached")? == 1.0, "{program}");
            ensure!(
                of("portcullis_program_verified_instructions")? > 1000.0,
                "{program}"
            );
        }
        for (name, labels, wanted) in [
            ("portcullis_agent_up", [].as_slice(), 1.0),
            ("portcullis_control_connected", &[], 1.0),
            ("portcullis_users", &[], 1.0),
            ("portcullis_devices", &[], 1.0),
            ("portcullis_sessions_live", &[], 1.0),
            ("portcullis_peer_sessions", &[], 1.0),
            ("portcullis_map_entries", &[("map", "peers")], 1.0),
            ("portcullis_map_entries", &[("map", "peer_v4")], 1.0),
            ("portcullis_map_entries", &[("map", "peer_v6")], 1.0),
            ("portcullis_map_entries_max", &[("map", "peers")], 256.0),
            (
                "portcullis_gateway_connected",
                &[("gateway", "local"), ("location", "office")],
                1.0,
            ),
            ("portcullis_gateway_in_sync", &[("gateway", "local")], 1.0),
        ] {
            let value = page.value(name, labels)?;
            ensure!(value == wanted, "{name} {labels:?}: {value}\n{text}");
        }
        for reason in ["locked", "session", "open_service"] {
            let labels = [("direction", "from_peer"), ("reason", reason)];
            let packets = page.value("portcullis_packets_total", &labels)?;
            ensure!(packets > 0.0, "{reason}: {packets}");
        }
        // Fill levels never exceed what fits.
        for labels in page.series("portcullis_map_entries") {
            let of = |name| page.value(name, &[("map", labels["map"].as_str())]);
            let (entries, most) = (
                of("portcullis_map_entries")?,
                of("portcullis_map_entries_max")?,
            );
            ensure!(entries <= most, "{labels:?}: {entries} of {most}");
        }
        for identity in ["alice", &peer.v4.to_string(), &peer.public_key] {
            ensure!(
                !text.contains(identity),
                "{identity} is on the page: {text}"
            );
        }

        // Only when asked for.
        gate.write_configuration(Options {
            metrics: "listen = \"127.0.0.1:9090\"\nper_peer = true",
            ..options
        })?;
        gate.terminate("up")?;
        gate.start()?;
        gate.wait_in_sync()?;
        eventually("the device's figures are there", SOON, || {
            ensure!(peer.pings(SERVER_V4)?, "the session lives on");
            let page = scrape(gate)?.1;
            let mine = [("user", "alice"), ("device", "alice-device")];
            let drops = [mine[0], mine[1], ("reason", "locked")];
            let above = |name, labels: &[_]| page.value(name, labels).is_ok_and(|v| v > 0.0);
            Ok(above("portcullis_peer_received_bytes_total", &mine)
                && above("portcullis_peer_sent_bytes_total", &mine)
                && above("portcullis_peer_session_left_seconds", &mine)
                && above("portcullis_peer_dropped_packets_total", &drops))
        })?;
        Ok(())
    })
}
