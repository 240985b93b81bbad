use std::time::Duration;

use gateway_common::abi::{Direction, Level};

use crate::policy::{Action, Fault, Policy, PortSpec, Principal, Problem, limits};

const GOOD: &str = r#"
[[rule]]
name    = "prod-ssh"
who     = ["group:sre", "user:ops1"]       # or "*"
to      = ["10.1.0.0/16", "fd00:1::/64"]
ports   = ["tcp/22", "tcp/8000-8999", "udp", "icmp", "47"]
action  = "allow"
require = "phishing-resistant"
max_age = "15m"

[[rule]]
name    = "helpdesk-push"
who     = ["group:laptops"]
from    = ["10.9.0.0/24"]
ports   = ["tcp/5985"]

[[rule]]
name = "never"
who = ["*"]
to = ["10.1.2.3"]
action = "deny"
"#;

/// A rule that is right but for `lines`; it starts on line 1, `lines` on line 5.
fn rule(lines: &str) -> String {
    format!("[[rule]]\nname = \"web\"\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\n{lines}\n")
}

fn problems(text: &str) -> Vec<Problem> {
    Policy::parse(text).unwrap_err().0
}

/// The one problem there must be.
fn problem(text: &str) -> (usize, Option<String>, Fault) {
    let mut problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    let Problem { line, rule, fault } = problems.remove(0);
    (line, rule, fault)
}

/// The one problem of a rule that is called `web`.
fn fault(line: usize, text: &str) -> Fault {
    let (found, rule, fault) = problem(text);
    assert_eq!((found, rule.as_deref()), (line, Some("web")), "{fault}");
    fault
}

#[test]
fn the_language_whole() {
    let policy = Policy::parse(GOOD).unwrap();
    let [ssh, push, never] = policy.rules() else {
        panic!("{policy:?}")
    };
    assert_eq!(
        (ssh.name.as_str(), ssh.line, ssh.direction),
        ("prod-ssh", 2, Direction::FromPeer)
    );
    assert_eq!(
        ssh.who,
        [
            Principal::Group("sre".into()),
            Principal::User("ops1".into())
        ]
    );
    assert_eq!(
        ssh.prefixes,
        [
            "10.1.0.0/16".parse().unwrap(),
            "fd00:1::/64".parse().unwrap()
        ]
    );
    assert_eq!(
        ssh.ports,
        [
            PortSpec::Ports {
                protocol: 6,
                first: 22,
                last: 22
            },
            PortSpec::Ports {
                protocol: 6,
                first: 8000,
                last: 8999
            },
            PortSpec::Protocol(17),
            PortSpec::Protocol(1),
            PortSpec::Protocol(47),
        ]
    );
    let max_age = Some(Duration::from_secs(900));
    assert_eq!(
        ssh.action,
        Action::Allow {
            level: Level::PhishingResistant,
            max_age
        }
    );
    assert_eq!((push.line, push.direction), (11, Direction::ToPeer));
    assert_eq!(
        push.action,
        Action::Allow {
            level: Level::Mfa,
            max_age: None
        }
    );
    assert_eq!(
        (never.ports.as_slice(), never.action),
        ([PortSpec::Any].as_slice(), Action::Deny)
    );
}

#[test]
fn no_rules_permit_nothing_but_are_a_policy() {
    assert_eq!(Policy::parse("# nothing\n").unwrap().rules(), []);
}

#[test]
fn unknown_keys() {
    assert!(
        matches!(fault(5, &rule("port = [\"tcp/22\"]")), Fault::UnknownKey { key, .. } if key == "port")
    );
    let (line, rule, fault) = problem(&format!("{GOOD}\n[defaults]\nrequire = \"mfa\"\n"));
    assert_eq!((line, rule), (23, None));
    assert!(matches!(fault, Fault::UnknownKey { key, .. } if key == "defaults"));
}

