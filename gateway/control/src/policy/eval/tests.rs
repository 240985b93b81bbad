//! Vectors by hand, sentence by sentence.

use super::{Answer, Vector, evaluate};
use crate::policy::load;

const POLICY: &str = r#"
[[rule]]
name = "web"
who = ["*"]
to = ["10.0.0.0/8", "fd00::/8"]
ports = ["tcp/443", "icmp", "icmp6", "47"]

[[rule]]
name = "ssh"
who = ["group:sre"]
to = ["10.1.0.0/16"]
ports = ["tcp/22"]
require = "phishing-resistant"

[[rule]]
name = "fresh"
who = ["user:ops1"]
to = ["10.2.0.0/16"]
max_age = "15m"

[[rule]]
name = "status"
who = ["*"]
to = ["10.3.0.1"]
require = "none"

[[rule]]
name = "no-vault"
who = ["*"]
to = ["10.1.9.9"]
action = "deny"

[[rule]]
name = "helpdesk"
who = ["group:sre"]
from = ["10.9.0.0/24"]
ports = ["tcp/5985", "icmp"]
"#;

const LIVE: &str =
    r#"{"level":"mfa","age_s":600,"idle_s":0,"lifetime_s":43200,"idle_timeout_s":3600}"#;

fn line(user: &str, session: &str, packet: &str) -> String {
    format!(
        r#"{{"peer":{{"address":"10.77.0.2","user":"{user}","groups":["sre"]}},"session":{session},"packet":{{{packet}}}}}"#
    )
}

fn answer(line: &str) -> (String, String, Option<String>) {
    let (_, mut compiled) = load(POLICY).unwrap();
    let vector = Vector::parse(line).unwrap();
    let class = compiled.assign(&vector.subject()).unwrap();
    let Answer {
        verdict,
        reason,
        rule,
    } = evaluate(&compiled, class, &vector);
    (verdict.into(), reason.into(), rule)
}

#[track_caller]
fn says(line: &str, verdict: &str, reason: &str, rule: Option<&str>) {
    let wanted = (verdict.into(), reason.into(), rule.map(str::to_owned));
    assert_eq!(answer(line), wanted, "{line}");
}

fn tcp(remote: &str, port: u16) -> String {
    format!(
        r#""direction":"from-peer","protocol":"tcp","remote":"{remote}","peer_port":40000,"remote_port":{port}"#
    )
}

#[test]
fn rules_and_sessions() {
    let ask = |session: &str, packet: &str| line("ops1", session, packet);
    says(
        &ask(LIVE, &tcp("10.5.0.1", 443)),
        "pass",
        "session",
        Some("web"),
    );
    says(&ask(LIVE, &tcp("10.5.0.1", 80)), "drop", "no_rule", None);
    says(
        &ask(LIVE, &tcp("10.1.9.9", 443)),
        "drop",
        "denied",
        Some("no-vault"),
    );
    says(
        &ask("null", &tcp("10.1.9.9", 443)),
        "drop",
        "denied",
        Some("no-vault"),
    );
    says(
        &ask("null", &tcp("10.5.0.1", 443)),
        "drop",
        "locked",
        Some("web"),
    );
    says(
        &ask("null", &tcp("10.3.0.1", 1)),
        "pass",
        "open_rule",
        Some("status"),
    );
    says(
        &ask(LIVE, &tcp("10.1.0.1", 22)),
        "drop",
        "level_too_low",
        Some("ssh"),
    );
    // The narrower rule is about another port: the wider one holds.
    says(
        &ask(LIVE, &tcp("10.1.0.1", 443)),
        "pass",
        "session",
        Some("web"),
    );
    let better = LIVE.replace("mfa", "phishing-resistant");
    says(
        &ask(&better, &tcp("10.1.0.1", 22)),
        "pass",
        "session",
        Some("ssh"),
    );
}

