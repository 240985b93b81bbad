//! Mistakes: a clear error, a code other than zero, nothing lost, nothing opened.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::process::Command;

use anyhow::{Result, ensure};
use e2e_tests::{Gate, Options, Output, SERVER_V4, eventually, run, with_gate};
use serde_json::Value;

use crate::SOON;

/// A refusal: the right code, and an error that mentions `what`.
fn refused(output: &Output, codes: &[i32], what: &str) -> Result<()> {
    ensure!(
        codes.contains(&output.code),
        "expected a code of {codes:?}: {output:?}"
    );
    ensure!(
        output.stderr.to_lowercase().contains(&what.to_lowercase()),
        "the error should mention {what:?}: {output:?}"
    );
    ensure!(
        !output.stderr.contains("panicked"),
        "a mistake is no reason to panic: {output:?}"
    );
    Ok(())
}

fn nothing_opened(gate: &Gate) -> Result<()> {
    ensure!(!gate.has_interface()?, "no interface was made");
    let pinned = fs::read_dir(gate.pins()).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(!pinned, "nothing was pinned");
    Ok(())
}

#[test]
fn malformed_configuration_is_refused_before_anything_happens() -> Result<()> {
    let gate = Gate::new(Options::default())?;
    let good = fs::read_to_string(gate.configuration())?;
    let cases = [
        ("not TOML", "[control\n".to_owned(), "bad.toml"),
        (
            "an unknown key",
            good.replace("[agent]", "[agent]\ncolour = \"red\""),
            "colour",
        ),
        ("an unknown section", format!("{good}\n[magic]\n"), "magic"),
        (
            "a wrong type",
            good.replace("max_peers = 256", "max_peers = \"many\""),
            "max_peers",
        ),
        (
            "an impossible number",
            good.replace("max_peers = 256", "max_peers = -1"),
            "max_peers",
        ),
        (
            "a malformed address",
            good.replace("127.0.0.1:7443", "127.0.0.1"),
            "listen",
        ),
        (
            "a malformed duration",
            good.replace("\"2s\"", "\"soon\""),
            "reconcile_period",
        ),
        (
            "an impossible interface",
            good.replace("\"wg0\"", "\"a name too long for one\""),
            "interface",
        ),
    ];
    let file = gate.scratch().join("bad.toml");
    for (case, text, what) in cases {
        fs::write(&file, text)?;
        let output = gate.run_with_configuration(&["up"], &file)?;
        refused(&output, &[2], what).map_err(|error| error.context(case))?;
        nothing_opened(&gate)?;
    }
    let missing = gate.run_with_configuration(&["up"], &gate.scratch().join("none.toml"))?;
    refused(&missing, &[1, 2], "none.toml")
}

#[test]
fn malformed_requests_are_refused_and_change_nothing() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let alice = gate.add_user("alice")?;
        let peer = gate.add_peer(0, &alice)?;
        let state = |gate: &Gate| -> Result<Vec<Value>> {
            ["location", "user", "session"]
                .iter()
                .map(|noun| gate.ask(&[noun, "list"]))
                .collect()
        };
        let before = state(gate)?;
        let peers = gate.wg(&["peers"])?;
        let location = |pool: &'static str, endpoint: &'static str| {
            vec![
                "location",
                "add",
                "other",
                "--pool",
                pool,
                "--endpoint",
                endpoint,
            ]
        };
        let device = |key: &'static str| {
            vec![
                "device",
                "add",
                "new",
                "--user",
                "alice",
                "--public-key",
                key,
            ]
        };
        let known = [
            "device",
            "add",
            "new",
            "--user",
            "alice",
            "--public-key",
            &peer.public_key,
        ];
        let cases: Vec<(&str, Vec<&str>, &str)> = vec![
            (
                "host bits set",
                location("10.88.0.1/24", "192.0.2.1:51821"),
                "host bits",
            ),
            (
                "no network",
                location("ten/24", "192.0.2.1:51821"),
                "ten/24",
            ),
            (
                "overlapping pools",
                location("10.77.0.128/25", "192.0.2.1:51821"),
                "overlap",
            ),
            (
                "the whole internet as a pool",
                location("0.0.0.0/0", "192.0.2.1:51821"),
                "0.0.0.0/0",
            ),
            (
                "an endpoint without port",
                location("10.88.0.0/24", "192.0.2.1"),
                "192.0.2.1",
            ),
            (
                "a port too large",
                location("10.88.0.0/24", "192.0.2.1:65536"),
                "65536",
            ),
            ("a key that is no base64", device("not a key"), "key"),
            ("a key that is too short", device("AAAA"), "key"),
            (
                "a key of zeroes",
                device("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
                "key",
            ),
            ("a key in use", known.to_vec(), "key"),
            (
                "an unknown user",
                vec!["device", "add", "new", "--user", "nobody"],
                "nobody",
            ),
            (
                "an unknown session",
                vec!["session", "revoke", "--session", "nonsense"],
                "session",
            ),
            (
                "a name in use",
                vec![
                    "location",
                    "add",
                    "office",
                    "--pool",
                    "10.88.0.0/24",
                    "--endpoint",
                    "192.0.2.1:51821",
                ],
                "office",
            ),
            ("no target", vec!["session", "revoke"], "required"),
            (
                "a name with a line break",
                vec!["device", "add", "a\nb", "--user", "alice"],
                "name",
            ),
        ];
        for (case, args, what) in cases {
            refused(&gate.admin(&args)?, &[1, 2], what).map_err(|error| error.context(case))?;
        }
        let short =
            gate.admin_with_input(&["user", "add", "bob", "--password-stdin"], "short\n")?;
        refused(&short, &[1, 2], "password")?;

        ensure!(state(gate)? == before, "nothing was changed");
        ensure!(gate.wg(&["peers"])? == peers, "nor in the kernel");
        ensure!(!peer.pings(SERVER_V4)?, "nothing was opened");
        Ok(())
    })
}

