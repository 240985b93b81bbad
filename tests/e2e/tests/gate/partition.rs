//! A gateway that cannot be reached.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e_tests::flows::{Echo, Probe};
use e2e_tests::{Gate, Mode, Options, SERVER_V4, eventually, for_a_while, run, with_gate};

use crate::{INTERVAL, SILENCE, SOON, echo_v4};

const CUT: &str = "\
add table inet cut
add chain inet cut input { type filter hook input priority 0; }
add rule inet cut input tcp dport 7443 drop
add rule inet cut input tcp sport 7443 drop
";

fn nft(gate: &Gate, rules: &str) -> Result<()> {
    run(gate.namespace().command("nft").args(["-f", "-"]), rules)?;
    Ok(())
}

#[test]
fn inv4_a_revocation_is_pending_until_the_partitioned_gateway_has_applied_it() -> Result<()> {
    with_gate(
        Options {
            mode: Mode::Split,
            ..Options::default()
        },
        |gate| {
            let _echo = Echo::start(&gate.world.server, 7)?;
            let (_, peer) = gate.add_logged_in(0, "alice")?;
            let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
            eventually("datagrams come back", SOON, || Ok(probe.answered() > 10))?;

            nft(gate, CUT)?;
            let output = gate.admin(&["session", "revoke", "--user", "alice", "--wait", "2s"])?;
            ensure!(output.code == 3, "pending is exit code 3: {output:?}");
            let answer = output.json()?;
            ensure!(
                answer["done"] == false && answer["gateways"][0]["acknowledged"] == false,
                "{answer}"
            );
            ensure!(
                answer["gateways"][0]["gateway"] == "gw1",
                "and names the gateway: {answer}"
            );
            ensure!(
                probe.is_alive_within(SILENCE),
                "what the gateway has not heard of it cannot apply"
            );

            nft(gate, "delete table inet cut\n")?;
            eventually(
                "the gateway hears of it and cuts",
                Duration::from_secs(120),
                || Ok(!probe.is_alive_within(SILENCE)),
            )?;
            gate.wait_in_sync()?;
            ensure!(!peer.pings(SERVER_V4)?, "cut");
            Ok(())
        },
    )
}

#[test]
fn inv5_a_revocation_missed_by_a_dead_agent_is_applied_when_it_starts() -> Result<()> {
    with_gate(
        Options {
            mode: Mode::Split,
            ..Options::default()
        },
        |gate| {
            let _echo = Echo::start(&gate.world.server, 7)?;
            let (_, peer) = gate.add_logged_in(0, "alice")?;
            let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
            eventually("datagrams come back", SOON, || Ok(probe.answered() > 10))?;
            gate.kill("agent")?;
            let output = gate.admin(&["session", "revoke", "--all", "--wait", "1s"])?;
            ensure!(output.code == 3, "pending is exit code 3: {output:?}");
            for_a_while("the kernel keeps what it was told last", SILENCE, || {
                Ok(probe.is_alive_within(SILENCE))
            })?;
            gate.start_service("agent")?;
            eventually("the restarted agent cuts", SOON, || {
                Ok(!probe.is_alive_within(SILENCE))
            })?;
            gate.wait_in_sync()?;
            ensure!(!peer.pings(SERVER_V4)?, "cut");
            Ok(())
        },
    )
}
