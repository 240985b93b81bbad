//! The story of Portcullis on real kernel WireGuard, told step by step with what was measured. Ends with a code other
//! than zero as soon as a step is not as promised.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e_tests::flows::{self, ECHO_PORT, Echo, Pinger, Probe, Transfer};
use e2e_tests::{Gate, Options, Peer, SERVER_V4, SERVER_V6, User, eventually, for_a_while};

/// Between two datagrams of a probe. An emulated processor encrypts slowly: more would measure that.
const INTERVAL: Duration = Duration::from_millis(25);
/// Silence of this length means that a flow is cut.
const SILENCE: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(30);
/// The lifetime of the session that ends by itself.
const LIFETIME: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    let begun = Instant::now();
    match story() {
        Ok(()) => {
            println!(
                "\nEvery step was as promised. ({} s)",
                begun.elapsed().as_secs()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nNot as promised: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn story() -> Result<()> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("Linux {}", release.trim());
    println!("  peer1, peer2 ── 192.0.2.0/24 ── gateway ── 10.9.0.0/24, fd09::/64 ── server");
    let mut gate = Gate::new(Options::default())?;
    let told = tell(&mut gate);
    if told.is_err() {
        gate.show_logs();
    }
    told
}

fn tell(gate: &mut Gate) -> Result<()> {
    let _echo = Echo::start(&gate.world.server, ECHO_PORT)?;
    step("An administrator starts `portcullis up` and adds a location");
    let begun = Instant::now();
    gate.start()?;
    gate.add_location(Options::default())?;
    measured(format!(
        "programs attached, WireGuard up, state applied after {} ms",
        begun.elapsed().as_millis()
    ));

    step("A user and a device for each of two people; stock WireGuard clients");
    let (alice, bob) = (gate.add_user("alice")?, gate.add_user("bob")?);
    let (first, second) = (gate.add_peer(0, &alice)?, gate.add_peer(1, &bob)?);
    measured(format!("alice's device has {} and {}", first.v4, first.v6));

    before_login(gate, &first)?;
    login(&first, &alice)?;
    traffic(gate, &first, &second)?;
    revocation(gate, &first)?;
    deadline(gate, &first)?;

    step("`portcullis agent teardown` takes everything away again");
    let output = gate.teardown()?;
    ensure!(
        output.code == 0 && !gate.has_interface()?,
        "teardown failed: {output:?}"
    );
    measured("interface, programs and pins are gone");
    Ok(())
}

fn before_login(gate: &Gate, peer: &Peer) -> Result<()> {
    step("The key alone: a handshake with the kernel, and nothing but the login behind it");
    ensure!(
        gate.latest_handshake(&peer.public_key)? > 0,
        "the kernel completed no handshake"
    );
    measured("wg(8) on the gateway shows a completed handshake");
    ensure!(peer.reaches_portal()?, "the portal does not answer");
    measured(format!("{} accepts connections", peer.portal_url));
    for to in [SERVER_V4, SERVER_V6] {
        ensure!(!peer.pings(to)?, "{to} answered before login");
        ensure!(
            !flows::connects(&peer.namespace, (to, ECHO_PORT).into())?,
            "{to} accepted a connection before login"
        );
    }
    measured(format!(
        "{SERVER_V4} and {SERVER_V6}: no ping, no connection"
    ));
    gate.wait_for_drop("locked")?;
    measured(format!(
        "dropped and counted, by reason: {}",
        reasons(gate)?
    ));
    Ok(())
}

fn login(peer: &Peer, user: &User) -> Result<()> {
    step("Login from a terminal: password, and a code from oathtool");
    let begun = Instant::now();
    let session = peer.login(user)?;
    let took = begun.elapsed();
    let text = |field: &str| session[field].as_str().unwrap_or("?").to_owned();
    measured(format!(
        "level {}, until {}, after {} ms",
        text("level"),
        text("deadline"),
        took.as_millis()
    ));
    ensure!(
        peer.pings(SERVER_V4)?,
        "the server does not answer after login"
    );
    Ok(())
}

fn traffic(gate: &Gate, peer: &Peer, other: &Peer) -> Result<()> {
    step("Traffic passes in both directions");
    for to in [SERVER_V4, SERVER_V6] {
        let transfer = Transfer::start(&peer.namespace, (to, ECHO_PORT).into())?;
        let probe = Probe::start(&peer.namespace, (to, ECHO_PORT).into(), INTERVAL)?;
        eventually("a TCP transfer moves", SOON, || {
            Ok(transfer.received() > 20_000 && probe.answered() > 50)
        })?;
        let report = probe.finish()?;
        ensure!(
            report.lost() == 0,
            "{} of {} datagrams to {to} were lost",
            report.lost(),
            report.sent
        );
        measured(format!(
            "{to}: {} of {} datagrams came back, TCP echoed {} kB",
            report.answered,
            report.sent,
            transfer.received() / 1000
        ));
    }

    step("What nobody asked for does not pass, and a neighbour's session is no use");
    let _open = Echo::start(&peer.namespace, 8080)?;
    ensure!(
        !flows::connects(&gate.world.server, (peer.v4, 8080).into())?,
        "unsolicited TCP reached the peer"
    );
    ensure!(
        !flows::ping(&gate.world.server, peer.v6)?,
        "an unsolicited ping reached the peer"
    );
    measured("from the server to the peer: no ping, no connection");
    ensure!(
        !other.pings(SERVER_V4)?,
        "bob's device passed without a login"
    );
    measured("bob's device, not logged in: still locked");
    Ok(())
}

fn revocation(gate: &Gate, peer: &Peer) -> Result<()> {
    step("An administrator revokes: the next packet is dropped, in flows that run as well");
    let transfer = Transfer::start(&peer.namespace, (SERVER_V4, ECHO_PORT).into())?;
    let pinger = Pinger::start(&peer.namespace, SERVER_V4)?;
    let probe = Probe::start(&peer.namespace, (SERVER_V4, ECHO_PORT).into(), INTERVAL)?;
    eventually("everything flows", SOON, || {
        Ok(transfer.received() > 10_000 && pinger.replies() > 1 && probe.answered() > 20)
    })?;
    let asked = Instant::now();
    let answer = gate.ask(&["session", "revoke", "--user", "alice"])?;
    let answered = Instant::now();
    ensure!(
        answer["done"] == true,
        "the revocation is not acknowledged: {answer}"
    );
    measured(format!(
        "acknowledged by gateway {} {} ms after the commit, having read the kernel back; command done after {} ms",
        answer["gateways"][0]["gateway"],
        answer["gateways"][0]["took_ms"],
        (answered - asked).as_millis()
    ));
    // Replies already inside the client's own stack at the time of the answer.
    std::thread::sleep(Duration::from_millis(200));
    let before = (transfer.received(), pinger.replies());
    std::thread::sleep(SILENCE);
    ensure!(
        (transfer.received(), pinger.replies()) == before,
        "something passed after the revocation"
    );
    let report = probe.finish()?;
    let last = report
        .last_answered_sent_at
        .context("no datagram ever passed")?;
    ensure!(
        last <= answered,
        "a datagram sent after the acknowledgement was answered"
    );
    measured(format!(
        "last datagram to pass was sent {} ms after the command was entered; {} later ones did not",
        last.saturating_duration_since(asked).as_millis(),
        report.lost()
    ));
    ensure!(!peer.pings(SERVER_V4)?, "the revoked peer still passes");
    measured("running TCP, running ping, new ping: silent");
    Ok(())
}

fn deadline(gate: &mut Gate, peer: &Peer) -> Result<()> {
    step("The deadline does the same with every process dead");
    let lifetime = format!("{}s", LIFETIME.as_secs());
    let before_grant = Instant::now();
    gate.ask(&[
        "session",
        "add",
        "--device",
        &peer.device,
        "--lifetime",
        &lifetime,
    ])?;
    let granted = Instant::now();
    let probe = Probe::start(&peer.namespace, (SERVER_V4, ECHO_PORT).into(), INTERVAL)?;
    eventually("the granted session passes", SOON, || {
        Ok(probe.answered() > 20)
    })?;
    gate.kill_all()?;
    measured(format!(
        "a session of {lifetime} granted; agent and control killed with SIGKILL"
    ));
    let until = LIFETIME.saturating_sub(granted.elapsed() + Duration::from_secs(3));
    for_a_while("traffic goes on", until, || {
        Ok(probe.is_alive_within(SILENCE))
    })?;
    measured("traffic goes on without them");
    eventually("the deadline cuts", LIFETIME + SOON, || {
        Ok(!probe.is_alive_within(SILENCE))
    })?;
    let report = probe.finish()?;
    let last = report
        .last_answered_sent_at
        .context("no datagram ever passed")?;
    ensure!(
        last + Duration::from_secs(2) >= before_grant + LIFETIME,
        "cut before the deadline"
    );
    ensure!(
        last <= granted + LIFETIME + Duration::from_secs(1),
        "passed after the deadline"
    );
    measured(format!(
        "last packet {} ms after the grant, none since",
        (last - before_grant).as_millis()
    ));
    for to in [SERVER_V4, SERVER_V6] {
        ensure!(!peer.pings(to)?, "{to} answers after the deadline");
    }
    Ok(())
}

/// The gateway's drop counters in one line.
fn reasons(gate: &Gate) -> Result<String> {
    let words: Vec<String> = gate
        .drops()?
        .iter()
        .map(|(direction, reason, packets)| format!("{reason} ({direction}) ×{packets}"))
        .collect();
    Ok(words.join(", "))
}

fn step(title: &str) {
    println!("\n● {title}");
}

fn measured(what: impl AsRef<str>) {
    println!("  ✓ {}", what.as_ref());
}
