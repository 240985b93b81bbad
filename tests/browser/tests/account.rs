//! Devices, sessions and the countdown in Chromium, against the real portal.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use browser_tests::{Browser, GATEWAY_KEY, Portal};
use fantoccini::Locator;
use serde_json::{Value, json};
use x25519_dalek::{PublicKey, StaticSecret};

/// The modules of a code, decoded by a reader that shares no line with the page.
fn read_qr(rows: &[Vec<bool>]) -> Result<String> {
    const SCALE: usize = 4;
    const QUIET: usize = 4;
    let side = (rows.len() + 2 * QUIET) * SCALE;
    let is_dark = |x: usize, y: usize| {
        let cell = |at: usize| (at / SCALE).checked_sub(QUIET);
        let row = cell(y).and_then(|y| rows.get(y));
        row.zip(cell(x))
            .and_then(|(row, x)| row.get(x))
            .copied()
            .unwrap_or(false)
    };
    let shade = |x, y| if is_dark(x, y) { 0 } else { 255 };
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(side, side, shade);
    let grids = image.detect_grids();
    let grid = grids.first().context("no code is seen")?;
    let (meta, text) = grid.decode()?;
    // Level L in the format bits' own numbering.
    assert_eq!(meta.ecc_level, 1);
    Ok(text)
}

async fn run(browser: &Browser, script: &str) -> Result<Value> {
    Ok(browser.page.execute(script, Vec::new()).await?)
}

async fn text_of(browser: &Browser, css: &str) -> Result<String> {
    let script = format!("return document.querySelector('{css}').textContent");
    let text = run(browser, &script).await?;
    Ok(text.as_str().context("no text")?.to_owned())
}

