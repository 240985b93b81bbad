//! Enrolment in Chromium, against the real pages outside of the tunnel.

use anyhow::{Context as _, Result};
use browser_tests::{Browser, Portal};
use serde_json::json;
use totp_rs::Totp;

const CHOSEN: &str = "a fine new phrase";

async fn choose(browser: &Browser, password: &str, again: &str) -> Result<()> {
    browser.fill("password", password).await?;
    browser.fill("again", again).await?;
    browser.press("Continue").await
}

async fn finish(browser: &Browser, code: &str) -> Result<()> {
    browser.fill("code", code).await?;
    browser.press("Finish").await
}

/// What an authenticator app makes of the page.
async fn scan(browser: &Browser) -> Result<Totp> {
    let script = "return document.querySelector('details a').href";
    let uri = browser.page.execute(script, Vec::new()).await?;
    let uri = uri.as_str().context("no otpauth link")?;
    Totp::from_url(uri).map_err(|error| anyhow::anyhow!("{error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_leads_to_a_new_password_and_authenticator() -> Result<()> {
    let portal = Portal::start().await?;
    let browser = Browser::start(&portal).await?;
    let link = portal.invite().await?;
    browser.page.goto(&link).await?;
    browser.wait_for("Your link is good once").await?;
    // What a glance, the history or a Referer could give away is gone from the address.
    let shown = browser.page.current_url().await?;
    assert_eq!(shown.as_str(), portal.public_url("/enrol"));
    browser.photograph("enrol").await?;
    browser.page.refresh().await?;
    browser.wait_for("Paste the link").await?;
    browser.photograph("enrol-by-hand").await?;
    // The whole link, by hand.
    browser.fill("link", &link).await?;
    browser.press("Begin").await?;

    browser.wait_for("Choose a password").await?;
    browser.photograph("enrol-password").await?;
    choose(&browser, "password1", "password1").await?;
    browser.wait_for("most common ones").await?;
    browser.photograph("enrol-password-refused").await?;
    choose(&browser, CHOSEN, "another phrase").await?;
    browser.wait_for("The two passwords differ.").await?;
    choose(&browser, CHOSEN, CHOSEN).await?;

    browser.wait_for("Set up your authenticator").await?;
    let drawn = "const box = document.querySelector('.qr svg').getBoundingClientRect();
        return box.width > 150 && Math.abs(box.width - box.height) < 2";
    let drawn = browser.page.execute(drawn, Vec::new()).await?;
    assert_eq!(drawn, json!(true), "the QR code can be scanned");
    browser.photograph("enrol-authenticator").await?;
    let totp = scan(&browser).await?;
    let right = totp.generate_current().to_string();
    let wrong = if right == "000000" {
        "111111"
    } else {
        "000000"
    };
    finish(&browser, wrong).await?;
    browser.wait_for("wrong or too old").await?;
    browser.press("I cannot scan it").await?;
    browser.photograph("enrol-authenticator-refused").await?;
    finish(&browser, &totp.generate_current().to_string()).await?;

    browser.wait_for("Your account is set up").await?;
    browser.photograph("enrol-done").await?;
    let codes = "return document.querySelectorAll('.codes code').length";
    assert_eq!(browser.page.execute(codes, Vec::new()).await?, json!(10));
    let audited = portal.audited().await?;
    assert!(audited.contains(&"user.enrol".to_owned()));

    // Used, and expired: the same words for both.
    browser.page.goto(&link).await?;
    browser.press("Begin").await?;
    browser.wait_for("This link is not good").await?;
    browser.photograph("enrol-over").await?;
    let expired = portal.invite().await?;
    portal.expire_links().await?;
    browser.page.goto(&portal.public_url("/style.css")).await?;
    browser.page.goto(&expired).await?;
    browser.wait_for("Your link is good once").await?;
    browser.press("Begin").await?;
    browser.wait_for("This link is not good").await?;

    // Inside the tunnel the new factors sign in.
    browser.page.goto(&portal.url("/sign-in")).await?;
    browser.fill("username", "ada").await?;
    browser.fill("password", CHOSEN).await?;
    browser.press("Continue").await?;
    browser.wait_for("Enter your code").await?;
    browser.stop().await
}

/// With a passkey and a device, as somebody new needs where a location accepts passkeys alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_passkey_and_a_first_device_come_with_the_enrolment() -> Result<()> {
    let portal = Portal::start().await?;
    let browser = Browser::start(&portal).await?;
    let link = portal.invite_to("office").await?;
    browser.page.goto(&link).await?;
    browser.wait_for("Your link is good once").await?;
    browser.press("Begin").await?;
    browser.wait_for("Choose a password").await?;
    choose(&browser, CHOSEN, CHOSEN).await?;
    browser.wait_for("Set up your authenticator").await?;
    let totp = scan(&browser).await?;
    finish(&browser, &totp.generate_current().to_string()).await?;
    browser.wait_for("Add this device at office").await?;
    browser.photograph("enrol-done-more").await?;

    // One that does not ask for a PIN, and one that does.
    let plain = browser.plug_in(false).await?;
    browser.fill("passkey-name", "Blue key").await?;
    browser.press("Add a passkey").await?;
    browser
        .wait_for("That was cancelled, took too long")
        .await?;
    browser.photograph("enrol-passkey-refused").await?;
    browser.unplug(&plain).await?;
    browser.plug_in(true).await?;
    browser.press("Add a passkey").await?;
    browser.wait_for("The passkey is added").await?;

    browser.fill("new-name", "Ada's tablet").await?;
    browser.press("Add this device").await?;
    browser.wait_for("“Ada's tablet” is added").await?;
    browser.photograph("enrol-device-made").await?;
    let codes = "return document.querySelectorAll('.codes code').length";
    let codes = browser.page.execute(codes, Vec::new()).await?;
    assert_eq!(codes, json!(10), "the recovery codes are still there");
    let config = browser.text_of("[data-made-text]").await?;
    let secret = config
        .lines()
        .find_map(|line| line.strip_prefix("PrivateKey = "))
        .context("no private key")?;
    let requests = browser.requests().await?;
    let made = |request: &&serde_json::Value| request.to_string().contains("/api/v1/enrol/device");
    assert!(requests.iter().any(|request| made(&request)));
    for request in &requests {
        assert!(!request.to_string().contains(secret), "it left the page");
    }
    assert_eq!(portal.keys().await?.len(), 2);
    let audited = portal.audited().await?;
    for action in ["passkey.add", "device.add"] {
        assert!(audited.contains(&action.to_owned()), "{action}");
    }

    // The passkey signs in inside the tunnel.
    browser.page.goto(&portal.url("/sign-in")).await?;
    browser.press("Use a passkey").await?;
    browser.wait_for("a passkey, or as strong").await?;
    browser.stop().await
}
