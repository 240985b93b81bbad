//! One request to stop, seen by every service.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A handle on the request; clones share it.
#[derive(Clone)]
pub(super) struct Shutdown {
    requested: watch::Sender<bool>,
}

impl Shutdown {
    /// Requested by SIGTERM or SIGINT, or by [`Self::request`].
    pub(super) fn on_signal() -> Result<Self> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let shutdown = Self {
            requested: watch::Sender::new(false),
        };
        let handle = shutdown.clone();
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(
                signal = name,
                "stopping; what the kernel enforces stays in place"
            );
            handle.request();
        });
        Ok(shutdown)
    }

    pub(super) fn request(&self) {
        self.requested.send_replace(true);
    }

    pub(super) fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }

    /// Resolves once the stop is requested.
    pub(super) fn requested(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut requested = self.requested.subscribe();
        async move {
            // An error means that every handle is gone, which is a stop too.
            let _ = requested.wait_for(|requested| *requested).await;
        }
    }
}
