//! `policy eval` in the kernel and in userspace, over the same packets.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use e2e_tests::{Output, run, try_run};
use serde_json::{Value, json};

/// Denies, ties, narrow rules of other ports, ages, levels and both directions.
const POLICY: &str = r#"
[[rule]]
name = "web"
who = ["*"]
to = ["10.0.0.0/8", "fd00::/8"]
ports = ["tcp/443", "icmp", "icmp6", "47"]

[[rule]]
name = "ssh"
who = ["group:sre"]
to = ["10.1.0.0/16", "fd00:1::/32"]
ports = ["tcp/22"]
require = "phishing-resistant"

[[rule]]
name = "fresh"
who = ["user:ops1"]
to = ["10.2.0.0/16", "fd00:2::/32"]
max_age = "15m"

[[rule]]
name = "status"
who = ["*"]
to = ["10.3.0.1", "fd00:3::1"]
require = "none"

[[rule]]
name = "tie-level"
who = ["group:sre"]
to = ["10.4.0.0/16", "fd00:4::/32"]
require = "phishing-resistant"

[[rule]]
name = "tie-age"
who = ["*"]
to = ["10.4.0.0/16", "fd00:4::/32"]
max_age = "10m"

[[rule]]
name = "narrow"
who = ["group:sre", "user:bob"]
to = ["10.4.5.0/24", "fd00:4:5::/48"]
ports = ["tcp/8000-8999", "udp"]
max_age = "12h"

[[rule]]
name = "no-vault"
who = ["*"]
to = ["10.1.9.9", "fd00:1::9"]
action = "deny"

[[rule]]
name = "no-high-ports"
who = ["group:guests"]
to = ["10.4.0.0/14"]
ports = ["tcp/9000-65535"]
action = "deny"

[[rule]]
name = "helpdesk"
who = ["group:sre"]
from = ["10.9.0.0/24", "fd09::/64"]
ports = ["tcp/5985", "icmp", "icmp6", "50"]
max_age = "1s"

[[rule]]
name = "monitor"
who = ["*"]
from = ["10.9.0.7", "fd09::7"]
require = "none"
ports = ["udp/161"]
"#;

/// Of a kind that repeats: the same vectors in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[(self.roll() >> 16) as usize % of.len()].clone()
    }
}

const CENTURY: u64 = 100 * 365 * 24 * 3600;

fn session(dice: &mut Dice) -> Value {
    if dice.one(&[true, false, false, false, false]) {
        return Value::Null;
    }
    json!({
        "level": dice.one(&["none", "mfa", "mfa", "phishing-resistant", "phishing-resistant"]),
        // On either side of what the rules take, and just there.
        "age_s": dice.one(&[0, 1, 2, 599, 600, 601, 899, 900, 901, 43_199, 43_200, 43_201, CENTURY]),
        "idle_s": dice.one(&[0, 0, 0, 1, 9, 10, 11, 3599, 3600, 3601, CENTURY]),
        "lifetime_s": dice.one(&[0, 1, 600, 601, 86_400, CENTURY, CENTURY]),
        "idle_timeout_s": dice.one(&[json!(null), json!(0), json!(1), json!(10), json!(3600), json!(CENTURY)]),
    })
}

fn vector(dice: &mut Dice) -> Value {
    let v4 = dice.one(&[true, false]);
    let (address, remote) = if v4 {
        let odd = dice.one(&["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"]);
        let peer = dice.one(&[
            "10.77.0.2",
            "10.77.0.2",
            "10.77.0.3",
            "10.77.0.2",
            "192.0.2.1",
        ]);
        let remotes = [
            "10.1.0.5",
            "10.1.9.9",
            "10.2.0.0",
            "10.2.255.255",
            "10.3.0.1",
            "10.3.0.2",
            "10.4.0.1",
            "10.4.5.1",
            "10.4.5.255",
            "10.5.0.1",
            "10.9.0.5",
            "10.9.0.7",
            "10.9.1.0",
            "9.255.255.255",
            "11.0.0.0",
            "10.77.0.2",
            "10.77.0.3",
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
        ];
        let peer = if dice.one(&[true, false, false, false, false, false]) {
            odd
        } else {
            peer
        };
        (peer, dice.one(&remotes))
    } else {
        let odd = dice.one(&["::", "::1", "ff02::1", "fe80::1", "::ffff:10.77.0.2"]);
        let peer = dice.one(&["fd77::2", "fd77::2", "fd77::3", "fd77::2", "2001:db8::1"]);
        let remotes = [
            "fd00:1::5",
            "fd00:1::9",
            "fd00:2::",
            "fd00:2:ffff::1",
            "fd00:3::1",
            "fd00:3::2",
            "fd00:4::1",
            "fd00:4:5::1",
            "fd00:4:6::1",
            "fd01::1",
            "fd09::5",
            "fd09::7",
            "fd09:0:0:1::5",
            "fc00::1",
            "fe00::1",
            "fd77::2",
            "fd77::3",
            "::1",
            "::",
            "ff02::1",
            "::ffff:10.1.0.5",
        ];
        let peer = if dice.one(&[true, false, false, false, false, false]) {
            odd
        } else {
            peer
        };
        (peer, dice.one(&remotes))
    };
    let groups = dice.one(&[
        json!([]),
        json!(["sre"]),
        json!(["guests"]),
        json!(["guests", "sre", "unheard-of"]),
    ]);
    let protocol = dice.one(&[
        json!("tcp"),
        json!("tcp"),
        json!("tcp"),
        json!("tcp"),
        json!("udp"),
        json!("udp"),
        json!("icmp"),
        json!("icmp6"),
        json!(6),
        json!("17"),
        json!(1),
        json!(58),
        json!(47),
        json!("50"),
        json!(0),
        json!(43),
        json!(44),
        json!(51),
        json!(59),
        json!(60),
        json!(132),
        json!(255),
    ]);
    let has_ports = ["\"tcp\"", "\"udp\"", "6", "\"17\""].contains(&protocol.to_string().as_str());
    let mut packet = json!({
        "direction": dice.one(&["from-peer", "from-peer", "to-peer"]),
        "protocol": protocol,
        "remote": remote,
    });
    if has_ports {
        let ports = [
            0, 1, 22, 161, 443, 5985, 7999, 8000, 8999, 9000, 40_000, 65_535,
        ];
        packet["peer_port"] = dice.one(&ports).into();
        packet["remote_port"] = dice.one(&ports).into();
    }
    json!({
        "peer": { "address": address, "user": dice.one(&["ops1", "bob", "carol"]), "groups": groups },
        "session": session(dice),
        "packet": packet,
    })
}

