//! Signing in outside of the tunnel in Chromium, against the real pages.

use anyhow::Result;
use browser_tests::{Browser, PASSWORD, Portal};
use serde_json::json;

async fn password(browser: &Browser, password: &str) -> Result<()> {
    browser.fill("username", "ada").await?;
    browser.fill("password", password).await?;
    browser.press("Continue").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_is_signed_in_from_outside_counted_down_and_ended() -> Result<()> {
    let portal = Portal::start().await?;
    portal.add_device("phone", 9).await?;
    let browser = Browser::start(&portal).await?;
    browser.page.goto(&portal.public_url("/")).await?;
    browser.wait_for("You are outside of the tunnel").await?;
    browser.photograph("outside-sign-in").await?;
    password(&browser, "wrong").await?;
    browser
        .wait_for("The name or the password is wrong")
        .await?;
    browser.photograph("outside-sign-in-refused").await?;

    password(&browser, PASSWORD).await?;
    browser.wait_for("Enter your code").await?;
    browser.photograph("outside-code").await?;
    browser.press("Use a recovery code").await?;
    browser.fill("recovery", "ABCD").await?;
    browser.press("Continue with a recovery code").await?;
    browser.wait_for("The code is wrong").await?;
    browser.photograph("outside-code-refused").await?;
    browser.fill("code", &portal.code()).await?;
    browser.press("Continue").await?;

    browser.wait_for("Which device?").await?;
    browser.photograph("outside-devices").await?;
    // No script of a page gets at what names the login.
    let cookies = browser.page.execute("return document.cookie", Vec::new());
    assert_eq!(cookies.await?, json!(""));
    browser.press("Sign in laptop").await?;
    browser.wait_for("“laptop” is signed in").await?;
    browser.photograph("outside-session").await?;
    let shown = browser.page.current_url().await?;
    assert_eq!(shown.as_str(), portal.public_url("/"));
    // The server says hours and minutes; a second before a full minute the script says one less.
    let left = "return Number(document.querySelector('[data-left-s]').dataset.leftS)";
    let left = browser.page.execute(left, Vec::new()).await?;
    let left_s = left.as_u64().unwrap_or_default();
    assert!((43_000..=43_200).contains(&left_s), "{left_s}");
    browser.wait_for("11 h 59 min").await?;

    // Ended elsewhere, which is seen when somebody looks.
    portal.revoke().await?;
    let look = "document.dispatchEvent(new Event('visibilitychange'))";
    browser.page.execute(look, Vec::new()).await?;
    browser.wait_for("This session is over").await?;
    browser.photograph("outside-session-over").await?;
    browser.press("Sign in").await?;
    browser.wait_for("You are outside of the tunnel").await?;

    // Ended here.
    portal.forget_codes().await?;
    password(&browser, PASSWORD).await?;
    browser.wait_for("Enter your code").await?;
    browser.fill("code", &portal.code()).await?;
    browser.press("Continue").await?;
    browser.wait_for("Which device?").await?;
    browser.press("Sign in phone").await?;
    browser.wait_for("“phone” is signed in").await?;
    browser.press("End session").await?;
    browser.wait_for("You are outside of the tunnel").await?;
    let audited = portal.audited().await?;
    for action in [
        "outside.begin",
        "outside.refuse",
        "outside.grant",
        "session.logout",
    ] {
        assert!(audited.contains(&action.to_owned()), "{action}");
    }
    browser.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passkey_signs_in_from_outside_where_nothing_else_does() -> Result<()> {
    let portal = Portal::start().await?;
    let browser = Browser::start(&portal).await?;
    let key = browser.plug_in(true).await?;
    portal.grant("laptop", 0).await?;
    browser.page.goto(&portal.url("/passkeys")).await?;
    browser.fill("new-name", "Blue key").await?;
    browser.press("Add a passkey").await?;
    browser.wait_for("never used").await?;
    portal.revoke().await?;
    portal.require_passkeys().await?;

    browser.page.goto(&portal.public_url("/")).await?;
    password(&browser, PASSWORD).await?;
    browser.wait_for("Use your passkey").await?;
    browser.photograph("outside-passkey").await?;
    browser.set_verified(&key, false).await?;
    browser.press("Use a passkey").await?;
    browser
        .wait_for("That was cancelled, took too long")
        .await?;
    browser.photograph("outside-passkey-refused").await?;
    browser.set_verified(&key, true).await?;
    browser.press("Use a passkey").await?;
    browser.wait_for("Which device?").await?;
    browser.press("Sign in laptop").await?;
    browser.wait_for("“laptop” is signed in").await?;
    browser.wait_for("a passkey, or as strong").await?;
    browser.stop().await
}
