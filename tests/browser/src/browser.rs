//! Chromium, driven over WebDriver; what WebDriver has no word for goes over the DevTools protocol.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::portal::{NAME, Portal};

const ADVICE: &str = "is missing: apt-get install chromium chromium-driver";
const PATIENCE: Duration = Duration::from_secs(30);
/// What is photographed, and how wide it is.
const SIZES: [(&str, u32, u32, bool); 2] =
    [("phone", 390, 844, true), ("desktop", 1280, 800, false)];
const SCHEMES: [&str; 2] = ["light", "dark"];

/// A browser with a profile of its own; it trusts the portal's CA and resolves the portal's name.
pub struct Browser {
    /// For everything that a page shows.
    pub page: Client,
    driver: Child,
    _profile: TempDir,
}

/// A virtual authenticator's id.
#[derive(Clone, Debug)]
pub struct Authenticator(String);

/// A command of the DevTools protocol.
#[derive(Debug)]
struct DevTools(Value);

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(
        &self,
        base_url: &url::Url,
        session_id: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        let session = session_id.unwrap_or_default();
        base_url.join(&format!("session/{session}/goog/cdp/execute"))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.0.to_string()))
    }
}

/// chromedriver's log of what the browser's network did.
#[derive(Debug)]
struct PerformanceLog;

impl WebDriverCompatibleCommand for PerformanceLog {
    fn endpoint(
        &self,
        base_url: &url::Url,
        session_id: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        let session = session_id.unwrap_or_default();
        base_url.join(&format!("session/{session}/se/log"))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        let body = json!({ "type": "performance" });
        (http::Method::POST, Some(body.to_string()))
    }
}

