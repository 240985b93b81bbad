//! Plain HTTP through the tunnel of a peer that has to log in leads to the portal.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e_tests::flows::{Echo, connects};
use e2e_tests::{Namespace, Options, SERVER_V4, SERVER_V6, eventually, run, with_gate};

use crate::SOON;
use crate::browser::browse;
use crate::policy::apply;

const HTTP: u16 = 80;
const PATIENCE: Duration = Duration::from_secs(10);

/// What comes back on a connection to port 80 of this address, all of it, after a request that asks to
/// close it.
fn get(namespace: &Namespace, to: IpAddr) -> Result<String> {
    let said = namespace.enter(move || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(to, HTTP), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let padding = "x".repeat(4000);
        let request = format!(
            "GET /where/to HTTP/1.1\r\nhost: intranet.example\r\nx-long: {padding}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said)?;
        Ok(said)
    })??;
    String::from_utf8(said).context("HTTP is text")
}

/// Where a request is led.
fn led(namespace: &Namespace, to: IpAddr) -> Result<String> {
    let answer = get(namespace, to).with_context(|| format!("no answer in the name of {to}"))?;
    ensure!(answer.starts_with("HTTP/1.1 302 "), "{to}: {answer}");
    let location = answer
        .lines()
        .find_map(|line| line.strip_prefix("location: "));
    Ok(location.context("without a location")?.to_owned())
}

#[test]
fn inv1_plain_http_leads_to_the_portal_until_the_login_and_to_a_step_up_where_one_is_wanted()
-> Result<()> {
    with_gate(Options::default(), |gate| {
        let _web = Echo::start(&gate.world.server, HTTP)?;
        let user = gate.add_user("alice")?;
        let peer = gate.add_peer(0, &user)?;
        // Also addresses where nobody is.
        for (to, portal) in [
            (SERVER_V4, "https://10.77.0.1/"),
            (SERVER_V6, "https://[fd77::1]/"),
            ("10.9.0.77".parse()?, "https://10.77.0.1/"),
        ] {
            let location = led(&peer.namespace, to)?;
            ensure!(location == portal, "{to} leads to {location}");
        }
        // The server has seen none of it, and nothing else is open.
        ensure!(!connects(&peer.namespace, (SERVER_V4, 8080).into())?);
        eventually("what was led is counted", SOON, || {
            Ok(
                gate.counted("captive", "from_peer")? > 0
                    && gate.counted("captive", "to_peer")? > 0,
            )
        })?;

        peer.login(&user)?;
        ensure!(
            connects(&peer.namespace, (SERVER_V4, HTTP).into())?,
            "the server itself"
        );
        // What this session is not enough for.
        apply(
            gate,
            "[[rule]]\nname = \"web\"\nwho = [\"*\"]\nto = [\"10.9.0.0/24\"]\nports = [\"tcp/80\"]\nrequire = \"phishing-resistant\"\n",
        )?;
        let location = led(&peer.namespace, SERVER_V4).context("with a session too low")?;
        ensure!(
            location == "https://10.77.0.1/step-up?for=intranet.example",
            "a step-up: {location}"
        );
        // A login does not help where no rule permits it at all.
        ensure!(get(&peer.namespace, SERVER_V6).is_err(), "no rule");

        gate.admin(&["session", "revoke", "--user", "alice"])?;
        let location = led(&peer.namespace, SERVER_V4).context("after the revocation")?;
        ensure!(location == "https://10.77.0.1/", "{location}");
        // Where the location does not want it.
        gate.ask(&["location", "set", "office", "--captive", "false"])?;
        eventually("nothing is led any more", SOON, || {
            Ok(get(&peer.namespace, SERVER_V4).is_err())
        })?;
        Ok(())
    })
}

#[test]
fn a_browser_is_led_to_the_portal() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let user = gate.add_user("alice")?;
        let peer = gate.add_peer(0, &user)?;
        let mut chromium = peer.namespace.command("chromium");
        chromium
            // Its own sandbox refuses to run as root; the certificate is by the gateway's own CA.
            .args(["--headless", "--no-sandbox", "--ignore-certificate-errors"])
            .args(["--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
            ])
            .arg(format!(
                "--user-data-dir={}",
                gate.scratch().join("browser").display()
            ))
            .args(["--dump-dom", &format!("http://{SERVER_V4}/where/to")]);
        let page = run(&mut chromium, "")?.stdout;
        ensure!(
            page.contains("<form method=\"post\" action=\"/login\"")
                && page.contains("type=\"password\""),
            "the page to sign in: {page}"
        );
        Ok(())
    })
}

/// Takes five minutes under emulation: run when it is asked for.
#[test]
fn a_browser_signs_in_through_the_tunnel() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let user = gate.add_user("alice")?;
        let peer = gate.add_peer(0, &user)?;
        ensure!(!peer.pings(SERVER_V4)?, "before the login");
        let profile = gate.scratch().join("browser");
        let (name, password) = (user.name.clone(), user.password.clone());
        let (asks, asked) = mpsc::channel();
        let (answers, code) = mpsc::channel::<String>();
        let (ready, signed_in) = mpsc::channel();
        let (go_on, seen) = mpsc::channel();
        std::thread::scope(|scope| -> Result<()> {
            let browser = scope.spawn(|| {
                browse(&peer.namespace, &profile, async move |page| {
                    page.open(&format!("http://{SERVER_V4}/where/to")).await?;
                    page.fill("#username", &name).await?;
                    ensure!(page.address().await? == "https://10.77.0.1/", "led there");
                    page.fill("#password", &password).await?;
                    page.click("form[action='/login'] button").await?;
                    page.fill("#code", "").await?;
                    asks.send(())?;
                    page.fill("#code", &code.recv()?).await?;
                    page.click("form[action$='/totp'] button").await?;
                    let left = page.text("[role=timer]").await?;
                    page.changes("[role=timer]", &left).await?;
                    ready.send(())?;
                    seen.recv()?;
                    page.click("form[action='/logout'] button").await?;
                    page.fill("#username", "").await
                })
            });
            // Each is gone with its sender when the browser has failed.
            if asked.recv().is_ok() {
                answers.send(user.code()?)?;
            }
            if signed_in.recv().is_ok() {
                eventually("the tunnel is open", SOON, || peer.pings(SERVER_V4))?;
                go_on.send(())?;
            }
            let done = browser.join();
            done.map_err(|_| anyhow::anyhow!("the browser's thread panicked"))?
        })?;
        ensure!(!peer.pings(SERVER_V4)?, "after the end of the session");
        Ok(())
    })
}
