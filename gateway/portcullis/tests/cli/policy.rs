//! `portcullis policy` and `user groups`.

use std::fs;

use serde_json::Value;

use crate::service::{Ran, Service, portcullis};

const STAFF: &str = r#"
[[rule]]
name = "web"
who = ["group:staff"]
to = ["10.9.0.0/16"]
ports = ["tcp/443"]

[[rule]]
name = "ssh"
who = ["group:sre"]
to = ["10.9.0.0/24"]
ports = ["tcp/22"]
require = "phishing-resistant"
max_age = "15m"

[[rule]]
name = "push"
who = ["group:sre"]
from = ["10.9.0.9"]
"#;

/// A directory with a policy file and a file of vectors.
struct Files(tempfile::TempDir);

impl Files {
    fn new(policy: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("policy.toml", policy);
        files
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn eval(&self, vectors: &str) -> Ran {
        self.write("vectors.jsonl", vectors);
        let (policy, vectors) = (self.path("policy.toml"), self.path("vectors.jsonl"));
        portcullis(
            &["policy", "eval", "--policy", &policy, "--vectors", &vectors],
            "",
        )
    }
}

fn vector(user: &str, group: &str, level: &str, age_s: u64, remote: &str, port: u16) -> String {
    format!(
        r#"{{"peer":{{"address":"10.77.0.2","user":"{user}","groups":["{group}"]}},"session":{{"level":"{level}","age_s":{age_s},"idle_s":0,"lifetime_s":43200,"idle_timeout_s":3600}},"packet":{{"direction":"from-peer","protocol":"tcp","remote":"{remote}","peer_port":40000,"remote_port":{port}}}}}"#
    )
}

#[test]
fn every_policy_command_has_help_with_an_example() {
    for command in [
        "check", "apply", "show", "diff", "history", "shadow", "eval",
    ] {
        let ran = portcullis(&["policy", command, "--help"], "");
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.contains("Example"), "{command}: {}", ran.stdout);
    }
}

#[test]
fn check_works_without_a_service_and_tells_every_problem() {
    let files = Files::new(STAFF);
    let policy = files.path("policy.toml");
    let ran = portcullis(&["--output", "json", "policy", "check", &policy], "");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&answer["ok"], &answer["rules"], &answer["prefixes"]),
        (&true.into(), &3.into(), &3.into())
    );

    files.write(
        "policy.toml",
        &STAFF
            .replace("10.9.0.0/16", "10.9.0.1/16")
            .replace("15m", "soon"),
    );
    let ran = portcullis(&["policy", "check", &policy], "");
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("line 5, rule \"web\":"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("line 14, rule \"ssh\":"),
        "{}",
        ran.stderr
    );
    let ran = portcullis(&["--output", "json", "policy", "check", &policy], "");
    let error: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(error["problems"][0]["line"], 5);
    assert_eq!(error["problems"][1]["rule"], "ssh");
    let ran = portcullis(&["policy", "check", "/nonexistent/policy.toml"], "");
    assert_eq!(ran.code, 2);
}

#[test]
fn eval_answers_line_by_line() {
    let files = Files::new(STAFF);
    let vectors = [
        vector("ann", "staff", "mfa", 600, "10.9.1.1", 443),
        vector("ann", "staff", "mfa", 600, "10.9.0.1", 22),
        vector("bob", "sre", "mfa", 600, "10.9.0.1", 22),
        vector("bob", "sre", "phishing-resistant", 600, "10.9.0.1", 22),
        vector("bob", "sre", "phishing-resistant", 901, "10.9.0.1", 22),
    ];
    let ran = files.eval(&(vectors.join("\n") + "\n"));
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            r#"{"verdict":"pass","reason":"session","rule":"web"}"#,
            r#"{"verdict":"drop","reason":"no_rule","rule":null}"#,
            r#"{"verdict":"drop","reason":"level_too_low","rule":"ssh"}"#,
            r#"{"verdict":"pass","reason":"session","rule":"ssh"}"#,
            r#"{"verdict":"drop","reason":"not_fresh","rule":"ssh"}"#,
        ]
    );
}

#[test]
fn eval_names_the_line_that_is_no_vector_and_answers_nothing() {
    let files = Files::new(STAFF);
    let good = vector("ann", "staff", "mfa", 600, "10.9.1.1", 443);
    for bad in ["", "{}", "null", &good.replace("tcp", "sctp")] {
        let ran = files.eval(&format!("{good}\n{bad}\n{good}\n"));
        assert_eq!(ran.code, 2, "{bad}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("vectors.jsonl: line 2: "),
            "{}",
            ran.stderr
        );
        assert!(ran.stdout.is_empty());
    }
}

#[test]
fn eval_takes_more_users_than_one_policy_has_room_for() {
    let rules: String = (0..300)
        .map(|i| {
            format!("[[rule]]\nname = \"r{i}\"\nwho = [\"group:g{i}\"]\nto = [\"10.9.1.1\"]\n")
        })
        .collect();
    let files = Files::new(&rules);
    let vectors: String = (0..6_000)
        .map(|i| {
            let groups = format!("g{}\",\"g{}", i % 300, i / 20);
            vector("u", &groups, "mfa", 1, "10.9.1.1", 5) + "\n"
        })
        .collect();
    let ran = files.eval(&vectors);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.stdout.lines().count(), 6_000);
    assert!(ran.stdout.lines().all(|line| line.contains("\"pass\"")));
}

