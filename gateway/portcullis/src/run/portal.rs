//! The portal, beside control.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use portcullis_control::{Control, PortalName, Sso};
use portcullis_portal::Portal;

use super::embedded::{portal_addresses, wait_for_location};
use super::shutdown::Shutdown;
use crate::config::{PortalConfig, UpConfig};

/// Takes the addresses, with a certificate for them and for the name from control's CA.
pub(super) fn bind(
    control: &Control,
    listen: &[SocketAddr],
    config: PortalConfig,
) -> Result<Portal> {
    let beside_public = listen
        .iter()
        .any(|&address| config.is_beside_public(address));
    let name: Option<PortalName> = config.name;
    let ips: Vec<IpAddr> = listen.iter().map(SocketAddr::ip).collect();
    let tls = control.server_config_for_portal(&ips, name.as_ref())?;
    let sso = sso(control, listen, name.as_ref())?;
    let passkeys = match name {
        Some(name) => {
            let mut ports: Vec<u16> = listen.iter().map(SocketAddr::port).collect();
            ports.sort_unstable();
            ports.dedup();
            tracing::info!(%name, "passkeys are on, at the portal's name");
            Some(control.passkeys(name, &ports)?)
        }
        None => {
            tracing::info!("passkeys are off: [portal] name is not set");
            None
        }
    };
    let portal = if beside_public {
        Portal::bind_beside_public(listen, tls, control.logins(), passkeys, sso)?
    } else {
        Portal::bind(listen, tls, control.logins(), passkeys, sso)?
    };
    let addresses: Vec<String> = portal
        .addresses()
        .iter()
        .map(|address| format!("https://{address}"))
        .collect();
    tracing::info!(addresses = addresses.join(" "), "the portal listens");
    Ok(portal)
}

/// Single sign-on at the portal's name.
fn sso(control: &Control, listen: &[SocketAddr], name: Option<&PortalName>) -> Result<Option<Sso>> {
    let Some(name) = name else {
        if control.has_providers() {
            tracing::warn!("single sign-on is off: [portal] name is not set");
        }
        return Ok(None);
    };
    let ports: Vec<u16> = listen.iter().map(SocketAddr::port).collect();
    Ok(control.sso(name.clone(), &ports)?)
}

/// Takes the addresses at which providers tell of logouts, if there are any.
pub(super) fn bind_backchannel(control: &Control, config: &PortalConfig) -> Result<Option<Portal>> {
    if config.backchannel.is_empty() {
        return Ok(None);
    }
    let listen = &config.backchannel;
    let Some(sso) = sso(control, listen, config.name.as_ref())? else {
        bail!("[portal] backchannel needs [portal] name and a [[control.sso]]");
    };
    let ips: Vec<IpAddr> = listen.iter().map(SocketAddr::ip).collect();
    let tls = control.server_config_for_portal(&ips, config.name.as_ref())?;
    let portal = Portal::bind_backchannel(listen, tls, sso)?;
    tracing::info!(addresses = ?portal.addresses(), "providers may tell of logouts");
    Ok(Some(portal))
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
        config.listen.clone()
    };
    bind(&control, &listen, config)?
        .serve(shutdown.requested())
        .await;
    Ok(())
}
