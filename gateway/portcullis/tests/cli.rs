//! The built binary: usage, configuration and admin commands against a real control service.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "cli/accounts.rs"]
mod accounts;
#[path = "cli/policy.rs"]
mod policy;
mod service;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use service::{Service, portcullis};

/// oathtool is an independent authenticator.
#[test]
fn codes_are_those_of_an_authenticator() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seed");
    let path = file.to_str().unwrap();
    for (secret, algorithm, at_s) in [
        ("GEZDGNBVGY3TQOJQ", "sha1", "1700000000"),
        ("MFRGGZDFMZTWQ2LKNNWG23TPOBYXE43U", "sha256", "59"),
        ("MFRGGZDFMZTWQ2LKNNWG23TPOBYXE43U", "sha512", "4000000000"),
    ] {
        fs::write(&file, format!("{secret}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let how = ["--algorithm", algorithm, "--at", at_s];
        let ours = portcullis(&[&["totp", "--secret-file", path], &how[..]].concat(), "");
        assert_eq!(ours.code, 0, "{}", ours.stderr);
        let piped = portcullis(&[&["totp", "--secret-stdin"], &how[..]].concat(), secret);
        assert_eq!(piped.stdout, ours.stdout);
        let theirs = std::process::Command::new("oathtool")
            .args(["--base32", &format!("--totp={algorithm}")])
            .args(["--now", &format!("@{at_s}"), secret])
            .output()
            .unwrap();
        assert!(theirs.status.success(), "{theirs:?}");
        assert_eq!(ours.stdout.as_bytes(), theirs.stdout, "{algorithm} {at_s}");
    }
    // Nobody else's to read, and not an argument.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let exposed = portcullis(&["totp", "--secret-file", path], "");
    assert_eq!(exposed.code, 2, "{}", exposed.stderr);
    for arguments in [&["totp"][..], &["totp", "GEZDGNBVGY3TQOJQ"]] {
        assert_eq!(portcullis(arguments, "").code, 2, "{arguments:?}");
    }
}

/// What cannot work says so before it asks for anything.
#[test]
fn connect_needs_its_capability_and_files_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (state, password) = (dir.path().join("state"), dir.path().join("password"));
    fs::write(&password, "correct horse battery\n").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    let fingerprint = format!("sha256:{}", "00".repeat(32));
    let args = [
        "connect",
        "vault",
        "--server",
        "https://127.0.0.1:9",
        "--ca-fingerprint",
        &fingerprint,
        "--user",
        "ada",
        "--state",
        state.to_str().unwrap(),
        "--password-file",
        password.to_str().unwrap(),
    ];
    // As root without any capability.
    let without = std::process::Command::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(env!("CARGO_BIN_EXE_portcullis"))
        .args(args)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&without.stderr);
    assert_eq!(without.status.code(), Some(6), "{said}");
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
    let exposed = portcullis(&args, "");
    assert_eq!(exposed.code, 2, "{}", exposed.stderr);
    assert!(!exposed.stderr.contains("horse"));
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let unreachable = portcullis(&args, "");
    assert_eq!(unreachable.code, 5, "{}", unreachable.stderr);
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &["bogus"][..],
        &["session", "revoke"],
        &["session", "revoke", "--all", "--user", "ada"],
        &["session", "extend", "x", "--by", "soon"],
        &[
            "location",
            "add",
            "office",
            "--pool",
            "10.77.0.1/24",
            "--endpoint",
            "a:1",
        ],
        &[
            "location",
            "add",
            "office",
            "--pool",
            "10.77.0.0/24",
            "--endpoint",
            "nowhere",
        ],
        &[
            "device",
            "add",
            "laptop",
            "--user",
            "ada",
            "--public-key",
            "AAAA",
        ],
        &[
            "login",
            "--url",
            "https://10.77.0.1",
            "--ca-fingerprint",
            "md5:00",
        ],
        &["agent"],
        &["explain", "laptop"],
        &["explain", "laptop", "server:22"],
        &["explain", "laptop", "10.9.0.2/tcp"],
        &["trace", "--count", "0"],
        &["location", "set", "office"],
        &["location", "set", "office", "--answer-drops", "maybe"],
        &["location", "set", "office", "--require", "none"],
        &["location", "set", "office", "--preset", "aal1"],
        &["--log", "=,=", "status"],
    ] {
        let ran = portcullis(arguments, "");
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.stderr);
        assert!(
            ran.stdout.is_empty() && !ran.stderr.is_empty(),
            "{arguments:?}"
        );
    }
}

