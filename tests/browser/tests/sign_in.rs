//! Signing in by each factor, and every refusal, in Chromium against the real portal and a real provider.
//! One after the other in one browser: it is the starting that takes time.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use browser_tests::{Browser, PASSWORD, Portal};
use fantoccini::Locator;
use oidc::{CLIENT, Provider, SECRET};

#[path = "../../../gateway/portal/tests/oidc/provider.rs"]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod oidc;

const WRONG: &str = "The name, the password or the code is wrong";

async fn password(portal: &Portal, browser: &Browser, password: &str) -> Result<()> {
    browser.page.goto(&portal.url("/sign-in")).await?;
    browser.fill("username", "ada").await?;
    browser.fill("password", password).await?;
    browser.press("Continue").await
}

async fn code(browser: &Browser, code: &str) -> Result<()> {
    browser.wait_for("Enter your code").await?;
    browser.fill("code", code).await?;
    browser.press("Sign in").await
}

async fn recovery(browser: &Browser, code: &str) -> Result<()> {
    // A refused one leaves the section open.
    let open = browser.page.find(Locator::Css("details[open]")).await;
    if open.is_err() {
        browser.press("Use a recovery code").await?;
    }
    browser.fill("recovery", code).await?;
    browser.press("Sign in with a recovery code").await
}

/// Ends the session.
async fn leave(portal: &Portal, browser: &Browser) -> Result<()> {
    browser.page.goto(&portal.url("/")).await?;
    browser.press("End session").await?;
    browser.wait_for("Your tunnel is up").await
}

fn wrong(right: &str) -> &'static str {
    if right == "000000" {
        "111111"
    } else {
        "000000"
    }
}

