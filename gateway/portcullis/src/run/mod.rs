//! The long-running commands: which services run, what they share, and how they stop.

pub(crate) mod capabilities;
mod certificate;
mod embedded;
mod metrics;
mod portal;
mod public;
mod shutdown;

use std::future::Future;
use std::io::IsTerminal as _;

use anyhow::{Context as _, Result};
use portcullis_control::Control;
use portcullis_metrics::MetricsConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, PortalConfig};
use crate::exit::{Exit, UsageError};
use crate::output::Output;
use shutdown::Shutdown;

/// Logs go to stderr, so that stdout holds the answer alone.
pub(crate) fn start_logging(filter: Option<&str>, default: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter.unwrap_or(default)).map_err(|error| {
        UsageError(format!(
            "--log: {error}; it looks like info,portcullis_agent=debug"
        ))
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}

/// One provider for everything that does not name its own.
pub(crate) fn install_crypto_provider() {
    // Fails only when there is one already, which then is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// `portcullis control`.
pub(crate) async fn control(config: Config, output: Output) -> Result<Exit> {
    let shutdown = Shutdown::on_signal()?;
    let control = open(&config).await?;
    let mut services = Services::new(shutdown.clone());
    services.add_control(&control).await?;
    let page = metrics::bind(&config.metrics).await?;
    let sources = metrics::Sources {
        control: Some(control.clone()),
        agent: watch::channel(None).1,
    };
    services.add_metrics(page, sources, &config.metrics);
    services.add_certificate(&control, &config.portal).await?;
    services.add_enrolment(&control, &config, output).await?;
    services.add_backchannel(&control, &config.portal)?;
    if !config.portal.listen.is_empty() {
        let portal = portal::bind(&control, &config.portal.listen, config.portal.clone())?;
        services.add("portal", async move {
            portal.serve(shutdown.requested()).await;
            Ok(())
        });
    }
    services.run().await
}

/// `portcullis agent`.
pub(crate) async fn agent(config: Config) -> Result<Exit> {
    capabilities::require_for_agent()?;
    let shutdown = Shutdown::on_signal()?;
    let page = metrics::bind(&config.metrics).await?;
    let agent = config.agent.build()?;
    let sources = metrics::Sources {
        control: None,
        agent: watch::channel(Some(agent.figures())).1,
    };
    let mut services = Services::new(shutdown.clone());
    services.add_metrics(page, sources, &config.metrics);
    services.add("agent", async move {
        Ok(agent.run(shutdown.requested()).await?)
    });
    services.run().await
}

/// `portcullis agent teardown`.
pub(crate) async fn teardown(config: Config, output: Output) -> Result<Exit> {
    capabilities::require_for_agent()?;
    let interface = &config.agent.interface;
    portcullis_agent::teardown(&config.agent)
        .await
        .with_context(|| format!("cannot undo everything on {interface}"))?;
    output.answer(
        || serde_json::json!({ "removed": interface }),
        || format!("{interface} and what was enforced on it are gone; keys and enrolment stay."),
    )?;
    Ok(Exit::Done)
}

/// `portcullis up`.
pub(crate) async fn up(config: Config, output: Output) -> Result<Exit> {
    // Before control opens its store: what cannot work should leave nothing behind.
    capabilities::require_for_agent()?;
    let shutdown = Shutdown::on_signal()?;
    let control = open(&config).await?;
    let mut services = Services::new(shutdown.clone());
    services.add_control(&control).await?;
    let (figures, agent) = watch::channel(None);
    let page = metrics::bind(&config.metrics).await?;
    let sources = metrics::Sources {
        control: Some(control.clone()),
        agent,
    };
    services.add_metrics(page, sources, &config.metrics);
    services.add_certificate(&control, &config.portal).await?;
    services.add_enrolment(&control, &config, output).await?;
    services.add_backchannel(&control, &config.portal)?;
    services.add(
        "portal",
        portal::run_embedded(
            control.clone(),
            config.portal,
            config.up.clone(),
            shutdown.clone(),
        ),
    );
    services.add(
        "agent",
        embedded::run_agent(
            control,
            config.control,
            config.agent,
            config.up,
            figures,
            shutdown,
        ),
    );
    services.run().await
}

async fn open(config: &Config) -> Result<Control> {
    Ok(Control::open(config.control.clone()).await?)
}

/// Services that live and die together: the first one to fail stops the others.
struct Services {
    tasks: JoinSet<(&'static str, Result<()>)>,
    shutdown: Shutdown,
}

impl Services {
    fn new(shutdown: Shutdown) -> Self {
        Self {
            tasks: JoinSet::new(),
            shutdown,
        }
    }

    fn add(
        &mut self,
        name: &'static str,
        service: impl Future<Output = Result<()>> + Send + 'static,
    ) {
        self.tasks.spawn(async move { (name, service.await) });
    }

    fn add_metrics(
        &mut self,
        page: Option<TcpListener>,
        sources: metrics::Sources,
        config: &MetricsConfig,
    ) {
        if let Some(listener) = page {
            let (stop, per_peer) = (self.shutdown.clone(), config.per_peer);
            self.add("metrics", async move {
                metrics::serve(listener, sources, per_peer, stop).await;
                Ok(())
            });
        }
    }

    /// Files that cannot be used end the command before anything is served.
    async fn add_certificate(&mut self, control: &Control, config: &PortalConfig) -> Result<()> {
        let Some((certificate, challenges)) = certificate::open(control, config).await? else {
            return Ok(());
        };
        if let Some(challenges) = challenges {
            let stop = self.shutdown.requested();
            self.add("challenges", async move {
                challenges.serve(stop).await;
                Ok(())
            });
        }
        self.add(
            "certificate",
            certificate::keep(certificate, self.shutdown.clone()),
        );
        Ok(())
    }

    /// Takes the addresses at once, as for gateways.
    fn add_backchannel(&mut self, control: &Control, config: &PortalConfig) -> Result<()> {
        if let Some(portal) = portal::bind_backchannel(control, config)? {
            let stop = self.shutdown.requested();
            self.add("back channel", async move {
                portal.serve(stop).await;
                Ok(())
            });
        }
        Ok(())
    }

    /// Takes the address for gateways at once: an occupied port ends the command before anything
    /// is served.
    async fn add_control(&mut self, control: &Control) -> Result<()> {
        let listener = control.bind_gateways().await?;
        tracing::info!(
            url = control.control_url(),
            ca = control.ca_fingerprint(),
            "control listens for gateways"
        );
        let (gateways, stop) = (control.clone(), self.shutdown.requested());
        self.add("control", async move {
            Ok(gateways.serve_gateways_on(listener, stop).await?)
        });
        let (admin, stop) = (control.clone(), self.shutdown.requested());
        self.add(
            "admin socket",
            async move { Ok(admin.serve_admin(stop).await?) },
        );
        let (ssh, stop) = (control.clone(), self.shutdown.requested());
        self.add("ssh socket", async move { Ok(ssh.serve_ssh(stop).await?) });
        let (expiry, stop) = (control.clone(), self.shutdown.requested());
        self.add("expiry", async move {
            expiry.run_expiry(stop).await;
            Ok(())
        });
        Ok(())
    }

    /// Listens outside of the tunnel, where that is wished, and tells the first administrator how to
    /// begin.
    async fn add_enrolment(
        &mut self,
        control: &Control,
        config: &Config,
        output: Output,
    ) -> Result<()> {
        if let Some(portal) = public::bind(control, &config.portal)? {
            let stop = self.shutdown.requested();
            self.add("enrolment", async move {
                portal.serve(stop).await;
                Ok(())
            });
        }
        public::greet(control, output).await
    }

    async fn run(mut self) -> Result<Exit> {
        let mut outcome = Ok(Exit::Done);
        while let Some(ended) = self.tasks.join_next().await {
            let failed = match ended {
                Ok((name, Ok(()))) if self.shutdown.is_requested() => {
                    tracing::debug!(service = name, "stopped");
                    continue;
                }
                Ok((name, Ok(()))) => anyhow::anyhow!("the {name} service ended by itself"),
                Ok((name, Err(error))) => {
                    tracing::error!(service = name, "{error:#}");
                    error
                }
                Err(panicked) => anyhow::Error::new(panicked).context("a service broke down"),
            };
            self.shutdown.request();
            // The first failure is the cause of the others.
            if outcome.is_ok() {
                outcome = Err(failed);
            }
        }
        outcome
    }
}