#[test]
fn errors_are_json_where_json_is_asked_for() {
    for arguments in [
        &["--output", "json", "bogus"][..],
        &["--output=json", "--socket", "/nonexistent", "status"],
    ] {
        let ran = portcullis(arguments, "");
        assert!(ran.stdout.is_empty());
        let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
        assert!(error["error"].is_string(), "{error}");
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in [
        "up", "control", "agent", "config", "user", "device", "location", "policy", "session",
        "gateway", "status", "top", "explain", "trace", "doctor", "audit", "login", "logout",
    ] {
        let ran = portcullis(&[command, "--help"], "");
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.contains("Example"), "{command}: {}", ran.stdout);
    }
}

#[test]
fn a_wrong_configuration_exits_with_2_and_names_the_place() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("portcullis.toml");
    for (text, wanted) in [
        (
            "[control]\nlissten = 1\n",
            "line 2, column 1: lissten: unknown field",
        ),
        ("[controll]\n", "unknown field `controll`"),
        ("[control]\nlisten = 7443\n", "line 2"),
        ("[portal]\nlisten = [\"10.77.0.1/24\"]\n", "line 2"),
        ("[agent]\nmax_peers = -1\n", "line 2"),
        ("[agent]\nreconcile_period = \"soon\"\n", "line 2"),
        ("[agent]\ninterface = \"a/b\"\n", "agent.interface"),
        ("[up\n", "line 1"),
    ] {
        fs::write(&file, text).unwrap();
        for command in [
            &["config", "check"][..],
            &["control"],
            &["up"],
            &["agent"],
            &["agent", "teardown"],
        ] {
            let arguments = [command, &["--config", file.to_str().unwrap()]].concat();
            let ran = portcullis(&arguments, "");
            assert_eq!(ran.code, 2, "{arguments:?} with {text:?}: {}", ran.stderr);
            assert!(ran.stderr.contains(wanted), "{text:?}: {}", ran.stderr);
        }
    }
    let ran = portcullis(&["config", "check", "--config", "/nonexistent.toml"], "");
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("/nonexistent.toml"));
}

#[test]
fn without_a_service_the_socket_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let arguments = ["--socket", socket.to_str().unwrap(), "status"];
    let missing = portcullis(&arguments, "");
    assert_eq!(missing.code, 1);
    assert!(
        missing.stderr.contains("is portcullis running?") && missing.stderr.contains("admin.sock")
    );
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let stale = portcullis(&arguments, "");
    assert_eq!(stale.code, 1);
    assert!(stale.stderr.contains("nobody listens"), "{}", stale.stderr);
}