#[test]
fn ages_and_limits() {
    let session = |age: u64, idle: u64, lifetime: u64, timeout: &str| {
        format!(
            r#"{{"level":"mfa","age_s":{age},"idle_s":{idle},"lifetime_s":{lifetime},"idle_timeout_s":{timeout}}}"#
        )
    };
    let web = tcp("10.5.0.1", 443);
    let ask = |session: &str, packet: &str| line("ops1", session, packet);
    says(
        &ask(&session(99, 0, 100, "0"), &web),
        "pass",
        "session",
        Some("web"),
    );
    says(
        &ask(&session(100, 0, 100, "0"), &web),
        "drop",
        "expired",
        Some("web"),
    );
    says(
        &ask(&session(50, 9, 100, "10"), &web),
        "pass",
        "session",
        Some("web"),
    );
    says(
        &ask(&session(50, 10, 100, "10"), &web),
        "drop",
        "idle",
        Some("web"),
    );
    says(
        &ask(&session(50, 99, 100, "null"), &web),
        "pass",
        "session",
        Some("web"),
    );
    let fresh = tcp("10.2.0.1", 5);
    says(
        &ask(&session(899, 0, 43200, "0"), &fresh),
        "pass",
        "session",
        Some("fresh"),
    );
    says(
        &ask(&session(901, 0, 43200, "0"), &fresh),
        "drop",
        "not_fresh",
        Some("fresh"),
    );
    // An old login at one destination is still good at another.
    says(
        &ask(&session(901, 0, 43200, "0"), &web),
        "pass",
        "session",
        Some("web"),
    );
}

#[test]
fn towards_the_peer() {
    let packet = |remote: &str, protocol: &str, ports: &str| {
        format!(r#""direction":"to-peer","protocol":{protocol},"remote":"{remote}"{ports}"#)
    };
    let ports = r#","peer_port":5985,"remote_port":50000"#;
    let push = packet("10.9.0.5", r#""tcp""#, ports);
    says(
        &line("bob", LIVE, &push),
        "pass",
        "session",
        Some("helpdesk"),
    );
    says(
        &line("bob", "null", &push),
        "drop",
        "locked",
        Some("helpdesk"),
    );
    let elsewhere = packet("10.8.0.5", "6", ports);
    says(&line("bob", LIVE, &elsewhere), "drop", "unsolicited", None);
    // The remote's port is not the destination's.
    let swapped = r#","peer_port":50000,"remote_port":5985"#;
    says(
        &line("bob", LIVE, &packet("10.9.0.5", "6", swapped)),
        "drop",
        "unsolicited",
        None,
    );
    says(
        &line("bob", LIVE, &packet("10.9.0.5", r#""icmp""#, "")),
        "pass",
        "session",
        Some("helpdesk"),
    );
}

#[test]
fn other_protocols_and_families() {
    let packet = |protocol: &str| {
        format!(r#""direction":"from-peer","protocol":{protocol},"remote":"10.5.0.1""#)
    };
    for protocol in [r#""icmp""#, "47", r#""47""#, "1"] {
        says(
            &line("bob", LIVE, &packet(protocol)),
            "pass",
            "session",
            Some("web"),
        );
    }
    says(&line("bob", LIVE, &packet("50")), "drop", "no_rule", None);
    let six = line("bob", LIVE, &packet(r#""icmp6""#))
        .replace("10.77.0.2", "fd77::2")
        .replace("10.5.0.1", "fd01::1");
    says(&six, "pass", "session", Some("web"));
}

#[test]
fn what_is_no_vector_is_refused() {
    let good = line("bob", LIVE, &tcp("10.5.0.1", 443));
    for (part, with, wanted) in [
        (r#""tcp""#, r#""sctp""#, "tcp, udp, icmp, icmp6 or a number"),
        (r#""tcp""#, "256", "tcp, udp, icmp, icmp6 or a number"),
        (r#""tcp""#, r#""icmp""#, "protocol 1 has no ports"),
        (
            r#","remote_port":443"#,
            "",
            "both `peer_port` and `remote_port`",
        ),
        ("443", "65536", "65536"),
        ("10.5.0.1", "fd00::1", "different families"),
        ("10.5.0.1", "example.org", "invalid IP address"),
        ("from-peer", "sideways", "sideways"),
        (r#""mfa""#, r#""strong""#, "strong"),
        (r#""age_s":600,"#, "", "age_s"),
        ("43200", "4320000000", "century"),
        (r#""user""#, r#""name""#, "unknown field `name`"),
        ("}}", "}", "EOF"),
    ] {
        let bad = good.replace(part, with);
        assert_ne!(bad, good, "{part}");
        let error = Vector::parse(&bad).unwrap_err().to_string();
        assert!(error.contains(wanted), "{bad}: {error}");
    }
}
