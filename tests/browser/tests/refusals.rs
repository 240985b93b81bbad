//! What users are told when something is not done, in Chromium against the real portal. Refusals of single
//! factors are in `sign_in.rs`, beside what they refuse.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use browser_tests::{Browser, PASSWORD, Portal};

async fn password(browser: &Browser, page: &str, password: &str) -> Result<()> {
    browser.page.goto(page).await?;
    browser.fill("username", "ada").await?;
    browser.fill("password", password).await?;
    browser.press("Continue").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_as_many_devices_as_allowed_is_told_so_on_the_page_and_by_the_script() -> Result<()>
{
    let portal = Portal::start().await?;
    let browser = Browser::start(&portal).await?;
    for (name, key) in [("two", 12), ("three", 13), ("four", 14)] {
        portal.add_device(name, key).await?;
    }
    portal.grant("laptop", 0).await?;
    browser.page.goto(&portal.url("/devices")).await?;
    browser.wait_for("4 of 5 in use").await?;
    // The last one is taken elsewhere, while this page is open.
    portal.add_device("five", 15).await?;
    browser.fill("new-name", "Six").await?;
    browser.press("Add a device").await?;
    browser
        .wait_for("You have 5 devices already: remove one first.")
        .await?;
    browser.press("I have a key already").await?;
    browser
        .fill("public-key", &STANDARD.encode([16; 32]))
        .await?;
    browser.fill("pasted-name", "Six").await?;
    browser.press("Add with this key").await?;
    browser
        .wait_for("You have as many devices as you may.")
        .await?;
    browser.photograph("devices-full").await?;
    assert_eq!(portal.keys().await?.len(), 5);
    browser.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_cannot_be_reached_and_a_disabled_account_are_told() -> Result<()> {
    // Nobody listens there.
    let issuer = |_: &str| "http://127.0.0.1:9".to_owned();
    let portal = Portal::start_with_sso(issuer, "client", "secret").await?;
    let browser = Browser::start(&portal).await?;
    browser.page.goto(&portal.url("/sign-in")).await?;
    browser.press("Sign in with").await?;
    browser
        .wait_for("The provider cannot be reached, or gives no usable answer: try again later.")
        .await?;
    browser.photograph("sign-in-provider-down").await?;

    // The right password of a disabled account is told what a wrong one is.
    let mut told = Vec::new();
    for (disabled, typed) in [(false, "not the password"), (true, PASSWORD)] {
        portal.set_disabled(disabled).await?;
        password(&browser, &portal.url("/sign-in"), typed).await?;
        browser
            .wait_for("The name, the password or the code is wrong")
            .await?;
        told.push(browser.text_of("main").await?);
    }
    assert_eq!(told[0], told[1]);
    browser.photograph("sign-in-disabled").await?;
    browser.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_nothing_that_fits_and_too_many_attempts_are_told() -> Result<()> {
    let portal = Portal::start().await?;
    let browser = Browser::start(&portal).await?;
    let sign_in = portal.public_url("/sign-in");

    // A password cannot open what asks for a passkey, and says no more than that.
    portal.require_passkeys().await?;
    password(&browser, &sign_in, PASSWORD).await?;
    browser
        .wait_for("or nothing can be signed in from here with it.")
        .await?;
    browser.photograph("outside-no-device").await?;

    for _ in 0..6 {
        password(&browser, &sign_in, "not the password").await?;
        browser.wait_for("wrong").await?;
    }
    // Now the right one is not even looked at.
    password(&browser, &sign_in, PASSWORD).await?;
    browser
        .wait_for("Too many wrong attempts; try again in")
        .await?;
    browser.photograph("outside-delayed").await?;
    browser.stop().await
}