#[test]
fn users_locations_gateways_and_sessions() {
    let service = Service::start();
    let location = service.json(&[
        "location",
        "add",
        "office",
        "--pool",
        "10.77.0.0/24",
        "--pool",
        "fd77::/64",
        "--endpoint",
        "vpn.example.org:51820",
        "--route",
        "10.9.0.0/24",
        "--idle-timeout",
        "30m",
    ]);
    assert_eq!(
        location["pools"],
        serde_json::json!(["10.77.0.0/24", "fd77::/64"])
    );
    assert_eq!(location["idle_timeout_ms"], 1_800_000);
    let overlapping = service.run(
        &[
            "location",
            "add",
            "b",
            "--pool",
            "10.77.0.128/25",
            "--endpoint",
            "vpn.example.org:51821",
        ],
        "",
    );
    assert_ne!(overlapping.code, 0);
    assert!(
        overlapping.stderr.contains("overlaps"),
        "{}",
        overlapping.stderr
    );

    let weak = service.run(&["user", "add", "ada", "--password-stdin"], "short\n");
    assert_eq!(weak.code, 2, "{}", weak.stderr);
    let user = service.run(
        &[
            "user",
            "add",
            "ada",
            "--group",
            "sre",
            "--password-stdin",
            "--totp-secret-only",
        ],
        "correct horse battery\n",
    );
    assert_eq!(user.code, 0, "{}", user.stderr);
    assert!(user.stdout.trim().len() >= 32 && !user.stdout.trim().contains(char::is_whitespace));
    assert_eq!(
        service.json(&["user", "show", "ada"])["groups"],
        serde_json::json!(["sre"])
    );
    assert_eq!(service.json(&["user", "disable", "ada"])["done"], true);
    assert_eq!(service.json(&["user", "show", "ada"])["disabled"], true);
    assert_eq!(service.run(&["user", "show", "nobody"], "").code, 1);

    let gateway = service.json(&["gateway", "add", "gw1"]);
    assert_eq!(gateway["gateway"]["location"], "office");
    assert!(gateway["token"].is_string() && gateway["control_url"].is_string());
    assert_eq!(
        service.json(&["gateway", "list"])["gateways"][0]["public_key"],
        serde_json::Value::Null
    );

    assert_eq!(
        service.json(&["session", "list"])["sessions"],
        serde_json::json!([])
    );
    assert_eq!(service.json(&["session", "revoke", "--all"])["sessions"], 0);
    let audit = service.json(&["audit", "--limit", "2"]);
    assert_eq!(audit["records"].as_array().unwrap().len(), 2);
    assert!(audit["records"][0]["at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(service.json(&["status"])["users"], 1);
}

#[test]
fn accounts_elsewhere_are_linked_where_there_is_such_a_provider() {
    let service = Service::start();
    service.add_office();
    let linked = service.run(&["user", "set", "ada", "--sso", "acme:1"], "");
    assert_eq!(linked.code, 2);
    assert!(
        linked.stderr.contains("[[control.sso]]"),
        "{}",
        linked.stderr
    );
    let unlinked = service.run(&["user", "set", "ada", "--no-sso", "acme"], "");
    assert_eq!(unlinked.code, 1);
    assert!(
        unlinked.stderr.contains("no account"),
        "{}",
        unlinked.stderr
    );
    for wrong in [
        &["user", "set", "ada"][..],
        &["user", "set", "ada", "--sso", "ada@example.com"],
        &["user", "set", "ada", "--sso", "acme:"],
        &["user", "set", "ada", "--sso", "acme:1", "--no-sso", "acme"],
    ] {
        assert_eq!(service.run(wrong, "").code, 2, "{wrong:?}");
    }
    let shown = service.json(&["user", "show", "ada"]);
    assert_eq!(shown["sso"], serde_json::json!([]));
}

#[test]
fn a_device_is_not_added_before_its_gateway_is_known() {
    let service = Service::start();
    service.add_office();
    let file = service.path("laptop.conf");
    let ran = service.run(
        &[
            "device",
            "add",
            "laptop",
            "--user",
            "ada",
            "--config-out",
            &file,
        ],
        "",
    );
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("start the gateway first"),
        "{}",
        ran.stderr
    );
    assert!(fs::metadata(&file).is_err());
    assert_eq!(
        service.json(&["device", "list"])["devices"],
        serde_json::json!([])
    );
}

#[test]
fn an_added_device_gets_a_configuration_and_its_private_key_goes_nowhere_else() {
    let service = Service::start();
    service.add_office();
    let gateway = service.connect_gateway("gw1");
    let added = service.json(&[
        "device",
        "add",
        "laptop",
        "--user",
        "ada",
        "--preshared-key",
    ]);
    let config = added["config"].as_str().unwrap();
    for line in [
        "Address = 10.77.0.2/32, fd77::2/128",
        "AllowedIPs = 10.77.0.0/24, fd77::/64, 10.9.0.0/24",
        "Endpoint = vpn.example.org:51820",
        "PresharedKey = ",
        &format!("PublicKey = {}", gateway.public_key()),
    ] {
        assert!(config.contains(line), "{line} in {config}");
    }
    let private = config
        .lines()
        .find_map(|line| line.strip_prefix("PrivateKey = "))
        .unwrap();
    assert!(
        !service
            .json(&["device", "show", "laptop"])
            .to_string()
            .contains(private)
    );
    assert!(!service.log_and_database_contain(private));
    assert!(
        added["ca_fingerprint"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
    assert!(
        added["portal_url"]
            .as_str()
            .unwrap()
            .starts_with("https://10.77.0.1")
    );

    let file = service.path("phone.conf");
    let ran = service.run(
        &[
            "device",
            "add",
            "phone",
            "--user",
            "ada",
            "--config-out",
            &file,
        ],
        "",
    );
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains('█') && !ran.stdout.contains("PrivateKey"));
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let again = service.run(
        &[
            "device",
            "add",
            "phone2",
            "--user",
            "ada",
            "--config-out",
            &file,
        ],
        "",
    );
    assert_eq!(again.code, 1);
    assert_eq!(
        service.json(&["device", "list"])["devices"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn a_device_for_some_hours_shows_its_end() {
    let service = Service::start();
    service.add_office();
    let _gateway = service.connect_gateway("gw1");
    let add = ["device", "add", "hotel", "--user", "ada", "--for"];
    let added = service.json(&[&add[..], &["8h"]].concat());
    let ends = added["device"]["ends"].as_str().unwrap().to_owned();
    let list = service.json(&["device", "list"]);
    assert_eq!(list["devices"][0]["ends"], ends.as_str());
    // No session outlasts it.
    let session = service.json(&["session", "add", "--device", "hotel", "--lifetime", "20h"]);
    assert_eq!(session["deadline"], ends.as_str());
    let text = service.run(&["device", "list"], "").stdout;
    assert!(text.contains("ENDS"), "{text}");
    for bad in ["25h", "1s", "soon"] {
        let ran = service.run(&[&add[..], &[bad]].concat(), "");
        assert_ne!(ran.code, 0, "{bad}: {}", ran.stdout);
    }
}

#[test]
fn inv4_a_revocation_without_acknowledgement_is_pending() {
    let service = Service::start();
    service.add_office();
    let gateway = service.connect_gateway("gw1");
    service.json(&["device", "add", "laptop", "--user", "ada"]);
    let session = service.json(&["session", "add", "--device", "laptop", "--lifetime", "2h"]);
    let id = session["id"].as_str().unwrap();
    assert_eq!(
        (&session["state"], &session["level"]),
        (&"live".into(), &"mfa".into())
    );
    let extended = service.json(&["session", "extend", id, "--by", "1h"]);
    assert!(extended["deadline"].as_str().unwrap() > session["deadline"].as_str().unwrap());

    gateway.disconnect();
    let ran = service.run(
        &[
            "--output", "json", "session", "revoke", "--user", "ada", "--wait", "200ms",
        ],
        "",
    );
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let status: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&status["done"], &status["sessions"]),
        (&false.into(), &1.into())
    );
    assert_eq!(status["gateways"][0]["acknowledged"], false);
    assert_eq!(
        service.json(&["session", "list", "--all"])["sessions"][0]["state"],
        "revoked"
    );
}

#[test]
fn inv4_a_gateway_that_does_not_answer_stays_until_it_is_forced() {
    let service = Service::start();
    service.add_office();
    let gateway = service.connect_gateway("gw1");
    service.json(&["device", "add", "laptop", "--user", "ada"]);
    service.json(&["session", "add", "--device", "laptop", "--lifetime", "2h"]);
    assert!(service.json(&["gateway", "token", "gw1"])["token"].is_string());
    let ran = service.run(&["--output", "json", "gateway", "remove", "gw1"], "");
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let status: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&status["done"], &status["removed"]),
        (&false.into(), &serde_json::Value::Null)
    );
    assert!(status["open_until"].as_str().unwrap().ends_with('Z'));
    assert_eq!(service.json(&["gateway", "show", "gw1"])["removing"], true);
    assert_eq!(service.run(&["gateway", "token", "gw1"], "").code, 1);
    let forced = service.run(&["gateway", "remove", "gw1", "--force"], "");
    assert_eq!(forced.code, 0, "{}", forced.stderr);
    assert!(forced.stderr.contains("warning"), "{}", forced.stderr);
    assert_eq!(service.run(&["gateway", "show", "gw1"], "").code, 1);
    gateway.disconnect();
    assert_eq!(service.json(&["user", "unlock", "ada"])["unlocked"], "ada");
}

#[test]
fn an_occupied_port_is_named_and_nothing_is_served() {
    let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = occupied.local_addr().unwrap().to_string();
    let service = Service::configure(&address);
    let ran = portcullis(
        &["control", "--config", &service.path("portcullis.toml")],
        "",
    );
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains(&address), "{}", ran.stderr);
    assert!(fs::metadata(service.path("admin.sock")).is_err());
}