#[test]
fn a_policy_is_applied_shown_compared_and_kept() {
    let service = Service::start();
    service.add_office();
    assert_eq!(
        service.json(&["policy", "history"])["policies"],
        serde_json::json!([])
    );
    let files = Files::new(STAFF);
    let policy = files.path("policy.toml");

    // Against the gate everything else is lost.
    let diff = service.json(&["policy", "diff", &policy]);
    assert_eq!(diff["policy"], Value::Null);
    assert_eq!(diff["changes"][0]["effect"], "loses");
    let checked = service.json(&["policy", "check", "--users", &policy]);
    assert_eq!(
        (&checked["rules"], &checked["classes"]),
        (&3.into(), &0.into())
    );

    let applied = service.json(&["policy", "apply", &policy]);
    assert_eq!(
        (&applied["policy"]["number"], &applied["done"]),
        (&1.into(), &true.into())
    );
    let shown = service.json(&["policy", "show"]);
    assert_eq!(
        (&shown["source"], &shown["live"]),
        (&STAFF.into(), &true.into())
    );
    let source = service.run(&["policy", "show", "--source"], "");
    assert_eq!(source.stdout, STAFF);
    let ada = service.json(&["policy", "show", "--user", "ada"]);
    assert_eq!(ada["lines"], serde_json::json!([]));

    let groups = service.json(&["user", "groups", "ada", "--add", "sre,staff"]);
    assert_eq!(groups["groups"], serde_json::json!(["sre", "staff"]));
    let ada = service.json(&["policy", "show", "--user", "ada"]);
    let rules: Vec<&str> = ada["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["outcome"]["rule"].as_str().unwrap())
        .collect();
    assert_eq!(rules, ["web", "ssh", "web", "push"]);
    let text = service.run(&["policy", "show", "--user", "ada"], "").stdout;
    assert!(
        text.contains("phishing-resistant, login within 15m"),
        "{text}"
    );

    files.write("policy.toml", &STAFF.replace("tcp/443", "tcp/80"));
    let diff = service.json(&["policy", "diff", &policy]);
    let effects: Vec<&str> = diff["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| change["effect"].as_str().unwrap())
        .collect();
    assert_eq!(effects.len(), 2);
    assert!(effects.contains(&"loses") && effects.contains(&"gains"));

    // A refused file changes nothing.
    files.write("policy.toml", "[[rule]]\nname = \"x\"\n");
    let ran = service.run(&["policy", "apply", &policy], "");
    assert_eq!(ran.code, 2);
    assert!(
        ran.stderr.contains("line 1, rule \"x\": `who` is missing"),
        "{}",
        ran.stderr
    );
    assert_eq!(service.json(&["policy", "show"])["number"], 1);

    files.write("policy.toml", "");
    service.json(&["policy", "apply", &policy]);
    let history = service.json(&["policy", "history"]);
    assert_eq!(history["policies"][0]["number"], 2);
    assert_eq!(history["policies"][1]["live"], false);
    let old = service.json(&["policy", "show", "--number", "1"]);
    assert_eq!(old["source"], STAFF);
}

#[test]
fn inv4_an_unacknowledged_policy_is_pending() {
    let service = Service::start();
    service.add_office();
    let gateway = service.connect_gateway("gw1");
    let files = Files::new(STAFF);
    let policy = files.path("policy.toml");
    let ran = service.run(
        &[
            "--output", "json", "policy", "apply", &policy, "--wait", "200ms",
        ],
        "",
    );
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let status: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(status["gateways"][0]["acknowledged"], false);
    assert_eq!(service.json(&["policy", "show"])["number"], 1);
    gateway.disconnect();
}

#[test]
fn groups_are_shown_set_added_and_removed() {
    let service = Service::start();
    service.add_office();
    let groups = |arguments: &[&str]| {
        let all = [&["user", "groups", "ada"][..], arguments].concat();
        service.json(&all)["groups"].clone()
    };
    assert_eq!(groups(&[]), serde_json::json!([]));
    assert_eq!(groups(&["--set", "b,a"]), serde_json::json!(["a", "b"]));
    assert_eq!(
        groups(&["--add", "c", "--remove", "a"]),
        serde_json::json!(["b", "c"])
    );
    assert_eq!(groups(&["--set", ""]), serde_json::json!([]));
    let ran = service.run(&["user", "groups", "ada", "--set", "a b"], "");
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert_eq!(service.run(&["user", "groups", "bob"], "").code, 1);
}

#[test]
fn a_shadow_runs_for_its_time() {
    let service = Service::start();
    service.add_office();
    let files = Files::new(STAFF);
    let policy = files.path("policy.toml");
    let ran = service.json(&["policy", "shadow", &policy, "--for", "300ms"]);
    assert_eq!(
        (&ran["observed"], &ran["would_drop"]),
        (&0.into(), &0.into())
    );
}
