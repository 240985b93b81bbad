//! Accounts: roles, links to enrol by, lost factors, and the first administrator.

use std::fs;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::service::Service;

fn free_address() -> String {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().to_string()
}

/// With enrolment at an address of its own.
fn with_enrolment() -> (Service, String) {
    let mut service = Service::configure(&free_address());
    let public = free_address();
    let path = service.path("portcullis.toml");
    let config = fs::read_to_string(&path).unwrap();
    let portal = format!("[portal]\npublic = [\"{public}\"]\n");
    fs::write(&path, format!("{config}{portal}")).unwrap();
    service.restart();
    (service, format!("https://{public}/enrol#portcullis_"))
}

/// The link that the service prints at its start, a moment after it answers administrators.
fn printed(service: &Service, page: &str) -> String {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let printed = fs::read_to_string(service.path("control.out")).unwrap();
        // What follows the link has to be there as well.
        if printed.contains("each start prints a new one") {
            let link = printed.lines().find(|line| line.starts_with(page));
            return link.unwrap().to_owned();
        }
        assert!(Instant::now() < until, "no link in {printed:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_empty_store_prints_a_link_for_the_first_admin_afresh_at_each_start() {
    let (mut service, page) = with_enrolment();
    let first = printed(&service, &page);
    let out = fs::read_to_string(service.path("control.out")).unwrap();
    assert!(out.contains("█") && out.contains("sha256:"), "{out}");
    let admin = service.json(&["user", "show", "admin"]);
    assert_eq!(
        (&admin["role"], &admin["enrolled"]),
        (&"admin".into(), &Value::Null)
    );
    assert_eq!(service.stop(), Some(0));
    service.restart();
    let second = printed(&service, &page);
    assert_ne!(first, second);
    for link in [first, second] {
        let (_, token) = link.split_once('#').unwrap();
        assert!(!service.log_and_database_contain(token), "inv. 10");
    }
    // Once an account has factors there is nothing to print.
    let password = "correct horse battery\n";
    let added = service.run(&["user", "add", "ada", "--password-stdin"], password);
    assert_eq!(added.code, 0, "{}", added.stderr);
    assert_eq!(service.stop(), Some(0));
    service.restart();
    assert_eq!(service.stop(), Some(0), "it has printed all that it prints");
    let out = fs::read_to_string(service.path("control.out")).unwrap();
    assert_eq!(out, "");
}

#[test]
fn users_are_invited_and_given_roles() {
    let (service, page) = with_enrolment();
    let added = service.json(&[
        "user", "add", "ada", "--invite", "--valid", "2h", "--role", "admin", "--group", "sre",
    ]);
    assert!(added["link"]["url"].as_str().unwrap().starts_with(&page));
    let user = &added["user"];
    assert_eq!(
        (&user["role"], &user["has_password"]),
        (&"admin".into(), &false.into())
    );
    let list = service.run(&["user", "list"], "").stdout;
    assert!(list.contains("invited") && list.contains("ROLE"), "{list}");
    let set = service.json(&["user", "set", "ada", "--role", "user"]);
    assert_eq!(set["role"], "user");
    let again = service.json(&["user", "invite", "ada"]);
    assert_ne!(again["url"], added["link"]["url"]);
    let text = service.run(&["user", "invite", "ada"], "");
    assert!(
        text.stdout.contains("█") && text.stdout.contains(&page),
        "{}",
        text.stdout
    );
    for (arguments, code) in [
        (&["user", "set", "ada", "--role", "boss"][..], 2),
        (&["user", "set", "nobody", "--role", "user"], 1),
        (&["user", "invite", "nobody"], 1),
        (&["user", "invite", "ada", "--valid", "90days"], 2),
        (&["user", "add", "bob", "--invite", "--password-stdin"], 2),
        (&["user", "add", "bob", "--valid", "2h"], 2),
    ] {
        let ran = service.run(arguments, "");
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn without_public_addresses_the_way_round_is_told() {
    let mut service = Service::start();
    let refused = service.run(&["user", "add", "ada", "--invite"], "");
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("[portal] public"),
        "{}",
        refused.stderr
    );
    assert_eq!(service.run(&["user", "show", "ada"], "").code, 1);
    assert_eq!(service.stop(), Some(0));
    let log = fs::read_to_string(service.path("control.log")).unwrap();
    assert!(log.contains("user add NAME --role admin"), "{log}");
}

#[test]
fn inv4_a_lost_factor_ends_sessions_and_waits_for_gateways() {
    let (service, page) = with_enrolment();
    service.add_office();
    let gateway = service.connect_gateway("gw1");
    service.json(&["device", "add", "laptop", "--user", "ada"]);
    service.json(&["session", "add", "--device", "laptop"]);
    service.json(&["user", "recovery-codes", "ada"]);
    for wrong in [
        &["user", "reset", "ada"][..],
        &["user", "reset", "ada", "--factor", "totp"],
        &["user", "reset", "ada", "--reason", " "],
        &["user", "reset", "ada", "--reason", "lost", "--totp"],
    ] {
        let ran = service.run(wrong, "");
        assert_eq!(ran.code, 2, "{wrong:?}: {}", ran.stderr);
    }
    gateway.disconnect();
    let ran = service.run(
        &[
            "--output",
            "json",
            "user",
            "reset",
            "ada",
            "--reason",
            "phone stolen",
            "--factor",
            "totp",
            "--wait",
            "200ms",
        ],
        "",
    );
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(answer["void"], serde_json::json!(["totp"]));
    assert_eq!(answer["recovery_codes_voided"], 10);
    assert_eq!(answer["revocation"]["sessions"], 1);
    assert_eq!(answer["revocation"]["done"], false);
    assert!(answer["link"]["url"].as_str().unwrap().starts_with(&page));
    let user = service.json(&["user", "show", "ada"]);
    assert_eq!(
        (&user["has_totp"], &user["has_password"]),
        (&false.into(), &true.into())
    );
    assert_eq!(user["last_reset_reason"], "phone stolen");
    let audit = service.run(&["audit"], "").stdout;
    assert!(
        audit.contains("user.reset-factors") && audit.contains("phone stolen"),
        "{audit}"
    );
}
