//! A phone that approves a computer's sign-in: two browsers, and a passkey in one of them.

use anyhow::{Context as _, Result};
use browser_tests::{Browser, PASSWORD, Portal};

async fn password(computer: &Browser, url: &str) -> Result<()> {
    computer.page.goto(url).await?;
    computer.fill("username", "ada").await?;
    computer.fill("password", PASSWORD).await?;
    computer.press("Continue").await?;
    computer.wait_for("Enter your code").await
}

/// The address behind the QR code, and the number.
async fn ask(computer: &Browser) -> Result<(String, String)> {
    computer.press("Approve with your phone").await?;
    computer.wait_for("Waiting for your phone").await?;
    let url = computer.text_of("#address").await?;
    Ok((url, computer.text_of("[data-phone-number]").await?))
}

async fn scan(phone: &Browser, url: &str) -> Result<()> {
    phone.page.goto(url).await?;
    phone.wait_for("Number on the computer's screen").await
}

fn another(number: &str) -> &'static str {
    if number == "42" { "43" } else { "42" }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_number_signs_the_computer_in_once() -> Result<()> {
    let portal = Portal::start().await?;
    let phone = Browser::with_passkey(&portal).await?;
    let computer = Browser::start(&portal).await?;
    password(&computer, &portal.url("/sign-in")).await?;
    computer.photograph("code-phone").await?;
    let (url, number) = ask(&computer).await?;
    computer.photograph("phone-waiting").await?;
    phone.requests().await?;
    scan(&phone, &url).await?;
    phone.wait_for("laptop").await?;
    phone.wait_for("127.0.0.1 (inside the tunnel)").await?;
    phone.photograph("approve").await?;
    phone.fill("number", &number).await?;
    phone.press("Approve").await?;
    phone.wait_for("Approved. Go on at the computer").await?;
    phone.photograph("approve-done").await?;
    computer.wait_for("You are signed in").await?;
    computer.wait_for("two factors").await?;

    // The token is in bodies alone: in no address, and no header.
    let token = url.split_once('#').context("no token")?.1;
    let shown = phone.page.current_url().await?;
    assert!(!shown.as_str().contains(token), "{shown}");
    for request in phone.requests().await? {
        for part in ["url", "headers"] {
            let text = request[part].to_string();
            assert!(!text.contains(token), "{text}");
        }
    }

    // Once.
    phone.page.goto(&url).await?;
    phone.wait_for("This request is over").await?;
    phone.photograph("approve-over").await?;
    let audited = portal.audited().await?;
    for action in ["phone.begin", "phone.approve"] {
        let count = audited.iter().filter(|audited| *audited == action).count();
        assert_eq!(count, 1, "{action}");
    }
    computer.stop().await?;
    phone.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_number_a_denial_and_the_end_of_the_minute_are_told_on_both() -> Result<()> {
    let portal = Portal::start().await?;
    let phone = Browser::with_passkey(&portal).await?;
    let computer = Browser::start(&portal).await?;
    password(&computer, &portal.url("/sign-in")).await?;
    let (url, number) = ask(&computer).await?;
    scan(&phone, &url).await?;
    phone.fill("number", another(&number)).await?;
    phone.press("Approve").await?;
    phone
        .wait_for("This is not the number on the computer's screen")
        .await?;
    phone.photograph("approve-wrong-number").await?;
    computer
        .wait_for("This was denied on the phone, or the number typed there was wrong")
        .await?;
    computer.photograph("phone-refused").await?;
    phone.page.goto(&url).await?;
    phone.wait_for("This request is over").await?;

    // Another request of the same login.
    let (url, _) = ask(&computer).await?;
    scan(&phone, &url).await?;
    phone.press("This was not me").await?;
    phone.wait_for("Denied. Somebody else knows").await?;
    phone.photograph("approve-denied").await?;
    computer.wait_for("This was denied on the phone").await?;

    let (url, number) = ask(&computer).await?;
    scan(&phone, &url).await?;
    portal.expire_approvals().await?;
    phone.fill("number", &number).await?;
    phone.press("Approve").await?;
    phone.wait_for("This request is over").await?;
    computer
        .wait_for("No phone has approved this in time")
        .await?;
    let audited = portal.audited().await?;
    assert!(!audited.contains(&"phone.approve".to_owned()));
    computer.stop().await?;
    phone.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_without_a_passkey_says_so() -> Result<()> {
    let portal = Portal::start().await?;
    let phone = Browser::with_passkey(&portal).await?;
    let computer = Browser::start(&portal).await?;
    password(&computer, &portal.url("/sign-in")).await?;
    let (url, number) = ask(&computer).await?;

    let other = Browser::start(&portal).await?;
    other.plug_in(true).await?;
    scan(&other, &url).await?;
    other.fill("number", &number).await?;
    other.press("Approve").await?;
    other
        .wait_for("this phone has no passkey of yours for this portal")
        .await?;
    other.photograph("approve-no-passkey").await?;
    // It has ended nothing.
    scan(&phone, &url).await?;
    phone.fill("number", &number).await?;
    phone.press("Approve").await?;
    phone.wait_for("Approved. Go on at the computer").await?;
    computer.wait_for("You are signed in").await?;
    other.stop().await?;
    computer.stop().await?;
    phone.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_of_the_tunnel_the_device_is_chosen_after_the_phone() -> Result<()> {
    let portal = Portal::start().await?;
    let phone = Browser::with_passkey(&portal).await?;
    let computer = Browser::start(&portal).await?;
    password(&computer, &portal.public_url("/")).await?;
    let (url, number) = ask(&computer).await?;
    computer.photograph("outside-phone-waiting").await?;
    scan(&phone, &url).await?;
    phone.wait_for("one of yours, chosen after this").await?;
    phone.fill("number", &number).await?;
    phone.press("Approve").await?;
    phone.wait_for("Approved. Go on at the computer").await?;
    computer.wait_for("Which device?").await?;
    computer.press("Sign in laptop").await?;
    computer.wait_for("“laptop” is signed in").await?;
    computer.stop().await?;
    phone.stop().await
}