#[test]
fn missing_keys() {
    let (line, rule, fault) = problem("\n[[rule]]\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\n");
    assert_eq!(
        (line, rule, fault),
        (2, None, Fault::Missing { key: "name" })
    );
    let (line, rule, fault) = problem("[[rule]]\nname = \"web\"\nto = [\"10.0.0.0/8\"]\n");
    assert_eq!(
        (line, rule.as_deref(), fault),
        (1, Some("web"), Fault::Missing { key: "who" })
    );
    let (line, _, fault) = problem("[[rule]]\nname = \"web\"\nwho = [\"*\"]\n");
    assert_eq!((line, fault), (1, Fault::NoDirection));
}

#[test]
fn both_directions() {
    assert_eq!(
        fault(1, &rule("from = [\"10.0.0.0/8\"]")),
        Fault::BothDirections
    );
}

#[test]
fn wrong_types() {
    for (lines, wrong) in [
        ("ports = \"tcp/22\"", "ports"),
        ("ports = [22]", "ports"),
        ("action = true", "action"),
        ("require = 1", "require"),
        ("max_age = 900", "max_age"),
    ] {
        assert!(
            matches!(fault(5, &rule(lines)), Fault::WrongType { key, .. } if key == wrong),
            "{lines}"
        );
    }
    assert!(matches!(
        problem("rule = 5").2,
        Fault::WrongType { key: "rule", .. }
    ));
    assert!(matches!(
        problem("rule = [5]").2,
        Fault::WrongType { key: "rule", .. }
    ));
    assert!(matches!(
        problem("[rule]\nname = \"a\"").2,
        Fault::WrongType { key: "rule", .. }
    ));
    let (line, rule, fault) = problem("[[rule]]\nname = 5\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]");
    assert_eq!((line, rule), (2, None));
    assert!(matches!(fault, Fault::WrongType { key: "name", .. }));
}

#[test]
fn empty_lists() {
    assert!(matches!(
        fault(5, &rule("ports = []")),
        Fault::Empty { key: "ports", .. }
    ));
    let text = "[[rule]]\nname = \"web\"\nwho = []\nto = []\n";
    let found: Vec<_> = problems(text)
        .into_iter()
        .map(|problem| (problem.line, problem.fault))
        .collect();
    assert!(matches!(found[0], (3, Fault::Empty { key: "who", .. })));
    assert!(matches!(found[1], (4, Fault::Empty { key: "to", .. })));
}

#[test]
fn names() {
    for bad in ["", " web", "web ", "w\\u00e9b", "a\\tb", &"a".repeat(65)] {
        let text = format!("[[rule]]\nname = \"{bad}\"\nwho = [\"*\"]\nto = [\"10.0.0.0/8\"]\n");
        assert!(matches!(problem(&text), (2, _, Fault::Name(_))), "{bad:?}");
    }
    let twice = rule("") + &rule("");
    assert_eq!(fault(6, &twice), Fault::DuplicateName { first: 1 });
}

#[test]
fn faults_in_lists_are_found_on_their_own_lines() {
    let text = "[[rule]]\nname = \"web\"\nwho = [\n  \"*\",\n  \"sre\",\n]\nto = [\n  \"10.0.0.1/8\",\n  \"10.0.0.0/8\",\n  \"host\",\n]\nports = [\"tcp/22\", \"tcp/65536\"]\n";
    let found: Vec<_> = problems(text)
        .into_iter()
        .map(|problem| (problem.line, problem.fault))
        .collect();
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(matches!(found[0], (5, Fault::Principal { .. })));
    assert!(matches!(found[1], (8, Fault::HostBits { .. })));
    assert!(matches!(found[2], (10, Fault::Prefix { .. })));
    assert!(matches!(found[3], (12, Fault::Port { .. })));
}

#[test]
fn action_require_and_age() {
    assert_eq!(
        fault(5, &rule("action = \"Allow\"")),
        Fault::Action("Allow".into())
    );
    assert_eq!(
        fault(5, &rule("require = \"totp\"")),
        Fault::Require("totp".into())
    );
    for bad in [
        "",
        "15",
        "0s",
        "999ms",
        "-5m",
        "15 fortnights",
        "11years",
        "99999999999999999999s",
    ] {
        let text = rule(&format!("max_age = \"{bad}\""));
        assert!(matches!(fault(5, &text), Fault::MaxAge { .. }), "{bad:?}");
    }
    assert_eq!(
        fault(6, &rule("require = \"none\"\nmax_age = \"5m\"")),
        Fault::MaxAgeWithoutLogin
    );
    assert_eq!(
        fault(6, &rule("action = \"deny\"\nrequire = \"mfa\"")),
        Fault::OnDeny { key: "require" }
    );
    assert_eq!(
        fault(6, &rule("action = \"deny\"\nmax_age = \"5m\"")),
        Fault::OnDeny { key: "max_age" }
    );
}

