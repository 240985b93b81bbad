//! What an administrator is told about a packet, beside what becomes of it.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e_tests::flows::{Echo, connects};
use e2e_tests::{Gate, Options, Peer, SERVER_V4, eventually, with_gate};
use serde_json::Value;

use crate::SOON;

const POLICY: &str = r#"
[[rule]]
name = "fresh"
who = ["*"]
to = ["10.9.0.2"]
ports = ["tcp/22"]
max_age = "1s"

[[rule]]
name = "strong"
who = ["*"]
to = ["10.9.0.2"]
ports = ["tcp/23"]
require = "phishing-resistant"

[[rule]]
name = "no"
who = ["user:alice"]
to = ["10.9.0.0/24"]
ports = ["tcp/24"]
action = "deny"

[[rule]]
name = "free"
who = ["*"]
to = ["10.9.0.2"]
ports = ["tcp/25"]
require = "none"

[[rule]]
name = "web"
who = ["*"]
to = ["10.9.0.0/24"]
ports = ["tcp/8080"]

[[rule]]
name = "short"
who = ["*"]
to = ["10.9.0.0/24"]
ports = ["tcp/81"]
max_age = "20m"

[[rule]]
name = "to-each-other"
who = ["*"]
to = ["10.77.0.0/24"]
ports = ["tcp/7"]

[[rule]]
name = "from-each-other"
who = ["user:bob"]
from = ["10.77.0.0/24"]
ports = ["tcp/7"]
"#;

/// Ports of the server that rules speak of, and one that none does.
const PORTS: [u16; 7] = [22, 23, 24, 25, 8080, 81, 82];

fn explain(gate: &Gate, to: IpAddr, port: u16) -> Result<Value> {
    gate.ask(&["explain", "alice-device", &format!("{to}:{port}")])
}

/// What was explained, after the packets' own fate has been compared with it.
fn verify(gate: &Gate, peer: &Peer, to: IpAddr, port: u16) -> Result<Value> {
    let told = explain(gate, to, port)?;
    let passes = connects(&peer.namespace, (to, port).into())?;
    ensure!(
        told["verdict"] == if passes { "pass" } else { "drop" },
        "port {port} connects: {passes}, but: {told}"
    );
    ensure!(told["gateway"] == "local", "by the kernel: {told}");
    ensure!(
        told["to_change"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{told}"
    );
    Ok(told)
}

fn expect(told: &Value, fields: &[(&str, Value)]) -> Result<()> {
    for (field, wanted) in fields {
        ensure!(told[field] == *wanted, "{field} must be {wanted}: {told}");
    }
    Ok(())
}

#[test]
fn inv9_every_verdict_is_explained_as_the_kernel_gives_it() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let echoes = PORTS.map(|port| Echo::start(&gate.world.server, port));
        let _echoes = echoes.into_iter().collect::<Result<Vec<_>>>()?;
        let file = gate.scratch().join("policy.toml");
        std::fs::write(&file, POLICY)?;
        let file = file.to_str().context("a plain path")?;
        gate.ask(&["policy", "apply", "--wait", "30s", file])?;
        let user = gate.add_user("alice")?;
        let peer = gate.add_peer(0, &user)?;

        // Without a session.
        let server = |port| verify(gate, &peer, SERVER_V4, port);
        let locked = ("reason", "locked".into());
        let mfa = ("required", "mfa".into());
        expect(
            &server(8080)?,
            &[locked.clone(), ("rule", "web".into()), mfa.clone()],
        )?;
        let free = [("reason", "open_rule".into()), ("rule", "free".into())];
        expect(&server(25)?, &free)?;
        expect(&server(24)?, &[("reason", "denied".into())])?;

        // With one.
        peer.login(&user)?;
        std::thread::sleep(Duration::from_millis(1500));
        expect(
            &server(22)?,
            &[
                ("reason", "not_fresh".into()),
                ("rule", "fresh".into()),
                ("max_age_ms", 1000.into()),
            ],
        )?;
        expect(
            &server(23)?,
            &[
                ("reason", "level_too_low".into()),
                ("rule", "strong".into()),
                ("required", "phishing-resistant".into()),
            ],
        )?;
        let denied = [("reason", "denied".into()), ("rule", "no".into())];
        expect(&server(24)?, &denied)?;
        let session = ("reason", "session".into());
        let web = server(8080)?;
        expect(
            &web,
            &[
                session.clone(),
                ("rule", "web".into()),
                ("ends_by", "deadline".into()),
            ],
        )?;
        let in_minutes = |told: &Value| told["ends_in_ms"].as_u64().map(|ms| ms / 60_000);
        ensure!(matches!(in_minutes(&web), Some(50..60)), "{web}");
        let short = server(81)?;
        let wanted = [session.clone(), ("ends_by", "max_age".into())];
        expect(&short, &wanted)?;
        ensure!(matches!(in_minutes(&short), Some(15..20)), "{short}");
        let none = server(82)?;
        expect(
            &none,
            &[("reason", "no_rule".into()), ("rule", Value::Null)],
        )?;
        let portal = explain(gate, "10.77.0.1".parse()?, 443)?;
        expect(&portal, &[("reason", "open_service".into())])?;

        // Nobody's address.
        let nobody = gate.ask(&["explain", "10.77.0.250", "10.9.0.2:80"])?;
        let wanted = [
            ("reason", "unknown_peer".into()),
            ("verdict", "drop".into()),
        ];
        expect(&nobody, &wanted)?;
        ensure!(gate.admin(&["explain", "nobody", "10.9.0.2:80"])?.code == 1);

        between_devices(gate, &peer)
    })
}

/// inv3: a packet between devices has to satisfy both.
fn between_devices(gate: &Gate, alice: &Peer) -> Result<()> {
    let bob = gate.add_user("bob")?;
    let bobs = gate.add_peer(1, &bob)?;
    let _echo = Echo::start(&bobs.namespace, 7)?;
    let other = |reason: &str| {
        [
            ("reason", reason.into()),
            ("decided_at", "bob-device".into()),
        ]
    };
    expect(&verify(gate, alice, bobs.v4, 7)?, &other("locked"))?;
    bobs.login(&bob)?;
    eventually("both devices may", SOON, || {
        Ok(explain(gate, bobs.v4, 7)?["verdict"] == "pass")
    })?;
    verify(gate, alice, bobs.v4, 7)?;
    let back = gate.ask(&["explain", "bob-device", &format!("{}:7", alice.v4)])?;
    let wanted = [
        ("reason", "unsolicited".into()),
        ("decided_at", "alice-device".into()),
    ];
    expect(&back, &wanted)?;
    ensure!(
        !connects(&bobs.namespace, (alice.v4, 7).into())?,
        "alice may not be reached"
    );
    Ok(())
}