#[test]
fn an_occupied_port_is_named() -> Result<()> {
    let gate = Gate::new(Options::default())?;
    let _occupied = gate
        .namespace()
        .enter(|| TcpListener::bind("127.0.0.1:7443"))??;
    let output = gate.run_with_configuration(&["up"], &gate.configuration())?;
    refused(&output, &[1], "127.0.0.1:7443")?;
    nothing_opened(&gate)
}

#[test]
fn inv1_an_occupied_wireguard_port_opens_nothing_and_is_taken_when_free() -> Result<()> {
    let mut gate = Gate::new(Options::default())?;
    let occupied = gate
        .namespace()
        .enter(|| UdpSocket::bind("0.0.0.0:51820"))??;
    gate.start()?;
    gate.add_location(Options::default())?;
    eventually("the log says what is wrong", SOON, || {
        let said = gate.log_of("up");
        Ok(said.contains("wg0") && said.contains("UDP port"))
    })?;
    ensure!(!is_up(&gate)?, "the interface stays down");

    drop(occupied);
    eventually("the interface comes up", SOON, || is_up(&gate))?;
    let user = gate.add_user("alice")?;
    let peer = gate.add_peer(0, &user)?;
    ensure!(!peer.pings(SERVER_V4)?, "and is enforced");
    Ok(())
}

fn is_up(gate: &Gate) -> Result<bool> {
    let mut command = gate.namespace().command("ip");
    let shown = run(command.args(["link", "show", "dev", "wg0", "up"]), "")?;
    Ok(!shown.stdout.trim().is_empty())
}

#[test]
fn inv1_missing_capabilities_are_named_and_nothing_is_opened() -> Result<()> {
    let gate = Gate::new(Options::default())?;
    for (capability, name) in [("net_admin", "NET_ADMIN"), ("bpf,-sys_admin", "BPF")] {
        let drop = format!("--bounding-set=-{capability}");
        let output = gate.run_under(&["timeout", "60", "setpriv", &drop], &["up"])?;
        refused(&output, &[1], name)?;
        nothing_opened(&gate)?;
    }
    Ok(())
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_left_alone() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let (_, peer) = gate.add_logged_in(0, "alice")?;
        gate.terminate("up")?;
        let database = gate.control_state().join("portcullis.db");
        let sql = |statement: &str| run(Command::new("sqlite3").arg(&database).arg(statement), "");
        sql(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (99999999999999, 'from the future', 1, x'00', 0)",
        )?;
        let output = gate.run_with_configuration(&["up"], &gate.configuration())?;
        refused(&output, &[1], "newer")?;
        ensure!(
            sql("SELECT name FROM users")?.stdout.contains("alice"),
            "nothing was lost"
        );
        ensure!(
            peer.pings(SERVER_V4)?,
            "and the gateway goes on with what it has"
        );

        sql("DELETE FROM _sqlx_migrations WHERE version = 99999999999999")?;
        gate.start_service("up")?;
        gate.wait_in_sync()
    })
}
