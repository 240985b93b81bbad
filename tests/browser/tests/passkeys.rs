//! Passkeys in Chromium, against the real portal.

use anyhow::Result;
use browser_tests::{Browser, PASSWORD, Portal};
use fantoccini::Locator;

/// Password and code.
async fn sign_in(portal: &Portal, browser: &Browser) -> Result<()> {
    browser.page.goto(&portal.url("/sign-in")).await?;
    browser.fill("username", "ada").await?;
    browser.fill("password", PASSWORD).await?;
    browser.press("Continue").await?;
    browser.wait_for("Enter your code").await?;
    browser.photograph("code").await?;
    browser.fill("code", &portal.code()).await?;
    browser.press("Sign in").await?;
    browser.wait_for("You are signed in").await
}

async fn add_passkey(portal: &Portal, browser: &Browser, name: &str) -> Result<()> {
    browser.page.goto(&portal.url("/passkeys")).await?;
    browser.fill("new-name", name).await?;
    browser.press("Add a passkey").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passkey_is_added_used_renamed_and_removed() -> Result<()> {
    let portal = Portal::start().await?;
    let browser = Browser::start(&portal).await?;
    browser.page.goto(&portal.url_by_address("/")).await?;
    browser.wait_for("Passkeys work at").await?;
    browser.photograph("sign-in-by-address").await?;
    browser.page.goto(&portal.url("/")).await?;
    browser.wait_for("Use a passkey").await?;
    browser.photograph("sign-in").await?;
    browser.press("Use a passkey").await?;
    browser.wait_for("No passkey is registered").await?;
    browser.photograph("sign-in-no-passkey").await?;

    // One that verifies nobody is refused before it is asked: the browser knows that it cannot.
    sign_in(&portal, &browser).await?;
    browser.photograph("session-mfa").await?;
    let plain = browser.plug_in(false).await?;
    add_passkey(&portal, &browser, "No PIN").await?;
    browser
        .wait_for("That was cancelled, took too long")
        .await?;
    browser.photograph("passkeys-refused").await?;
    browser.unplug(&plain).await?;

    let key = browser.plug_in(true).await?;
    add_passkey(&portal, &browser, "Blue key").await?;
    browser.wait_for("never used").await?;
    browser.wait_for("sign in again with a passkey").await?;
    browser.photograph("passkeys-sign-in-again").await?;
    browser.press("Sign in again").await?;
    browser.wait_for("Use a passkey").await?;

    // The user cannot give the PIN, and then can.
    browser.set_verified(&key, false).await?;
    browser.press("Use a passkey").await?;
    browser
        .wait_for("That was cancelled, took too long")
        .await?;
    browser.photograph("sign-in-not-verified").await?;
    browser.set_verified(&key, true).await?;
    browser.press("Use a passkey").await?;
    browser.wait_for("a passkey, or as strong").await?;
    browser.photograph("session-phishing-resistant").await?;

    browser.page.goto(&portal.url("/passkeys")).await?;
    browser.press("Rename").await?;
    browser.photograph("passkeys-rename").await?;
    let field = name_field(&browser).await?;
    browser.fill(&field, "Green key").await?;
    submit(&browser, "rename").await?;
    browser.wait_for("Green key").await?;
    // The same authenticator does not make a second one.
    add_passkey(&portal, &browser, "Again").await?;
    browser
        .wait_for("has a passkey for your account already")
        .await?;
    browser.photograph("passkeys").await?;

    // As the second step after the password.
    browser.page.goto(&portal.url("/sign-in")).await?;
    browser.fill("username", "ada").await?;
    browser.fill("password", PASSWORD).await?;
    browser.press("Continue").await?;
    browser.wait_for("Enter your code").await?;
    browser.press("Use a passkey").await?;
    browser.wait_for("You are signed in").await?;

    browser.page.goto(&portal.url("/passkeys")).await?;
    browser.press("Remove").await?;
    browser.photograph("passkeys-remove").await?;
    submit(&browser, "remove").await?;
    browser.wait_for("You have none yet").await?;
    browser.photograph("passkeys-none").await?;
    let audited = portal.audited().await?;
    for action in ["passkey.add", "passkey.rename", "passkey.remove"] {
        assert_eq!(
            audited.iter().filter(|a| *a == action).count(),
            1,
            "{action}"
        );
    }
    browser.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copied_passkey_is_blocked_and_shown() -> Result<()> {
    let portal = Portal::start().await?;
    let browser = Browser::start(&portal).await?;
    sign_in(&portal, &browser).await?;
    let key = browser.plug_in(true).await?;
    add_passkey(&portal, &browser, "Blue key").await?;
    browser.wait_for("never used").await?;
    browser.page.goto(&portal.url("/sign-in")).await?;
    browser.press("Use a passkey").await?;
    browser.wait_for("a passkey, or as strong").await?;
    browser.set_counter(&key, 0).await?;
    browser.page.goto(&portal.url("/sign-in")).await?;
    browser.press("Use a passkey").await?;
    browser.wait_for("may have been copied").await?;
    browser.page.goto(&portal.url("/passkeys")).await?;
    browser.wait_for("Blocked").await?;
    browser.photograph("passkeys-blocked").await?;
    assert!(
        portal
            .audited()
            .await?
            .contains(&"passkey.block".to_owned())
    );
    browser.stop().await
}

/// The id of the first field for a new name of a passkey.
async fn name_field(browser: &Browser) -> Result<String> {
    let script = "return document.querySelector('[action$=\"/rename\"] input').id";
    let id = browser.page.execute(script, Vec::new()).await?;
    Ok(id.as_str().unwrap_or_default().to_owned())
}

/// Presses the button of the first form of this kind.
async fn submit(browser: &Browser, kind: &str) -> Result<()> {
    let button = format!("[action$=\"/{kind}\"] button");
    let locator = Locator::Css(&button);
    browser.page.find(locator).await?.click().await?;
    Ok(())
}
