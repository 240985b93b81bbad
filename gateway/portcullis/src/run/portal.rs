//! The portal, beside control.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use portcullis_control::Control;
use portcullis_portal::Portal;

use super::embedded::{portal_addresses, wait_for_location};
use super::shutdown::Shutdown;
use crate::config::{PortalConfig, UpConfig};

/// Takes the addresses, with a certificate for them from control's CA.
pub(super) fn bind(control: &Control, listen: &[SocketAddr]) -> Result<Portal> {
    let names: Vec<IpAddr> = listen.iter().map(SocketAddr::ip).collect();
    let tls = control.server_config_for_portal(&names)?;
    let portal = Portal::bind(listen, tls, control.logins())?;
    let addresses: Vec<String> = portal
        .addresses()
        .iter()
        .map(|address| format!("https://{address}"))
        .collect();
    tracing::info!(addresses = addresses.join(" "), "the portal listens");
    Ok(portal)
}

/// `up`: where no address is configured, the location says where the portal is.
pub(super) async fn run_embedded(
    control: Control,
    config: PortalConfig,
    up: UpConfig,
    shutdown: Shutdown,
) -> Result<()> {
    let listen = if config.listen.is_empty() {
        let Some(location) = wait_for_location(&control, &up, &shutdown).await? else {
            return Ok(());
        };
        portal_addresses(&location)?
    } else {
        config.listen
    };
    bind(&control, &listen)?.serve(shutdown.requested()).await;
    Ok(())
}
