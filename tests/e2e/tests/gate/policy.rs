//! Policies on a running gateway: live flows obey them, step-up by age, traffic towards peers.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e_tests::flows::{Echo, Probe, connects, ping};
use e2e_tests::{Gate, Options, Peer, SERVER_V4, SERVER_V6, eventually, with_gate};
use serde_json::Value;

use crate::{INTERVAL, SILENCE, SOON, echo_v4, echo_v6};

const EVERYTHING: &str = "
[[rule]]
name = \"everything\"
who = [\"*\"]
to = [\"10.9.0.0/24\", \"fd09::/64\"]
";

/// Runs `policy` with this file; answers the exit code and what was printed.
fn policy(gate: &Gate, arguments: &[&str], text: &str) -> Result<(i32, Value, String)> {
    let file = gate.scratch().join("policy.toml");
    std::fs::write(&file, text)?;
    let file = file.to_str().context("a plain path")?;
    let output = gate.admin(&[&["policy"], arguments, &[file]].concat())?;
    let answer = if output.stdout.is_empty() {
        Value::Null
    } else {
        output.json()?
    };
    Ok((output.code, answer, output.stderr))
}

/// Applies a policy; every gateway has confirmed it when this returns.
pub(crate) fn apply(gate: &Gate, text: &str) -> Result<()> {
    let (code, answer, error) = policy(gate, &["apply", "--wait", "30s"], text)?;
    ensure!(
        code == 0 && answer["done"] == true,
        "policy apply ended with {code}: {answer} {error}"
    );
    Ok(())
}

/// Until the probe has had answers, and from then on none are missing.
fn running(probe: &Probe) -> Result<()> {
    let before = probe.answered();
    eventually("datagrams come back", SOON, || {
        Ok(probe.answered() > before + 20)
    })?;
    Ok(())
}

/// Whether nothing comes back any more.
fn silent(probe: &Probe) -> bool {
    // Those under way arrive.
    std::thread::sleep(Duration::from_millis(500));
    let before = probe.answered();
    std::thread::sleep(SILENCE);
    probe.answered() == before
}

#[test]
fn a_deny_rule_cuts_a_running_flow_and_spares_the_others() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        let v4 = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
        let v6 = Probe::start(&peer.namespace, echo_v6(), INTERVAL)?;
        running(&v4)?;
        running(&v6)?;

        // What permits the same as before loses nothing.
        let begun = v6.answered();
        apply(gate, EVERYTHING)?;
        running(&v4)?;
        running(&v6)?;
        ensure!(v6.answered() > begun, "and goes on");

        let deny = "[[rule]]\nname = \"no\"\nwho = [\"user:alice\"]\nto = [\"10.9.0.2\"]\nports = [\"udp/7\"]\naction = \"deny\"\n";
        apply(gate, &format!("{EVERYTHING}{deny}"))?;
        ensure!(silent(&v4), "the denied flow is cut");
        running(&v6)?;
        ensure!(
            peer.pings(SERVER_V4)?,
            "other protocols of the same server pass"
        );

        apply(gate, EVERYTHING)?;
        running(&v4)?;
        let report = v6.finish()?;
        ensure!(
            report.lost() == 0,
            "of {} datagrams of a flow that every policy permits, these were lost: {:?}",
            report.sent,
            report.missing
        );

        // No rule at all: nothing but the portal.
        apply(gate, "")?;
        ensure!(silent(&v4), "without a rule nothing passes");
        ensure!(!peer.pings(SERVER_V6)?, "over IPv6 neither");
        ensure!(peer.reaches_portal()?, "the portal stays reachable");
        Ok(())
    })
}

#[test]
fn a_login_too_old_for_one_destination_is_good_for_another() -> Result<()> {
    const MAX_AGE: Duration = Duration::from_secs(25);
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let user = gate.add_user("alice")?;
        let peer = gate.add_peer(0, &user)?;
        apply(
            gate,
            "[[rule]]\nname = \"fresh\"\nwho = [\"*\"]\nto = [\"10.9.0.2\"]\nmax_age = \"25s\"\n\
             [[rule]]\nname = \"any\"\nwho = [\"*\"]\nto = [\"fd09::/64\"]\n",
        )?;
        peer.login(&user)?;
        let fresh = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
        let any = Probe::start(&peer.namespace, echo_v6(), INTERVAL)?;
        running(&any)?;
        ensure!(fresh.answered() > 0, "a fresh login opens both");

        std::thread::sleep(MAX_AGE);
        ensure!(
            silent(&fresh),
            "the running flow ends with the login's freshness"
        );
        ensure!(!peer.pings(SERVER_V4)?, "and no other is opened");
        running(&any)?;

        peer.login(&user)?;
        ensure!(peer.pings(SERVER_V4)?, "another login opens it again");
        running(&fresh)?;
        let report = any.finish()?;
        ensure!(
            report.lost() == 0,
            "of {} datagrams to the other destination {} were lost",
            report.sent,
            report.lost()
        );
        Ok(())
    })
}

