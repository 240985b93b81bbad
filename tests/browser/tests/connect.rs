//! A program that connects, and the browser of its machine.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use browser_tests::{Browser, Portal};
use fantoccini::Locator;
use oidc::{CLIENT, Provider, SECRET};
use portcullis_client::{Brought, BrowserVisit, KeyPair, PortalClient, PortalError};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

#[path = "../../../gateway/portal/tests/oidc/provider.rs"]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod oidc;

fn begin(client: &PortalClient, device: &KeyPair, port: u16) -> Result<BrowserVisit> {
    let begun = || client.begin_passkey("vault", device, "ada", port, false);
    Ok(tokio::task::block_in_place(begun)?)
}

/// What the browser asks of the program that waits, which answers.
async fn brought(listener: &TcpListener) -> Result<String> {
    let (mut stream, _) =
        tokio::time::timeout(Duration::from_secs(20), listener.accept()).await??;
    let mut request = vec![0; 4096];
    let length = stream.read(&mut request).await?;
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\nconnection: close\r\n\r\nComplete";
    stream.write_all(answer.as_bytes()).await?;
    let request = String::from_utf8_lossy(&request[..length]).into_owned();
    let line = request.lines().next().context("a request")?;
    let target = line.strip_prefix("GET ").context("a GET")?;
    Ok(target.split(' ').next().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passkey_leads_back_to_the_program_that_waits() -> Result<()> {
    let portal = Portal::start().await?;
    let browser = Browser::with_passkey(&portal).await?;
    let (device, client) = portal.add_vault().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();

    let denied = begin(&client, &device, port)?;
    browser.page.goto(&denied.url).await?;
    browser.wait_for("Connect this computer").await?;
    browser.wait_for("desktop").await?;
    let number = browser.page.find(Locator::Id("number")).await?;
    ensure!(!number.is_displayed().await?, "there is no number to type");
    browser.photograph("connect-passkey").await?;
    browser.press("This was not me").await?;
    browser.wait_for("Denied. Nothing is connected").await?;
    browser.photograph("connect-denied").await?;

    let visit = begin(&client, &device, port)?;
    browser.page.goto(&visit.url).await?;
    browser.wait_for("Connect this computer").await?;
    browser.press("Connect with a passkey").await?;
    let target = brought(&listener).await?;
    browser.wait_for("Complete").await?;
    let code = target
        .strip_prefix(&format!("/{}?code=", visit.path))
        .with_context(|| format!("it asked for {target}"))?;

    // What was denied is no other's, and no gateway is here to hold the session that the right one opens.
    let finish = |visit: &BrowserVisit| {
        let brought: Brought = serde_json::from_value(json!({ "code": code }))?;
        let finished = || client.finish_passkey(visit, &brought);
        anyhow::Ok(tokio::task::block_in_place(finished))
    };
    let other = finish(&denied)?;
    ensure!(matches!(other, Err(PortalError::Refused(_))), "{other:?}");
    let held = finish(&visit)?;
    ensure!(
        matches!(held, Err(PortalError::Unexpected { status: 503, .. })),
        "{held:?}"
    );
    ensure!(
        portal
            .audited()
            .await?
            .contains(&"session.grant".to_owned())
    );
    browser.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_provider_answers_goes_to_the_program_that_waits() -> Result<()> {
    let mut provider = None;
    let issuer = |redirect: &str| {
        let started = Provider::start(redirect, "http://127.0.0.1:9/nobody-listens");
        let issuer = started.issuer.clone();
        provider = Some(started);
        issuer
    };
    let portal = Portal::start_with_sso(issuer, CLIENT, SECRET).await?;
    let browser = Browser::start(&portal).await?;
    let (device, client) = portal.add_vault().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let begun = || client.begin_sso("vault", &device, "ada", "acme", port, false);
    let visit = tokio::task::block_in_place(begun)?;
    let (_, state) = visit.url.split_once("state=").context("a state")?;
    let state = state.split('&').next().unwrap_or_default();

    // As the provider sends it back. The page leads on at once: it is looked at without that.
    let back = portal.public_url("/connect/sso/acme/callback?code=x&state=");
    let address = format!("{back}{state}");
    browser.page.goto(&portal.public_url("/enrol")).await?;
    let read = "const done = arguments[1]; fetch(arguments[0]).then((r) => r.text()).then(done)";
    let html = browser.page.execute_async(read, vec![json!(address)]);
    let html = html.await?.as_str().context("a page")?.to_owned();
    let (start, rest) = html.split_once("<meta http-equiv").context("it leads on")?;
    let (_, end) = rest.split_once('>').context("the end of that")?;
    browser.show(&format!("{start}{end}")).await?;
    browser.wait_for("Going back").await?;
    browser.photograph("connect-going-back").await?;

    let (gone, target) = tokio::join!(browser.page.goto(&address), brought(&listener));
    gone?;
    let target = target?;
    let expected = format!("/{}?state={state}&code=x", visit.path);
    ensure!(target == expected, "{target}");
    browser.wait_for("Complete").await?;

    browser.page.goto(&format!("{back}another")).await?;
    browser.wait_for("This sign-in is unknown or over").await?;
    browser.photograph("connect-not-back").await?;
    browser.stop().await
}