fn eval(dir: &Path, engine: &str) -> Result<Output> {
    let binary = std::env::var_os("PORTCULLIS_BIN").context("PORTCULLIS_BIN names no binary")?;
    let mut command = Command::new(binary);
    command.args(["policy", "eval", "--engine", engine, "--policy"]);
    command.arg(dir.join("policy.toml")).arg("--vectors");
    command.arg(dir.join("vectors.jsonl"));
    try_run(&mut command, "")
}

/// What another process could see of a trial.
fn traces() -> Result<(String, String)> {
    let pins = run(Command::new("find").arg("/sys/fs/bpf"), "")?.stdout;
    Ok((std::fs::read_to_string("/proc/self/mounts")?, pins))
}

#[test]
fn inv8_the_kernel_and_userspace_decide_alike() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let vectors: Vec<String> = (0..4000).map(|_| vector(&mut dice).to_string()).collect();
    std::fs::write(dir.path().join("policy.toml"), POLICY)?;
    std::fs::write(dir.path().join("vectors.jsonl"), vectors.join("\n"))?;
    let before = traces()?;
    let mut answers = Vec::new();
    for engine in ["userspace", "kernel"] {
        let output = eval(dir.path(), engine)?;
        ensure!(
            output.code == 0,
            "{engine} ended with {}: {}",
            output.code,
            output.stderr
        );
        let lines: Vec<String> = output.stdout.lines().map(str::to_owned).collect();
        ensure!(
            lines.len() == vectors.len(),
            "{engine} gave {} answers",
            lines.len()
        );
        answers.push(lines);
    }
    ensure!(traces()? == before, "nothing is pinned or mounted");
    let mut reasons = BTreeSet::new();
    for (vector, (userspace, kernel)) in vectors.iter().zip(answers[0].iter().zip(&answers[1])) {
        ensure!(
            userspace == kernel,
            "{vector}: userspace {userspace}, kernel {kernel}"
        );
        let answer: Value = serde_json::from_str(kernel)?;
        reasons.insert(answer["reason"].as_str().unwrap_or_default().to_owned());
    }
    // The vectors are about all that a policy decides.
    for reason in [
        "session",
        "open_rule",
        "locked",
        "expired",
        "idle",
        "level_too_low",
        "not_fresh",
        "no_rule",
        "denied",
        "unsolicited",
    ] {
        ensure!(
            reasons.contains(reason),
            "no vector ended with {reason}: {reasons:?}"
        );
    }
    Ok(())
}

#[test]
fn the_kernel_takes_more_users_than_one_policy_has_room_for() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let policy: String = (0..100)
        .map(|i| {
            format!("[[rule]]\nname = \"r{i}\"\nwho = [\"group:g{i}\"]\nto = [\"10.0.0.{i}\"]\n")
        })
        .collect();
    // Each pair of groups is an effective policy of its own: 4 950 of them.
    let pairs = (0..100).flat_map(|one| (one + 1..100).map(move |other| (one, other)));
    let vectors: Vec<(u32, String)> = pairs
        .map(|(one, other)| {
            let remote = (one * 7 + other) % 100;
            let vector = json!({
                "peer": { "address": "10.77.0.2", "user": "u", "groups": [format!("g{one}"), format!("g{other}")] },
                "session": { "level": "mfa", "age_s": 1, "idle_s": 0, "lifetime_s": 60 },
                "packet": { "direction": "from-peer", "protocol": 47, "remote": format!("10.0.0.{remote}") },
            });
            let passes = remote == one || remote == other;
            (if passes { remote } else { u32::MAX }, vector.to_string())
        })
        .collect();
    std::fs::write(dir.path().join("policy.toml"), policy)?;
    let text: String = vectors
        .iter()
        .map(|(_, vector)| format!("{vector}\n"))
        .collect();
    std::fs::write(dir.path().join("vectors.jsonl"), text)?;
    let output = eval(dir.path(), "kernel")?;
    ensure!(
        output.code == 0,
        "it ended with {}: {}",
        output.code,
        output.stderr
    );
    let answers: Vec<&str> = output.stdout.lines().collect();
    ensure!(answers.len() == vectors.len(), "{} answers", answers.len());
    for ((rule, vector), answer) in vectors.iter().zip(answers) {
        let answer: Value = serde_json::from_str(answer)?;
        let wanted = match rule {
            &u32::MAX => json!({ "verdict": "drop", "reason": "no_rule", "rule": null }),
            rule => json!({ "verdict": "pass", "reason": "session", "rule": format!("r{rule}") }),
        };
        ensure!(answer == wanted, "{vector}: {answer}");
    }
    Ok(())
}