/// The modules that the page has drawn.
async fn drawn_qr(browser: &Browser) -> Result<Vec<Vec<bool>>> {
    let script = "const svg = document.querySelector('[data-made-qr] svg');
        return [svg.getAttribute('viewBox'), svg.querySelector('path').getAttribute('d')]";
    let drawn = run(browser, script).await?;
    let side = drawn[0].as_str().context("no view box")?;
    let side: usize = side.split(' ').next_back().context("no side")?.parse()?;
    let mut rows = vec![vec![false; side - 8]; side - 8];
    let path = drawn[1].as_str().context("no path")?;
    for step in path.split('M').skip(1) {
        let place = step.trim_end_matches("h1v1h-1z");
        let (x, y) = place.split_once(' ').context("no place")?;
        let (x, y): (usize, usize) = (x.parse()?, y.parse()?);
        rows[y - 4][x - 4] = true;
    }
    Ok(rows)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv10_a_device_is_made_in_the_browser_and_its_private_key_leaves_it_nowhere() -> Result<()>
{
    let portal = Portal::start().await?;
    let browser = Browser::start(&portal).await?;
    portal.grant("laptop", 0).await?;
    let downloads = tempfile::tempdir()?;
    browser.save_downloads(downloads.path()).await?;
    browser.page.goto(&portal.url("/devices")).await?;
    browser.wait_for("1 of 5 in use").await?;
    browser.photograph("devices").await?;
    browser.fill("new-name", "Ada's phone").await?;
    run(
        &browser,
        "document.querySelector('[data-device-add] [name=temporary]').click()",
    )
    .await?;
    browser.photograph("devices-temporary").await?;
    browser.press("Add a device").await?;
    browser.wait_for("“Ada's phone” is added").await?;
    browser.photograph("device-made").await?;
    let config = text_of(&browser, "[data-made-text]").await?;
    let value = |key: &str| {
        let mut lines = config.lines();
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))
    };
    let secret = value("PrivateKey").context("no private key")?;
    assert_eq!(value("PublicKey"), Some(&*STANDARD.encode(GATEWAY_KEY)));
    assert_eq!(value("Endpoint"), Some("vpn.example.org:51820"));
    assert_eq!(value("AllowedIPs"), Some("10.77.0.0/24"));
    assert!(value("Address").context("no address")?.ends_with("/32"));

    // What control holds is the public half of it.
    let bytes: [u8; 32] = STANDARD
        .decode(secret)?
        .try_into()
        .map_err(|_| anyhow::anyhow!("the private key has not 32 bytes"))?;
    let public = PublicKey::from(&StaticSecret::from(bytes));
    let held = portal.keys().await?;
    assert!(held.contains(&public.as_bytes().to_vec()));

    // The same text in the file and in the code.
    assert_eq!(read_qr(&drawn_qr(&browser).await?)?, config);
    browser.press("Download").await?;
    let file = downloads.path().join("ada-s-phone.conf");
    // It is there before it is written.
    let written = || std::fs::read_to_string(&file).unwrap_or_default();
    for _ in 0..100 {
        if !written().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(written(), config);
    browser.press("Show it as text").await?;
    browser.photograph("device-made-text").await?;

    browser.press("I have saved it").await?;
    browser.wait_for("Temporary, until").await?;
    browser.photograph("devices-two").await?;
    assert!(!browser.page.source().await?.contains(secret));

    // In no request of them all, in no writing of it.
    let requests = browser.requests().await?;
    let posts = |r: &&Value| r["method"] == "POST" && r["postData"].is_string();
    let post = requests
        .iter()
        .find(posts)
        .context("the log holds bodies")?;
    let sent = post["postData"].to_string();
    assert!(sent.contains(&STANDARD.encode(public.as_bytes())), "{sent}");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let half = &secret[..20];
    let writings = [
        secret.to_owned(),
        half.to_owned(),
        URL_SAFE_NO_PAD.encode(bytes),
        secret.replace('+', "%2B").replace('/', "%2F"),
        hex,
    ];
    let all = Value::from(requests).to_string();
    for writing in writings {
        assert!(!all.contains(&writing));
    }
    browser.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_codes_are_read_by_others() -> Result<()> {
    let portal = Portal::start().await?;
    let browser = Browser::start(&portal).await?;
    portal.grant("laptop", 0).await?;
    browser.page.goto(&portal.url("/devices")).await?;
    browser.wait_for("in use").await?;
    // Every version up to 20 or so, their edges included, and letters outside of ASCII.
    for length in (1..60).chain((60..860).step_by(13)) {
        let text: String = "Zoë=[x]\n0+/".chars().cycle().take(length).collect();
        let drawn = browser
            .page
            .execute("return qrCode(arguments[0])", vec![json!(text)]);
        let rows: Vec<Vec<bool>> = serde_json::from_value(drawn.await?)?;
        let read = read_qr(&rows).with_context(|| format!("{length} characters"))?;
        assert_eq!(read, text);
    }
    let long = browser
        .page
        .execute("return qrCode(arguments[0])", vec![json!("x".repeat(3000))]);
    assert_eq!(long.await?, Value::Null);
    browser.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_without_the_key_type_offers_pasting() -> Result<()> {
    let portal = Portal::start().await?;
    let browser = Browser::start(&portal).await?;
    portal.grant("laptop", 0).await?;
    browser.page.goto(&portal.url("/devices")).await?;
    browser.wait_for("in use").await?;
    run(
        &browser,
        "crypto.subtle.generateKey = () => Promise.reject(new DOMException('no', 'NotSupportedError'))",
    )
    .await?;
    browser.fill("new-name", "Phone").await?;
    browser.press("Add a device").await?;
    browser
        .wait_for("This browser cannot make WireGuard keys")
        .await?;
    browser.photograph("devices-paste").await?;
    // A key that somebody has is refused, and nothing but the key is typed again.
    browser
        .fill("public-key", &STANDARD.encode([7; 32]))
        .await?;
    browser.fill("pasted-name", "Old phone").await?;
    browser.press("Add with this key").await?;
    browser.wait_for("This public key cannot be used").await?;
    browser.photograph("devices-refused").await?;
    let typed =
        "return [...document.querySelectorAll('#public-key, #pasted-name')].map((i) => i.value)";
    assert_eq!(run(&browser, typed).await?, json!(["", "Old phone"]));
    let key = STANDARD.encode([9; 32]);
    browser.fill("public-key", &key).await?;
    browser.press("Add with this key").await?;
    browser.wait_for("“Old phone” is added").await?;
    browser.photograph("device-added").await?;
    browser.page.goto(&portal.url("/devices")).await?;
    browser.press("Rename").await?;
    browser.photograph("devices-rename").await?;
    let id = run(
        &browser,
        "return document.querySelector('[action$=\"/rename\"] input').id",
    )
    .await?;
    browser
        .fill(id.as_str().context("no field")?, "Zoë's")
        .await?;
    click(&browser, "[action$=\"/rename\"] button").await?;
    browser.wait_for("Zoë's").await?;
    // The last card is the new one or the laptop: remove the one that is not this device.
    let other = "li:not(:has(.tag))";
    click(&browser, &format!("{other} details:last-of-type summary")).await?;
    browser.photograph("devices-remove").await?;
    click(&browser, &format!("{other} [action$=\"/remove\"] button")).await?;
    browser.wait_for("1 of 5 in use").await?;
    browser.stop().await
}

async fn click(browser: &Browser, css: &str) -> Result<()> {
    browser.page.find(Locator::Css(css)).await?.click().await?;
    Ok(())
}

async fn seconds_shown(browser: &Browser) -> Result<u64> {
    let text = text_of(browser, "[data-left-s]").await?;
    let seconds = text.strip_suffix(" s").context("no seconds")?;
    Ok(seconds.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_countdown_is_live_and_says_when_it_is_over() -> Result<()> {
    let portal = Portal::start().await?;
    let browser = Browser::start(&portal).await?;
    portal.grant("laptop", 8_000).await?;
    browser.page.goto(&portal.url("/")).await?;
    browser.wait_for("You are signed in").await?;
    let first = seconds_shown(&browser).await?;
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let later = seconds_shown(&browser).await?;
    if !(2..=3).contains(&first.saturating_sub(later)) {
        bail!("{first} s, and two seconds later {later} s");
    }
    browser.wait_for("Your session is over").await?;
    browser.photograph("session-over").await?;
    browser.press("Sign in").await?;
    browser.wait_for("Your tunnel is up").await?;
    browser.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_seen_and_ended() -> Result<()> {
    let portal = Portal::start().await?;
    let browser = Browser::start(&portal).await?;
    portal.add_device("phone", 9).await?;
    portal.grant("laptop", 0).await?;
    portal.grant("phone", 0).await?;
    browser.page.goto(&portal.url("/")).await?;
    browser.wait_for("You are signed in").await?;
    browser.photograph("session").await?;
    browser.press("Sessions").await?;
    browser.wait_for("Recent activity").await?;
    browser.wait_for("Device “phone” was added").await?;
    browser.photograph("sessions").await?;
    browser.press("End all others").await?;
    for _ in 0..50 {
        if !browser.page.source().await?.contains("End all others") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!browser.page.source().await?.contains("End all others"));
    browser.press("Home").await?;
    browser.press("End session").await?;
    browser.wait_for("Your tunnel is up").await?;

    // Ended elsewhere: the page says so when someone looks at it.
    portal.grant("laptop", 0).await?;
    browser.page.goto(&portal.url("/")).await?;
    browser.wait_for("You are signed in").await?;
    portal.revoke().await?;
    run(
        &browser,
        "document.dispatchEvent(new Event('visibilitychange'))",
    )
    .await?;
    browser.wait_for("Your session is over").await?;
    browser.stop().await
}
