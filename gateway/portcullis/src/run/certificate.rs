//! The certificate at the portal's name.

use std::time::Duration;

use anyhow::{Context as _, Result};
use portcullis_control::{CertificateSource, Control, PortalCertificate};
use portcullis_portal::Portal;
use tokio::signal::unix::{SignalKind, signal};

use super::shutdown::Shutdown;
use crate::config::PortalConfig;

/// Between looks for a renewed certificate, or at whether one is due.
const LOOK_PERIOD: Duration = Duration::from_secs(60);

/// Takes the certificate, and the addresses at which a CA asks for proof, if any. `None`: the own CA's is
/// all there is.
pub(super) async fn open(
    control: &Control,
    config: &PortalConfig,
) -> Result<Option<(PortalCertificate, Option<Portal>)>> {
    let Some((name, source)) = config.certificate_source() else {
        return Ok(None);
    };
    let asked_at = match &source {
        CertificateSource::Acme(acme) => acme.listen.clone(),
        CertificateSource::Files { .. } => Vec::new(),
    };
    let certificate = control
        .portal_certificate(name, source)
        .await
        .context("the portal's certificate is refused")?;
    let challenges = if asked_at.is_empty() {
        None
    } else {
        Some(Portal::bind_challenges(&asked_at, certificate.clone())?)
    };
    Ok(Some((certificate, challenges)))
}

/// Looks every minute, and when told to by SIGHUP.
pub(super) async fn keep(certificate: PortalCertificate, shutdown: Shutdown) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot handle SIGHUP")?;
    let looks = async {
        loop {
            certificate.look().await;
            tokio::select! {
                () = tokio::time::sleep(LOOK_PERIOD) => {}
                _ = hangup.recv() => {}
            }
        }
    };
    tokio::select! {
        () = looks => {}
        () = shutdown.requested() => {}
    }
    Ok(())
}
