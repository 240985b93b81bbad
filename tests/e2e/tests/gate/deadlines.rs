//! Deadlines that hold with every process dead.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e_tests::flows::{Echo, Flood, Probe};
use e2e_tests::{Options, SERVER_V4, eventually, for_a_while, with_gate};

use crate::{INTERVAL, SILENCE, SOON, echo_v4};

#[test]
fn inv2_the_absolute_deadline_cuts_with_every_process_killed() -> Result<()> {
    with_gate(
        Options {
            lifetime: "20s",
            ..Options::default()
        },
        |gate| {
            let _echo = Echo::start(&gate.world.server, 7)?;
            let user = gate.add_user("alice")?;
            let peer = gate.add_peer(0, &user)?;
            let before_login = Instant::now();
            peer.login(&user)?;
            let logged_in = Instant::now();
            let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
            eventually("datagrams come back", SOON, || Ok(probe.answered() > 10))?;
            gate.kill_all()?;

            let lifetime = Duration::from_secs(20);
            eventually("the flow is cut", lifetime + SOON, || {
                Ok(!probe.is_alive_within(SILENCE))
            })?;
            let report = probe.finish()?;
            let last = report.last_answered_sent_at.unwrap_or(before_login);
            // The deadline is lifetime after a moment between these two; a coarse tick and a reply's way are allowed for.
            ensure!(
                last >= before_login + lifetime - Duration::from_secs(2),
                "cut too early"
            );
            ensure!(
                last <= logged_in + lifetime + Duration::from_secs(2),
                "passed after the deadline"
            );
            ensure!(!peer.pings(SERVER_V4)?, "new flows are as dead as old ones");
            Ok(())
        },
    )
}

#[test]
fn inv2_an_idle_tunnel_is_cut_with_every_process_killed_whatever_else_it_carries() -> Result<()> {
    let options = Options {
        idle_timeout: Some("8s"),
        ..Options::default()
    };
    with_gate(options, |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let user = gate.add_user("alice")?;
        // Keepalives every second are no activity.
        let peer = gate.add_peer_with(0, &user, &[], Some(1))?;
        peer.login(&user)?;
        let probe = Probe::start(&peer.namespace, echo_v4(), Duration::from_millis(500))?;
        eventually("datagrams come back", SOON, || Ok(probe.answered() > 1))?;
        gate.kill_all()?;
        for_a_while(
            "activity keeps the session",
            Duration::from_secs(12),
            || Ok(probe.is_alive_within(SILENCE)),
        )?;
        probe.finish()?;

        // Idle from here on. Traffic towards the peer, dropped as unsolicited, is no activity either.
        let flood = Flood::start(&gate.world.server, (peer.v4, 9).into(), INTERVAL)?;
        std::thread::sleep(Duration::from_secs(10));
        drop(flood);
        ensure!(!peer.pings(SERVER_V4)?, "the session idled out");
        // Nor are packets that are dropped: these pings did not revive it.
        ensure!(!peer.pings(SERVER_V4)?, "and stays so");
        Ok(())
    })
}

#[test]
fn inv2_extending_a_session_loses_no_packet_and_moves_the_deadline() -> Result<()> {
    with_gate(
        Options {
            lifetime: "15s",
            ..Options::default()
        },
        |gate| {
            let _echo = Echo::start(&gate.world.server, 7)?;
            let (_, peer) = gate.add_logged_in(0, "alice")?;
            let logged_in = Instant::now();
            let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
            let sessions = gate.ask(&["session", "list"])?;
            let id = sessions["sessions"][0]["id"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            gate.ask(&["session", "extend", &id, "--by", "1h"])?;
            let beyond =
                (logged_in + Duration::from_secs(18)).saturating_duration_since(Instant::now());
            for_a_while("the flow goes on", beyond, || {
                Ok(probe.answered() == 0 || probe.is_alive_within(SILENCE))
            })?;
            let report = probe.finish()?;
            ensure!(
                report.answered > 0 && report.lost() == 0,
                "lost {} of {}",
                report.lost(),
                report.sent
            );
            Ok(())
        },
    )
}
