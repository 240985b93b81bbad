//! Chromium in a client's namespace, by WebDriver.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use e2e_tests::{Namespace, eventually};
use fantoccini::wd::Capabilities;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;

/// An emulated machine starts a browser in its own time.
const PATIENCE: Duration = Duration::from_secs(120);
const PORT: u16 = 9515;

/// chromedriver, ended with the value.
struct Driver(Child);

impl Driver {
    fn start(namespace: &Namespace) -> Result<Self> {
        let mut command: Command = namespace.command("chromedriver");
        command.arg(format!("--port={PORT}")).stdout(Stdio::null());
        let driver = Self(command.spawn().context("chromedriver")?);
        eventually("chromedriver listens", PATIENCE, || {
            let connects = || std::net::TcpStream::connect(("127.0.0.1", PORT)).is_ok();
            namespace.enter(connects)
        })?;
        Ok(driver)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A page, and how long to wait for what is to be on it.
pub(crate) struct Page(Client);

impl Page {
    pub(crate) async fn open(&self, address: &str) -> Result<()> {
        Ok(self.0.goto(address).await?)
    }

    /// Types into what this selects, once it is there.
    pub(crate) async fn fill(&self, css: &str, text: &str) -> Result<()> {
        let field = self
            .0
            .wait()
            .at_most(PATIENCE)
            .every(Duration::from_secs(2));
        let field = field.for_element(Locator::Css(css)).await?;
        Ok(field.send_keys(text).await?)
    }

    /// Clicks on what this selects, once it is there.
    pub(crate) async fn click(&self, css: &str) -> Result<()> {
        let button = self
            .0
            .wait()
            .at_most(PATIENCE)
            .every(Duration::from_secs(2));
        let button = button.for_element(Locator::Css(css)).await?;
        Ok(button.click().await?)
    }

    /// What this selects says, once it is there.
    pub(crate) async fn text(&self, css: &str) -> Result<String> {
        let element = self
            .0
            .wait()
            .at_most(PATIENCE)
            .every(Duration::from_secs(2));
        let element = element.for_element(Locator::Css(css)).await?;
        Ok(element.text().await?)
    }

    /// Waits until what this selects says something else.
    pub(crate) async fn changes(&self, css: &str, was: &str) -> Result<()> {
        let until = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < until {
            if self.text(css).await? != was {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("{css} still says {was}");
    }

    /// Where the browser is.
    pub(crate) async fn address(&self) -> Result<String> {
        Ok(self.0.current_url().await?.to_string())
    }
}

/// Starts a browser inside, and does this with it. The certificate is by the gateway's own CA.
pub(crate) fn browse<T: Send + 'static>(
    namespace: &Namespace,
    profile: &std::path::Path,
    work: impl AsyncFnOnce(&Page) -> Result<T> + Send + 'static,
) -> Result<T> {
    let _driver = Driver::start(namespace)?;
    let args = json!([
        "--headless=new",
        // Its own sandbox refuses to run as root.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--js-flags=--jitless",
        "--disable-extensions",
        "--disable-component-extensions-with-background-pages",
        "--disable-sync",
        "--renderer-process-limit=1",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--ignore-certificate-errors",
        format!("--user-data-dir={}", profile.display()),
    ]);
    let mut capabilities = Capabilities::new();
    capabilities.insert("goog:chromeOptions".to_owned(), json!({ "args": args }));
    // Sockets belong to the namespace of the thread that makes them.
    namespace.enter(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let client = ClientBuilder::new(HttpConnector::new())
                .capabilities(capabilities)
                .connect(&format!("http://127.0.0.1:{PORT}"))
                .await
                .context("chromium")?;
            let page = Page(client.clone());
            let done = work(&page).await;
            client.close().await?;
            done
        })
    })?
}
