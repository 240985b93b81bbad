//! One's own factors in Chromium, against the real portal: each change, and what it takes.

use anyhow::{Context as _, Result};
use browser_tests::{Browser, PASSWORD, Portal};
use fantoccini::Locator;
use totp_rs::Totp;

const CHOSEN: &str = "a fine new phrase";

async fn sign_in(portal: &Portal, browser: &Browser, password: &str) -> Result<()> {
    browser.page.goto(&portal.url("/sign-in")).await?;
    browser.fill("username", "ada").await?;
    browser.fill("password", password).await?;
    browser.press("Continue").await?;
    browser.wait_for("Enter your code").await
}

async fn choose(browser: &Browser, password: &str, again: &str) -> Result<()> {
    // A refused one leaves the section open.
    let open = browser.page.find(Locator::Css("details[open] #password"));
    if open.await.is_err() {
        browser.press("Change the password").await?;
    }
    browser.fill("password", password).await?;
    browser.fill("again", again).await?;
    browser.press("Save the password").await
}

async fn confirm(browser: &Browser, code: &str) -> Result<()> {
    browser.fill("code", code).await?;
    browser.press("Use this authenticator").await
}

/// What an authenticator app makes of the page.
async fn scan(browser: &Browser) -> Result<Totp> {
    let script = "return document.querySelector('details a').href";
    let uri = browser.page.execute(script, Vec::new()).await?;
    let uri = uri.as_str().context("no otpauth link")?;
    Totp::from_url(uri).map_err(|error| anyhow::anyhow!("{error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_factor_is_changed_by_its_user() -> Result<()> {
    // Nobody signs in by it: that it is linked is enough to unlink it.
    let issuer = |_: &str| "https://acme.example".to_owned();
    let portal = Portal::start_with_sso(issuer, "client", "secret").await?;
    let browser = Browser::start(&portal).await?;
    sign_in(&portal, &browser, PASSWORD).await?;
    browser.fill("code", &portal.code()).await?;
    browser.press("Sign in").await?;
    browser.wait_for("You are signed in").await?;
    browser.press("Sign-in").await?;
    browser.wait_for("How you sign in").await?;
    browser.wait_for("today").await?;
    browser.photograph("factors").await?;

    // The password, by its rules.
    browser.press("Change the password").await?;
    browser.photograph("factors-password").await?;
    browser.page.refresh().await?;
    choose(&browser, "password1", "password1").await?;
    browser.wait_for("most common ones").await?;
    browser.photograph("factors-refused").await?;
    choose(&browser, CHOSEN, "another phrase").await?;
    browser.wait_for("The two passwords differ.").await?;
    choose(&browser, CHOSEN, CHOSEN).await?;
    browser.wait_for("Your password is changed").await?;
    browser.photograph("factors-changed").await?;

    // The authenticator.
    browser.press("Replace the authenticator").await?;
    browser
        .wait_for("Scan this with an authenticator app")
        .await?;
    browser.photograph("factors-authenticator").await?;
    let totp = scan(&browser).await?;
    let wrong = match totp.generate_current().to_string().as_str() {
        "000000" => "111111",
        _ => "000000",
    };
    confirm(&browser, wrong).await?;
    browser.wait_for("The code is wrong or too old").await?;
    browser.press("I cannot scan it").await?;
    browser.photograph("factors-authenticator-refused").await?;
    let confirmed = totp.generate_current().to_string();
    confirm(&browser, &confirmed).await?;
    browser.wait_for("Your new authenticator is set up").await?;

    // Recovery codes.
    browser.press("Make new codes").await?;
    browser.press("Make new recovery codes").await?;
    browser.wait_for("they are not shown again").await?;
    browser.photograph("factors-codes").await?;
    let code = browser.text_of(".codes code").await?;
    browser.press("I have saved them").await?;
    browser.wait_for("10 left").await?;

    // Single sign-on.
    browser.press("Unlink").await?;
    browser.photograph("factors-unlink").await?;
    browser.click("[action$=\"/unlink\"] button").await?;
    browser.wait_for("signs you in no more").await?;

    // A login from an hour ago changes nothing.
    portal.age_logins().await?;
    browser.page.goto(&portal.url("/factors")).await?;
    browser
        .wait_for("To change any of this, sign in again")
        .await?;
    browser.photograph("factors-sign-in-again").await?;
    assert!(!browser.page.source().await?.contains("action=\"/factors/"));
    browser.press("Sign in again").await?;
    browser.wait_for("Your tunnel is up").await?;

    // What was changed is what signs in, and the code that confirmed does not.
    sign_in(&portal, &browser, CHOSEN).await?;
    browser.fill("code", &confirmed).await?;
    browser.press("Sign in").await?;
    browser.wait_for("was used already").await?;
    browser.press("Use a recovery code").await?;
    browser.fill("recovery", &code).await?;
    browser.press("Sign in with a recovery code").await?;
    browser.wait_for("You are signed in").await?;
    browser.page.goto(&portal.url("/factors")).await?;
    browser.wait_for("9 left").await?;
    let audited = portal.audited().await?;
    for action in ["user.password", "user.totp", "user.recovery-codes"] {
        let times = audited.iter().filter(|a| *a == action).count();
        assert_eq!(times, 1, "{action}");
    }
    browser.stop().await
}
