//! Figures of this process on one page.

use anyhow::{Context as _, Result};
use portcullis_agent::Figures;
use portcullis_control::Control;
use portcullis_metrics::{MetricsConfig, Page};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::shutdown::Shutdown;

/// Whose figures there are. The agent of `up` comes later.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) control: Option<Control>,
    pub(super) agent: watch::Receiver<Option<Figures>>,
}

/// Takes the configured address at once; `None` where there is none.
pub(super) async fn bind(config: &MetricsConfig) -> Result<Option<TcpListener>> {
    let Some(address) = config.listen else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for [metrics]"))?;
    tracing::info!(%address, "figures are served at /metrics");
    Ok(Some(listener))
}

/// Serves the page until told to stop.
pub(super) async fn serve(
    listener: TcpListener,
    sources: Sources,
    per_peer: bool,
    shutdown: Shutdown,
) {
    let scrape = move || {
        let sources = sources.clone();
        async move { sources.page(per_peer).await }
    };
    portcullis_metrics::serve(listener, scrape, shutdown.requested()).await;
}

impl Sources {
    async fn page(&self, per_peer: bool) -> Page {
        let mut page = Page::default();
        if let Some(control) = &self.control
            && let Err(error) = control.figures(&mut page, per_peer).await
        {
            tracing::warn!("control's figures are incomplete: {error}");
        }
        let agent = self.agent.borrow().clone();
        if let Some(agent) = agent {
            agent.collect(&mut page).await;
        }
        page
    }
}