impl Browser {
    /// Starts chromedriver and Chromium.
    pub async fn start(portal: &Portal) -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("chromedriver {ADVICE}"))?;
        let port = port_of(&mut driver).await?;
        let args = [
            "--headless=new".to_owned(),
            // Chromium's own sandbox refuses to run as root, as tests in containers do.
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            format!("--user-data-dir={}", profile.path().display()),
            format!(
                "--host-resolver-rules=MAP {NAME} 127.0.0.1, MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"
            ),
            format!(
                "--ignore-certificate-errors-spki-list={}",
                portal.ca_spki()?
            ),
        ];
        let mut capabilities = Capabilities::new();
        capabilities.insert("goog:chromeOptions".to_owned(), json!({ "args": args }));
        // Every request, for `requests`.
        let logs = json!({ "performance": "ALL" });
        capabilities.insert("goog:loggingPrefs".to_owned(), logs);
        let page = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .with_context(|| format!("chromium {ADVICE}"))?;
        Ok(Self {
            page,
            driver,
            _profile: profile,
        })
    }

    /// One with a passkey of Ada's, who is signed out.
    pub async fn with_passkey(portal: &Portal) -> Result<Self> {
        let browser = Self::start(portal).await?;
        browser.plug_in(true).await?;
        portal.grant("laptop", 0).await?;
        browser.page.goto(&portal.url("/passkeys")).await?;
        browser.fill("new-name", "Phone").await?;
        browser.press("Add a passkey").await?;
        browser.wait_for("never used").await?;
        portal.revoke().await?;
        Ok(browser)
    }

    /// Ends the browser.
    pub async fn stop(mut self) -> Result<()> {
        self.page.close().await?;
        self.driver.kill().await?;
        Ok(())
    }

    async fn devtools(&self, command: &str, params: Value) -> Result<Value> {
        let command = DevTools(json!({ "cmd": command, "params": params }));
        Ok(self.page.issue_cmd(command).await?)
    }

    /// Plugs an authenticator in: one that asks for a PIN and gets it, or one that cannot.
    pub async fn plug_in(&self, verifies: bool) -> Result<Authenticator> {
        self.devtools("WebAuthn.enable", json!({})).await?;
        let options = json!({
            "protocol": "ctap2",
            "transport": "usb",
            "hasUserVerification": verifies,
            "isUserVerified": verifies,
            "automaticPresenceSimulation": true,
        });
        let added = self
            .devtools(
                "WebAuthn.addVirtualAuthenticator",
                json!({ "options": options }),
            )
            .await?;
        let id = added["authenticatorId"]
            .as_str()
            .context("no authenticator")?;
        Ok(Authenticator(id.to_owned()))
    }

    /// Takes it away.
    pub async fn unplug(&self, authenticator: &Authenticator) -> Result<()> {
        let id = json!({ "authenticatorId": authenticator.0 });
        self.devtools("WebAuthn.removeVirtualAuthenticator", id)
            .await?;
        Ok(())
    }

    /// Whether the user can give the PIN.
    pub async fn set_verified(&self, authenticator: &Authenticator, verified: bool) -> Result<()> {
        let params = json!({ "authenticatorId": authenticator.0, "isUserVerified": verified });
        self.devtools("WebAuthn.setUserVerified", params).await?;
        Ok(())
    }

    /// Sets the counter of its only credential, as in a copy made earlier.
    pub async fn set_counter(&self, authenticator: &Authenticator, count: u32) -> Result<()> {
        let id = json!({ "authenticatorId": authenticator.0 });
        let held = self.devtools("WebAuthn.getCredentials", id.clone()).await?;
        let mut credential = held["credentials"][0].clone();
        self.devtools("WebAuthn.clearCredentials", id).await?;
        credential["signCount"] = count.into();
        let params = json!({ "authenticatorId": authenticator.0, "credential": credential });
        self.devtools("WebAuthn.addCredential", params).await?;
        Ok(())
    }

    /// Every request that was sent since the last call: method, address, headers and body.
    pub async fn requests(&self) -> Result<Vec<Value>> {
        let entries = self.page.issue_cmd(PerformanceLog).await?;
        let entries = entries.as_array().context("no log")?.clone();
        let mut requests = Vec::new();
        for entry in entries {
            let text = entry["message"].as_str().context("no message")?;
            let message: Value = serde_json::from_str(text)?;
            if message["message"]["method"] == "Network.requestWillBeSent" {
                requests.push(message["message"]["params"]["request"].clone());
            }
        }
        Ok(requests)
    }

    /// Saves what is downloaded in this directory.
    pub async fn save_downloads(&self, directory: &std::path::Path) -> Result<()> {
        let params = json!({ "behavior": "allow", "downloadPath": directory });
        self.devtools("Browser.setDownloadBehavior", params).await?;
        Ok(())
    }

    /// Clicks on what this selects.
    pub async fn click(&self, css: &str) -> Result<()> {
        self.page.find(Locator::Css(css)).await?.click().await?;
        Ok(())
    }

    /// What this selects says.
    pub async fn text_of(&self, css: &str) -> Result<String> {
        let script = "return document.querySelector(arguments[0]).textContent";
        let text = self.page.execute(script, vec![json!(css)]).await?;
        Ok(text.as_str().context("no text")?.to_owned())
    }

    /// Shows this HTML in place of the page's, at the page's address.
    pub async fn show(&self, html: &str) -> Result<()> {
        let tree = self.devtools("Page.getFrameTree", json!({})).await?;
        let frame = &tree["frameTree"]["frame"]["id"];
        let content = json!({ "frameId": frame, "html": html });
        self.devtools("Page.setDocumentContent", content).await?;
        Ok(())
    }

    /// Types into the field with this id, in place of what it holds.
    pub async fn fill(&self, id: &str, text: &str) -> Result<()> {
        let field = self.page.find(Locator::Id(id)).await?;
        field.clear().await?;
        field.send_keys(text).await?;
        Ok(())
    }

    /// Presses the button with this text.
    pub async fn press(&self, text: &str) -> Result<()> {
        let path = format!(
            "//*[self::button or self::a or self::summary][starts-with(normalize-space(.), '{text}')]"
        );
        self.page.find(Locator::XPath(&path)).await?.click().await?;
        Ok(())
    }

    /// Waits until the page says this.
    pub async fn wait_for(&self, text: &str) -> Result<()> {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let seen = match self.page.find(Locator::Css("body")).await {
                Ok(body) => body.text().await.unwrap_or_default(),
                Err(_) => String::new(),
            };
            if seen.contains(text) {
                return Ok(());
            }
            if tokio::time::Instant::now() >= until {
                bail!("the page does not say {text:?}, but:\n{seen}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Photographs the page on phone and desktop, light and dark, and checks that it fits.
    pub async fn photograph(&self, name: &str) -> Result<()> {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/screenshots");
        std::fs::create_dir_all(&directory)?;
        for (device, width, height, mobile) in SIZES {
            let size = json!({
                "width": width, "height": height, "deviceScaleFactor": 2, "mobile": mobile,
            });
            self.devtools("Emulation.setDeviceMetricsOverride", size)
                .await?;
            let wider = "return document.documentElement.scrollWidth > window.innerWidth";
            if self.page.execute(wider, Vec::new()).await? != json!(false) {
                bail!("{name} is wider than a {device}");
            }
            for scheme in SCHEMES {
                let feature = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
                let features = json!({ "features": feature });
                self.devtools("Emulation.setEmulatedMedia", features)
                    .await?;
                let shot = json!({ "format": "png", "captureBeyondViewport": true });
                let shot = self.devtools("Page.captureScreenshot", shot).await?;
                let png = STANDARD.decode(shot["data"].as_str().context("no picture")?)?;
                std::fs::write(directory.join(format!("{name}-{device}-{scheme}.png")), png)?;
            }
        }
        self.devtools("Emulation.clearDeviceMetricsOverride", json!({}))
            .await?;
        Ok(())
    }
}

/// chromedriver says which port it took.
async fn port_of(driver: &mut Child) -> Result<u16> {
    let stdout = driver.stdout.take().context("no output of chromedriver")?;
    let mut lines = BufReader::new(stdout).lines();
    let found = tokio::time::timeout(PATIENCE, async {
        while let Some(line) = lines.next_line().await? {
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                return Ok(port.trim_end_matches('.').trim().parse()?);
            }
        }
        bail!("chromedriver ended")
    });
    let port = found.await.context("chromedriver does not start")??;
    // It goes on writing; nobody reads it, and it must not block.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(port)
}
