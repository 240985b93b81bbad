//! A passkey, or single sign-on, in this machine's browser. What comes of it comes back through it, to a port here: a
//! link that somebody else is made to open leads back to their machine, and not to this one.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use portcullis_client::{Brought, BrowserStep, BrowserVisit, Granted, KeyPair, PortalClient};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::watch::Signals;
use crate::cli::login::{Second, ask};
use crate::input;
use crate::output::Output;

/// For the answer to a browser to leave.
const LEAVING: Duration = Duration::from_secs(2);
const BACK: &str = "<!doctype html><title>Portcullis</title>\
    <p>You may close this page: the command that waits says what came of your sign-in.</p>";

/// A login that waits for the browser.
pub(super) struct SignIn {
    /// Without one, a passkey.
    provider: Option<String>,
    listener: TcpListener,
    visit: BrowserVisit,
}

impl SignIn {
    pub(super) fn begin(
        portal: &PortalClient,
        location: &str,
        device: &KeyPair,
        user: &str,
        provider: Option<&str>,
        renew: bool,
    ) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.context("no port for the browser to come back to")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let visit = match provider {
            Some(provider) => portal.begin_sso(location, device, user, provider, port, renew),
            None => portal.begin_passkey(location, device, user, port, renew),
        };
        let visit = visit?;
        Ok(Self {
            provider: provider.map(str::to_owned),
            listener,
            visit,
        })
    }

    /// Opens the browser, and waits for what it brings, or for a signal where they are listened for.
    pub(super) async fn finish(
        self,
        portal: &PortalClient,
        totp_command: Option<&str>,
        mut signals: Option<&mut Signals>,
        output: Output,
    ) -> Result<Granted> {
        let Self {
            provider,
            listener,
            visit,
        } = self;
        let back = Back::listen(listener, &visit.path)?;
        show(provider.as_deref(), &visit, output)?;
        let brought = tokio::time::timeout(Duration::from_secs(visit.expires_in_s), back.brought());
        let brought = unless_interrupted(signals.as_deref_mut(), brought).await?;
        let brought = brought.context("nobody has signed in in time: nothing is connected")??;
        let step = match &provider {
            Some(provider) => portal.finish_sso(&visit, provider, &brought),
            None => portal.finish_passkey(&visit, &brought),
        };
        let attempt = match step? {
            BrowserStep::Granted(granted) => return Ok(*granted),
            BrowserStep::Wants(attempt) => attempt,
        };
        let second = match totp_command {
            Some(command) => Second::Totp(input::from_command(command)?),
            None => {
                // A thread of its own, which ends with the process: a prompt cannot be taken back.
                let (tell, told) = oneshot::channel();
                let wanted = attempt.clone();
                std::thread::spawn(move || tell.send(ask(&wanted, "the portal")));
                unless_interrupted(signals, told).await???
            }
        };
        Ok(second.connect(portal, &attempt)?)
    }
}

/// Where the browser comes back to.
struct Back {
    brought: mpsc::Receiver<Brought>,
    over: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Back {
    fn listen(listener: TcpListener, path: &str) -> Result<Self> {
        let (bring, brought) = mpsc::channel(1);
        let (over, ended) = oneshot::channel();
        let app = Router::new()
            .route(&format!("/{path}"), get(come_back))
            .with_state(bring);
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let serving = axum::serve(listener, app).with_graceful_shutdown(async {
            // Also where nobody waits any more.
            let _ = ended.await;
        });
        Ok(Self {
            brought,
            over,
            serving: tokio::spawn(serving.into_future()),
        })
    }

    async fn brought(mut self) -> Result<Brought> {
        let brought = self.brought.recv().await;
        drop(self.over);
        // A browser that keeps its connection open does not hold this up.
        let _ = tokio::time::timeout(LEAVING, self.serving).await;
        brought.context("nothing listens for the browser any more")
    }
}

async fn come_back(
    State(bring): State<mpsc::Sender<Brought>>,
    Query(brought): Query<Brought>,
) -> impl IntoResponse {
    // The first one counts.
    let _ = bring.try_send(brought);
    ([(header::CACHE_CONTROL, "no-store")], Html(BACK))
}

async fn unless_interrupted<T>(
    signals: Option<&mut Signals>,
    waiting: impl Future<Output = T>,
) -> Result<T> {
    match signals {
        None => Ok(waiting.await),
        Some(signals) => tokio::select! {
            done = waiting => Ok(done),
            () = signals.any() => bail!("interrupted before the sign-in was done: nothing is connected"),
        },
    }
}

fn show(provider: Option<&str>, visit: &BrowserVisit, output: Output) -> Result<()> {
    let opened = open(&visit.url);
    output.lines(
        || {
            json!({
                "event": "sign_in",
                "provider": provider,
                "url": visit.url,
                "expires_in_s": visit.expires_in_s,
            })
        },
        || {
            let by = match provider {
                Some(provider) => format!("Sign in with {provider}"),
                None => "Connect with a passkey".to_owned(),
            };
            let seconds = visit.expires_in_s;
            match opened {
                true => format!("{by} in the browser. You have {seconds} seconds.\n"),
                false => format!(
                    "{by}: open this in a browser on this machine. You have {seconds} seconds.\n\n  {}\n",
                    visit.url
                ),
            }
        },
    )?;
    Ok(())
}

/// In the desktop's browser. False where there is none.
fn open(url: &str) -> bool {
    let opener = Command::new("xdg-open")
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    opener.is_ok_and(|status| status.success())
}
