//! Every page of the portal is looked at by some test, and photographed.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use browser_tests::Portal;

/// What is seen at each path, after a form where it takes one: the names of the pictures.
const PAGES: &[(&str, &[&str])] = &[
    (
        "/",
        &[
            "session",
            "session-over",
            "sign-in",
            "outside-session",
            "outside-session-over",
            "outside-sign-in",
        ],
    ),
    (
        "/approve",
        &[
            "approve",
            "approve-denied",
            "approve-done",
            "approve-no-passkey",
            "approve-over",
            "approve-wrong-number",
            "connect-passkey",
            "connect-denied",
        ],
    ),
    (
        "/connect/sso/{provider}/callback",
        &["connect-going-back", "connect-not-back"],
    ),
    (
        "/devices",
        &[
            "devices",
            "device-made",
            "device-added",
            "devices-refused",
            "devices-full",
        ],
    ),
    ("/devices/{id}/remove", &["devices-remove"]),
    ("/devices/{id}/rename", &["devices-rename"]),
    (
        "/enrol",
        &["enrol", "enrol-by-hand", "enrol-over", "enrol-password"],
    ),
    (
        "/enrol/password",
        &["enrol-password-refused", "enrol-authenticator"],
    ),
    (
        "/enrol/totp",
        &[
            "enrol-authenticator-refused",
            "enrol-done",
            "enrol-done-more",
            "enrol-passkey-refused",
            "enrol-device-made",
        ],
    ),
    ("/factors", &["factors", "factors-sign-in-again"]),
    (
        "/factors/password",
        &["factors-password", "factors-refused", "factors-changed"],
    ),
    ("/factors/recovery-codes", &["factors-codes"]),
    ("/factors/sso/{provider}/unlink", &["factors-unlink"]),
    ("/factors/totp", &["factors-authenticator"]),
    ("/factors/totp/confirm", &["factors-authenticator-refused"]),
    (
        "/login",
        &[
            "code",
            "code-phone",
            "sign-in-refused",
            "sign-in-delayed",
            "outside-code",
            "outside-passkey",
            "outside-no-device",
            "outside-delayed",
            "sign-in-disabled",
            "outside-sign-in-refused",
        ],
    ),
    ("/login/device", &["outside-session"]),
    ("/login/phone", &["outside-phone-waiting"]),
    ("/login/phone/finish", &["outside-devices"]),
    ("/login/recovery", &["outside-code-refused"]),
    (
        "/login/sso/{provider}",
        &["leaving", "sign-in-provider-down"],
    ),
    (
        "/login/sso/{provider}/callback",
        &["sign-in-provider-refused", "notice"],
    ),
    ("/login/totp", &["outside-devices"]),
    (
        "/login/{attempt}/phone",
        &["phone-waiting", "phone-refused"],
    ),
    ("/login/{attempt}/phone/finish", &["session"]),
    ("/login/{attempt}/recovery", &["code-recovery-refused"]),
    ("/login/{attempt}/totp", &["code-refused"]),
    ("/logout", &["sign-in"]),
    (
        "/passkeys",
        &["passkeys", "passkeys-none", "passkeys-blocked"],
    ),
    ("/passkeys/{id}/remove", &["passkeys-remove"]),
    ("/passkeys/{id}/rename", &["passkeys-rename"]),
    ("/sessions", &["sessions"]),
    ("/sessions/end-others", &["sessions"]),
    ("/sessions/{id}/end", &["sessions"]),
    (
        "/sign-in",
        &["sign-in", "sign-in-providers", "sign-in-by-address"],
    ),
    ("/step-up", &["step-up"]),
];

/// Not for people.
fn is_page(path: &str) -> bool {
    !path.starts_with("/api/")
        && path != "/captive-portal/api"
        && ![".js", ".css"].iter().any(|end| path.ends_with(end))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_has_its_pictures() -> Result<()> {
    let paths = Portal::start().await?.paths();
    let paths: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
    let paths: BTreeSet<&str> = paths.into_iter().filter(|path| is_page(path)).collect();
    let known: BTreeSet<&str> = PAGES.iter().map(|(path, _)| *path).collect();
    assert_eq!(paths, known, "a page is new or gone");

    // The tests that take them fail where they cannot.
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut tests = String::new();
    for file in std::fs::read_dir(&here).context("the tests")? {
        tests += &std::fs::read_to_string(file?.path())?;
    }
    for picture in PAGES.iter().flat_map(|(_, pictures)| *pictures) {
        let taken = format!(".photograph(\"{picture}\")");
        assert!(tests.contains(&taken), "{picture} is never taken");
    }
    Ok(())
}