/// From the sign-in page to the provider's form, and through it.
async fn by_provider(portal: &Portal, browser: &Browser, login: &str) -> Result<()> {
    browser.page.goto(&portal.url("/sign-in")).await?;
    browser.press("Sign in with Acme Works").await?;
    browser.wait_for("Sign-in").await?;
    let fill = "document.querySelector('[name=login]').value = arguments[0];
        document.querySelector('[name=password]').value = 'x'";
    browser.page.execute(fill, vec![login.into()]).await?;
    browser.click("[type=submit]").await?;
    // What the portal asks to be told has to be agreed to, the first time.
    for _ in 0..100 {
        if browser
            .page
            .current_url()
            .await?
            .as_str()
            .starts_with(&portal.url(""))
        {
            return Ok(());
        }
        if browser.page.source().await?.contains("value=\"consent\"") {
            return browser.click("[type=submit]").await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("the provider does not lead back")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_to_sign_in_works_and_each_refusal_is_told() -> Result<()> {
    let mut provider = None;
    let begin = |redirect: &str| {
        let started = Provider::start(redirect, "http://127.0.0.1:9/nobody-listens");
        let issuer = started.issuer.clone();
        provider = Some(started);
        issuer
    };
    let portal = Portal::start_with_sso(begin, CLIENT, SECRET).await?;
    let browser = Browser::start(&portal).await?;

    passwords_and_codes(&portal, &browser).await?;
    recovery_codes(&portal, &browser).await?;
    step_up(&portal, &browser).await?;
    delays(&portal, &browser).await?;
    single_sign_on(&portal, &browser).await?;
    browser.stop().await
}

async fn passwords_and_codes(portal: &Portal, browser: &Browser) -> Result<()> {
    password(portal, browser, "not the password").await?;
    browser.wait_for(WRONG).await?;
    browser.photograph("sign-in-refused").await?;

    password(portal, browser, PASSWORD).await?;
    let right = portal.code();
    code(browser, wrong(&right)).await?;
    browser.wait_for("The code is wrong").await?;
    browser.photograph("code-refused").await?;
    let right = portal.code();
    code(browser, &right).await?;
    browser.wait_for("You are signed in").await?;
    browser.wait_for("left").await?;

    // The same code again is as good as a wrong one.
    leave(portal, browser).await?;
    password(portal, browser, PASSWORD).await?;
    code(browser, &right).await?;
    browser.wait_for("was used already").await?;
    portal.unlock().await
}

async fn recovery_codes(portal: &Portal, browser: &Browser) -> Result<()> {
    let codes = portal.recovery_codes().await?;
    password(portal, browser, PASSWORD).await?;
    browser.wait_for("Use a recovery code").await?;
    recovery(browser, "ABCD-EFGH-ABCD-EFGH-ABCD-EFGH").await?;
    browser.wait_for("The code is wrong").await?;
    // Its section is still open.
    browser.photograph("code-recovery-refused").await?;
    recovery(browser, &codes[0].to_lowercase()).await?;
    browser.wait_for("You are signed in").await?;
    leave(portal, browser).await?;
    password(portal, browser, PASSWORD).await?;
    browser.wait_for("Use a recovery code").await?;
    recovery(browser, &codes[0]).await?;
    browser.wait_for("was used already").await?;
    recovery(browser, &codes[1]).await?;
    browser.wait_for("You are signed in").await
}

async fn step_up(portal: &Portal, browser: &Browser) -> Result<()> {
    let page = portal.url("/step-up?for=intranet.example");
    browser.page.goto(&page).await?;
    browser
        .wait_for("needs a stronger or a more recent login")
        .await?;
    browser.wait_for("today").await?;
    browser.photograph("step-up").await?;
    browser.press("Sign in again").await?;
    browser.wait_for("Your tunnel is up").await?;
    leave(portal, browser).await
}

async fn delays(portal: &Portal, browser: &Browser) -> Result<()> {
    for _ in 0..5 {
        password(portal, browser, "not the password").await?;
        browser.wait_for(WRONG).await?;
    }
    // Now the right one does not help either.
    password(portal, browser, PASSWORD).await?;
    browser
        .wait_for("Too many wrong attempts; try again in")
        .await?;
    browser.photograph("sign-in-delayed").await?;
    portal.unlock().await
}

/// With the policy on form-action that the pages have: Chromium holds redirects after a form against it.
async fn single_sign_on(portal: &Portal, browser: &Browser) -> Result<()> {
    browser.page.goto(&portal.url("/sign-in")).await?;
    browser.wait_for("Or sign in elsewhere").await?;
    browser.photograph("sign-in-providers").await?;
    leaving(portal, browser).await?;

    by_provider(portal, browser, "ada-1+mfa").await?;
    browser.wait_for("You are signed in").await?;
    assert_eq!(
        browser.page.current_url().await?.as_str(),
        portal.url("/"),
        "nothing of the answer is left in the address"
    );
    leave(portal, browser).await?;
    // One factor there wants another here.
    by_provider(portal, browser, "ada-1").await?;
    portal.forget_codes().await?;
    code(browser, &portal.code()).await?;
    browser.wait_for("You are signed in").await?;
    leave(portal, browser).await?;
    by_provider(portal, browser, "somebody-else").await?;
    browser.wait_for("This sign-in was refused").await?;
    browser.photograph("sign-in-provider-refused").await?;
    let answer = portal.url("/login/sso/acme/callback");
    browser.page.goto(&answer).await?;
    browser
        .wait_for("The provider's answer is incomplete")
        .await?;
    browser.photograph("notice").await
}

/// The page leads on at once, so what the portal answers is shown without that.
async fn leaving(portal: &Portal, browser: &Browser) -> Result<()> {
    let post = "const done = arguments[0];
        fetch('/login/sso/acme', { method: 'POST' }).then((answer) => answer.text()).then(done)";
    let html = browser.page.execute_async(post, Vec::new()).await?;
    let html = html.as_str().context("no page")?;
    let (start, rest) = html
        .split_once("<meta http-equiv=")
        .context("it leads on")?;
    let (_, end) = rest.split_once('>').context("the end of it")?;
    browser.page.goto(&portal.url("/sign-in")).await?;
    browser.show(&format!("{start}{end}")).await?;
    browser.wait_for("You are being sent there").await?;
    browser.photograph("leaving").await?;
    Ok(())
}