#[test]
fn control_stops_cleanly_and_a_restart_keeps_everything() {
    let mut service = Service::start();
    service.add_office();
    assert_eq!(service.stop(), Some(0));
    service.restart();
    assert_eq!(service.json(&["status"])["users"], 1);
}

#[test]
fn what_is_seen_of_devices() {
    let service = Service::start();
    service.add_office();
    let gateway = service.connect_gateway("gw1");
    service.json(&["device", "add", "laptop", "--user", "ada"]);
    gateway.disconnect();

    let top = service.json(&["top"]);
    assert_eq!(top["peers"][0]["device"], "laptop");
    assert!(top["peers"][0]["session"].is_null());
    let once = service.run(&["top", "--once"], "");
    assert!(
        once.stdout.contains("SESSION LEFT") && once.stdout.contains("laptop"),
        "{}",
        once.stdout
    );
    assert_eq!(
        service.json(&["top", "--user", "bob"])["peers"],
        serde_json::json!([])
    );

    // Without a gateway, the store answers, and says so.
    let locked = service.json(&["explain", "laptop", "10.9.0.2:22"]);
    assert_eq!(
        (&locked["verdict"], &locked["reason"]),
        (&"drop".into(), &"locked".into())
    );
    assert!(locked["gateway"].is_null() && locked["session"].is_null());
    service.json(&["session", "add", "--device", "laptop"]);
    let live = service.run(&["explain", "laptop", "10.9.0.2:22"], "");
    assert_eq!(live.code, 0, "{}", live.stderr);
    for part in ["passes", "the session's deadline", "No gateway answers"] {
        assert!(live.stdout.contains(part), "{part}: {}", live.stdout);
    }
    let unsolicited = service.json(&["explain", "--to-peer", "10.77.0.2", "10.9.0.2:5985/tcp"]);
    assert_eq!(unsolicited["reason"], "unsolicited");
    assert_eq!(service.run(&["explain", "phone", "10.9.0.2"], "").code, 1);

    let made = service.json(&["user", "recovery-codes", "ada"]);
    assert_eq!(made["codes"].as_array().unwrap().len(), 10);
    assert_eq!(service.json(&["user", "show", "ada"])["recovery_codes"], 10);
    let again = service.run(&["user", "recovery-codes", "ada"], "");
    assert!(
        again.stdout.contains("10 earlier codes are void"),
        "{}",
        again.stdout
    );
    assert!(!service.log_and_database_contain(made["codes"][0].as_str().unwrap()));

    let shown = service.json(&["location", "show", "office"]);
    assert_eq!(shown["answer_drops"], true);
    assert_eq!(shown["mode"], "gate");
    let set = service.json(&["location", "set", "office", "--answer-drops", "false"]);
    assert_eq!(set["answer_drops"], false);
    assert_eq!(set["require"], "mfa");
    let all = [
        "password",
        "totp",
        "recovery-code",
        "passkey",
        "sso",
        "phone",
    ];
    assert_eq!(set["factors"], serde_json::json!(all));

    // What gets stricter waits for the gateway, which is gone: committed, and pending.
    let preset = [
        "location", "set", "office", "--preset", "aal2", "--wait", "0s",
    ];
    let preset = service.run(&[&["--output", "json"], &preset[..]].concat(), "");
    assert_eq!(preset.code, 3, "{}", preset.stderr);
    let preset: serde_json::Value = serde_json::from_str(&preset.stdout).unwrap();
    assert_eq!(
        (&preset["idle_timeout_ms"], &preset["session_lifetime_ms"]),
        (&3_600_000.into(), &43_200_000.into())
    );
    assert_eq!(preset["revocation"]["done"], false);
    assert_eq!(preset["revocation"]["shortened"], 1);
    let nobody = service.run(&["location", "set", "office", "--factors", "totp"], "");
    assert_eq!(nobody.code, 2);
    assert!(
        nobody.stderr.contains("nobody could log in"),
        "{}",
        nobody.stderr
    );

    let unknown = service.run(&["trace", "--peer", "phone"], "");
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("phone"), "{}", unknown.stderr);
}

#[test]
fn figures_are_served_where_the_configuration_says() {
    use std::io::{Read as _, Write as _};
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut service = Service::start();
    service.stop();
    let file = service.path("portcullis.toml");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{config}[metrics]\nlisten = \"{free}\"\n")).unwrap();
    service.restart();
    let mut stream = std::net::TcpStream::connect(free).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(
        page.contains("portcullis_devices 0") && page.contains("# EOF"),
        "{page}"
    );
}
