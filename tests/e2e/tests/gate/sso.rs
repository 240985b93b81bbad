//! A login at a real OpenID Provider, npm's oidc-provider, and its end there.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use e2e_tests::flows::{Echo, Probe};
use e2e_tests::{Gate, Namespace, Options, SERVER_V4, eventually, run, with_gate_prepared};
use serde_json::{Value, json};

use crate::connect::{first_use, vault, with_public};
use crate::{INTERVAL, SILENCE, SOON, echo_v4};

const PORTAL: &str = "https://login.example.test";
/// The same outside of the tunnel.
const OUTSIDE: &str = "https://login.example.test:8443";
/// Of the portal's name, for those who have no resolver.
const RESOLVED: &str = "login.example.test:443:10.77.0.1";
const RESOLVED_OUTSIDE: &str = "login.example.test:8443:192.0.2.1";
const SECRET: &str = "a-secret-that-both-know";
/// What `cargo xtask setup` installs.
const INSTALLED: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/oidc");

/// The provider, on the gateway's loopback, where control and providers may speak without TLS.
struct Provider {
    issuer: String,
    child: Child,
    /// Held, because the provider ends when nobody listens.
    _said: BufReader<ChildStdout>,
}

impl Provider {
    fn start(namespace: &Namespace) -> Result<Self> {
        let settings = json!({
            "client_id": "portcullis", "client_secret": SECRET, "groups": [],
            "redirect_uris": [
                format!("{PORTAL}/login/sso/acme/callback"),
                format!("{OUTSIDE}/connect/sso/acme/callback"),
            ],
            "backchannel_logout_uri": "https://127.0.0.1:8444/sso/acme/backchannel",
        });
        let mut child = namespace
            .command("node")
            .arg("provider.mjs")
            .arg(settings.to_string())
            .current_dir(INSTALLED)
            // Its client's certificate is by a CA that is made after it has started.
            .env("NODE_TLS_REJECT_UNAUTHORIZED", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the provider")?;
        let stdout = child.stdout.take().context("its output is read here")?;
        let mut said = BufReader::new(stdout);
        let mut issuer = String::new();
        said.read_line(&mut issuer)?;
        Ok(Self {
            issuer: issuer.trim().to_owned(),
            child,
            _said: said,
        })
    }

    /// Makes the provider known to a gateway that has not started.
    fn configure(&self, gate: &Gate) -> Result<()> {
        let secret = gate.scratch().join("acme.secret");
        fs::write(&secret, SECRET)?;
        run(
            std::process::Command::new("chmod").arg("600").arg(&secret),
            "",
        )?;
        let path = gate.configuration();
        let known = fs::read_to_string(&path)?.replace(
            "[portal]\n",
            "[portal]\nname = \"login.example.test\"\nbackchannel = [\"127.0.0.1:8444\"]\n",
        );
        let provider = format!(
            "\n[[control.sso]]\nname = \"acme\"\nissuer = {:?}\nclient_id = \"portcullis\"\nclient_secret_file = {secret:?}\n",
            self.issuer
        );
        fs::write(path, known + &provider)?;
        Ok(())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A person's browser, as far as curl(1) is one. At the provider's it is in the gateway's namespace.
struct Browser<'a> {
    gate: &'a Gate,
    jar: String,
}

impl Browser<'_> {
    fn curl(&self, namespace: &Namespace, args: &[&str]) -> Result<String> {
        let mut command = namespace.command("curl");
        command
            .args(["--silent", "--show-error", "--insecure", "--location"])
            .args(["--resolve", RESOLVED, "--resolve", RESOLVED_OUTSIDE])
            .args(["--max-time", "60"])
            .args(["--cookie", &self.jar, "--cookie-jar", &self.jar])
            .args(args);
        Ok(run(&mut command, "")?.stdout)
    }

    /// A page of the provider's, or the address at the portal that it leads to.
    fn at_provider(&self, args: &[&str]) -> Result<String> {
        let mut args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        for _ in 0..10 {
            let mut command = self.gate.namespace().command("curl");
            command
                .args(["--silent", "--show-error", "--max-time", "60"])
                .args(["--cookie", &self.jar, "--cookie-jar", &self.jar])
                .args(["--write-out", "\n%{redirect_url}"])
                .args(&args);
            let page = run(&mut command, "")?.stdout;
            match page.rsplit_once('\n') {
                Some((_, url)) if url.starts_with(PORTAL) => return Ok(url.to_owned()),
                Some((_, url)) if !url.is_empty() => args = vec![url.to_owned()],
                _ => return Ok(page),
            }
        }
        bail!("the provider leads from one address to the next: {args:?}")
    }

    /// Signs in with two factors and agrees to what is asked; answers where that leads to.
    fn sign_in(&self, url: &str, login: &str) -> Result<String> {
        let mut page = self.at_provider(&[url])?;
        for _ in 0..3 {
            if page.starts_with(PORTAL) {
                return Ok(page);
            }
            let form = if page.contains("name=\"login\"") {
                format!("prompt=login&login={login}%2Bmfa&password=x")
            } else {
                "prompt=consent".to_owned()
            };
            let action = between(&page, "action=\"", "\"")?.to_owned();
            page = self.at_provider(&["--data", &form, &action])?;
        }
        bail!("still at the provider: {page}")
    }

    fn sign_out(&self, issuer: &str) -> Result<()> {
        let page = self.at_provider(&[&format!("{issuer}/session/end")])?;
        let form = format!(
            "logout=yes&xsrf={}",
            between(&page, "name=\"xsrf\" value=\"", "\"")?
        );
        let action = between(&page, "action=\"", "\"")?;
        self.at_provider(&["--data", &form, action]).map(drop)
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Result<&'a str> {
    text.split_once(before)
        .and_then(|(_, rest)| rest.split_once(after))
        .map(|(found, _)| found)
        .with_context(|| format!("no {before} in {text}"))
}

/// Where a page leads by itself.
fn leads_to(page: &str) -> Result<String> {
    let url = between(page, "content=\"0;url=", "\"")?;
    Ok(url.replace("&#38;", "&").replace("&amp;", "&"))
}

fn event(line: &str) -> Result<Value> {
    serde_json::from_str(line).with_context(|| format!("no event: {line}"))
}

#[test]
fn inv4_a_logout_at_the_provider_stops_the_next_packet() -> Result<()> {
    let prepare = |gate: &Gate| {
        let provider = Provider::start(gate.namespace())?;
        provider.configure(gate)?;
        Ok(provider)
    };
    with_gate_prepared(Options::default(), prepare, |gate, provider| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let user = gate.add_user("alice")?;
        let peer = gate.add_peer(0, &user)?;
        gate.ask(&["user", "set", "alice", "--sso", "acme:alice-1"])?;
        let jar = gate.scratch().join("cookies").display().to_string();
        let browser = Browser { gate, jar };

        // The page that `portcullis login --sso` prints; it is this browser's login.
        let page = format!("{PORTAL}/login/sso/acme");
        let origin = format!("Origin: {PORTAL}");
        let begin = ["--header", &origin, "--data", "", &page];
        let leaving = browser.curl(&peer.namespace, &begin)?;
        let url = leads_to(&leaving)?;
        let back = browser.sign_in(&url, "alice-1")?;
        ensure!(!peer.pings(SERVER_V4)?, "the login is not complete");
        let page = browser.curl(&peer.namespace, &[&back])?;
        ensure!(peer.pings(SERVER_V4)?, "logged in: {page}");

        let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
        eventually("datagrams come back", SOON, || Ok(probe.answered() > 10))?;
        browser.sign_out(&provider.issuer)?;
        // What was already on its way back through the client's own stack arrives within this moment.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let answered = probe.answered();
        std::thread::sleep(SILENCE);
        ensure!(
            probe.answered() == answered,
            "nothing may pass after it: {answered} became {}",
            probe.answered()
        );
        let sessions = gate.ask(&["session", "list", "--all"])?;
        ensure!(sessions["sessions"][0]["state"] == "revoked", "{sessions}");
        Ok(())
    })
}

/// Before there is a tunnel, and with a browser that leads back to the program that waits on its own machine.
#[test]
fn inv1_a_providers_word_connects_the_machine_of_the_browser() -> Result<()> {
    let prepare = |gate: &Gate| {
        with_public(gate)?;
        let provider = Provider::start(gate.namespace())?;
        provider.configure(gate)?;
        Ok(provider)
    };
    with_gate_prepared(vault(), prepare, |gate, provider| {
        let client = first_use(gate)?;
        gate.ask(&["user", "set", "alice", "--sso", "acme:alice-1"])?;
        let machine = &gate.world.peers[0];
        let jar = gate.scratch().join("cookies").display().to_string();
        let browser = Browser { gate, jar };

        // Somebody who was sent the link signs in: it leads to a port of their own machine, where nobody waits.
        let mut elsewhere = client.start_sso(&[])?;
        let asked = event(&elsewhere.next_line()?)?;
        ensure!(asked["event"] == "sign_in", "{asked}");
        let url = asked["url"].as_str().context("an address")?;
        let back = browser.sign_in(url, "alice-1")?;
        let page = browser.curl(&gate.world.peers[1], &[&back])?;
        let loopback = leads_to(&page)?;
        ensure!(loopback.starts_with("http://127.0.0.1:"), "{page}");
        let lost = browser.curl(&gate.world.peers[1], &[&loopback]);
        ensure!(lost.is_err(), "{lost:?}");
        ensure!(!client.pings()?, "nobody is signed in by that");
        let ended = elsewhere.interrupt()?;
        ensure!(ended.code == 1, "{ended:?}");

        let mut running = client.start_sso(&[])?;
        let asked = event(&running.next_line()?)?;
        let url = asked["url"].as_str().context("an address")?;
        let back = browser.sign_in(url, "alice-1")?;
        let page = browser.curl(machine, &[&back])?;
        // Whatever else asks at that port is told nothing, and does not end the wait.
        let loopback = leads_to(&page)?;
        let (port, _) = loopback.rsplit_once('/').context("a path")?;
        browser.curl(machine, &[&format!("{port}/else?state=x&code=y")])?;
        let page = browser.curl(machine, &[&loopback])?;
        ensure!(page.contains("You may close this page"), "{page}");
        let connected = event(&running.next_line()?)?;
        ensure!(connected["event"] == "connected", "{connected}");
        eventually("traffic passes", SOON, || client.pings())?;

        // The provider's logout ends it.
        browser.sign_out(&provider.issuer)?;
        let ended = running.finish()?;
        ensure!(ended.code == 7 && !client.pings()?, "{ended:?}");
        Ok(())
    })
}