#[test]
fn inv3_a_from_rule_lets_the_helpdesk_reach_the_peer() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let user = gate.add_user("alice")?;
        let peer = gate.add_peer(0, &user)?;
        let _push = Echo::start(&peer.namespace, 5985)?;
        let _other = Echo::start(&peer.namespace, 8080)?;
        let reaches = |port: u16| connects(&gate.world.server, (peer.v4, port).into());
        let push = "[[rule]]\nname = \"push\"\nwho = [\"group:laptops\"]\nfrom = [\"10.9.0.2\"]\nports = [\"tcp/5985\"]\n";
        apply(gate, push)?;
        peer.login(&user)?;
        ensure!(!reaches(5985)?, "the rule is about another group");

        gate.ask(&[
            "user", "groups", "alice", "--add", "laptops", "--wait", "30s",
        ])?;
        eventually("the helpdesk reaches the device", SOON, || reaches(5985))?;
        ensure!(!reaches(8080)?, "on this port only");
        ensure!(!ping(&gate.world.server, peer.v4)?, "by this protocol only");
        ensure!(
            !connects(&gate.world.server, (peer.v6, 5985).into())?,
            "from this address only"
        );
        ensure!(!peer.pings(SERVER_V4)?, "the other way there is no rule");

        gate.ask(&["session", "revoke", "--user", "alice"])?;
        ensure!(
            !reaches(5985)?,
            "without a session nobody reaches the device"
        );
        Ok(())
    })
}

#[test]
fn a_refused_policy_changes_nothing() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        apply(gate, EVERYTHING)?;
        let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
        running(&probe)?;
        let before = gate.ask(&["policy", "show"])?;
        let bad = EVERYTHING.replace("10.9.0.0/24", "10.9.0.1/24") + "action = \"maybe\"\n";
        let (code, _, error) = policy(gate, &["apply"], &bad)?;
        ensure!(code == 2, "it is refused with 2, not {code}");
        ensure!(
            error.contains("line 5") && error.contains("line 6"),
            "with every problem: {error}"
        );
        ensure!(
            gate.ask(&["policy", "show"])? == before,
            "the live policy stays"
        );
        running(&probe)?;
        ensure!(probe.finish()?.lost() == 0, "and no packet is lost");
        Ok(())
    })
}

#[test]
fn inv1_a_policy_holds_while_everything_is_dead_and_after_it() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        apply(
            gate,
            "[[rule]]\nname = \"six\"\nwho = [\"*\"]\nto = [\"fd09::/64\"]\n",
        )?;
        let holds = |when: &str| -> Result<()> {
            ensure!(peer.pings(SERVER_V6)?, "{when}: what a rule permits passes");
            ensure!(
                !peer.pings(SERVER_V4)?,
                "{when}: what none permits does not"
            );
            Ok(())
        };
        holds("before")?;
        gate.kill_all()?;
        holds("dead")?;
        gate.start()?;
        gate.wait_in_sync()?;
        holds("after")?;
        apply(gate, EVERYTHING)?;
        ensure!(peer.pings(SERVER_V4)?, "and the next policy is switched to");
        Ok(())
    })
}

/// Runs until dropped.
struct Background(Child);

impl Background {
    fn start(peer: &Peer, script: &str) -> Result<Self> {
        let child = peer
            .namespace
            .command("sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_shadow_tells_what_a_candidate_would_drop() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        apply(gate, EVERYTHING)?;
        // Each is a flow of its own.
        let script =
            "while :; do ping -n -c 1 -W 1 10.9.0.2; ping -n -c 1 -W 1 fd09::2; sleep 0.2; done";
        let _pings = Background::start(&peer, script)?;
        let candidate = "[[rule]]\nname = \"six\"\nwho = [\"*\"]\nto = [\"fd09::/64\"]\n";
        let (code, told, error) = policy(gate, &["shadow", "--for", "10s"], candidate)?;
        ensure!(code == 0, "policy shadow ended with {code}: {error}");
        let rows = told["rows"].as_array().context("rows")?;
        ensure!(rows.len() == 1, "one destination is lost: {told}");
        let row = &rows[0];
        ensure!(
            row["user"] == "alice"
                && row["remote"] == "10.9.0.2"
                && row["would"] == "drop"
                && row["reason"] == "no_rule"
                && row["count"].as_u64() > Some(1),
            "by whom, where and why: {told}"
        );
        ensure!(
            told["observed"].as_u64() > row["count"].as_u64(),
            "what passes under both is seen and not listed: {told}"
        );
        ensure!(peer.pings(SERVER_V4)?, "nothing has changed");
        Ok(())
    })
}