#[test]
fn all_problems_are_told_in_order_each_with_its_rule() {
    let text =
        rule("action = \"drop\"\nports = [\"tcp/0\"]") + "[[rule]]\nname = \"x\"\nwho = [\"me\"]\n";
    let told = Policy::parse(&text).unwrap_err().to_string();
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(
        lines,
        [
            "line 5, rule \"web\": action \"drop\" is neither \"allow\" nor \"deny\"",
            "line 6, rule \"web\": \"tcp/0\" in `ports`: a port is a number from 1 to 65535, a range two of them, as in \
             \"tcp/8000-8999\"",
            "line 7, rule \"x\": `to` is missing (or `from`, for unsolicited traffic towards the peer)",
            "line 9, rule \"x\": \"me\" in `who`: write \"*\", \"user:NAME\" or \"group:NAME\"",
        ]
    );
}

#[test]
fn what_is_not_toml_is_refused_with_its_line_and_without_guesses() {
    // The second rule has no `who` because its line is broken: that is not told as missing.
    let text = rule("action = \"drop\"")
        + "[[rule]]\nname = \"x\"\nwho = [\"*\" \"*\"]\nto = [\"10.0.0.0/8\"\n";
    let found = problems(&text);
    assert_eq!(
        (found[0].line, &found[0].fault),
        (5, &Fault::Action("drop".into()))
    );
    assert!(
        found.len() > 1
            && found[1..]
                .iter()
                .all(|problem| matches!(problem.fault, Fault::Syntax(_))),
        "{found:?}"
    );
    assert_eq!(found[1].line, 8);
}

#[test]
fn a_key_written_twice_is_refused() {
    let (line, _, fault) = problem(&rule("action = \"allow\"\naction = \"deny\""));
    assert_eq!(line, 6);
    assert!(matches!(fault, Fault::Syntax(_)));
}

#[test]
fn a_faulty_rule_refuses_the_good_ones() {
    assert!(Policy::parse(&(GOOD.to_owned() + &rule("ports = [\"tcp/1-2-3\"]"))).is_err());
}

#[test]
fn more_rules_than_the_limit() {
    let rules = |count: usize| -> String {
        (0..count)
            .map(|i| format!("[[rule]]\nname=\"r{i}\"\nwho=[\"*\"]\nto=[\"10.0.0.0/8\"]\n"))
            .collect()
    };
    assert_eq!(
        Policy::parse(&rules(limits::RULES)).unwrap().rules().len(),
        limits::RULES
    );
    let (line, _, fault) = problem(&rules(limits::RULES + 2));
    assert_eq!((line, fault), (4 * limits::RULES + 1, Fault::TooManyRules));
}

#[test]
fn more_prefixes_than_the_limit() {
    let rule = |name: &str, from: usize, to: usize| -> String {
        let prefixes: Vec<_> = (from..to)
            .map(|i| format!("\"10.{}.{}.{}\"", i >> 16, i >> 8 & 255, i & 255))
            .collect();
        format!(
            "[[rule]]\nname=\"{name}\"\nwho=[\"*\"]\nto=[{}]\n",
            prefixes.join(",")
        )
    };
    let full = rule("a", 0, limits::PREFIXES);
    assert!(Policy::parse(&(full.clone() + &rule("again", 0, 10))).is_ok());
    let (line, name, fault) = problem(&(full + &rule("b", limits::PREFIXES, limits::PREFIXES + 1)));
    assert_eq!(
        (line, name.as_deref(), fault),
        (5, Some("b"), Fault::TooManyPrefixes)
    );
}

#[test]
fn a_file_over_the_limit() {
    assert_eq!(
        problem(&"#".repeat(limits::FILE_BYTES + 1)).2,
        Fault::TooLarge
    );
}
