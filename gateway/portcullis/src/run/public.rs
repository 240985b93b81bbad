//! Enrolment outside of the tunnel, and what the first administrator is told.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use portcullis_control::{Control, FirstAdmin};
use portcullis_portal::Portal;
use serde_json::json;

use crate::config::PortalConfig;
use crate::output::Output;
use crate::{qr, time};

/// Takes the addresses, with a certificate for them and for the name from control's CA. From then on
/// there are links. `None` where no address is configured.
pub(super) fn bind(control: &Control, config: &PortalConfig) -> Result<Option<Portal>> {
    let Some(page) = config.enrolment_page() else {
        return Ok(None);
    };
    // One that stands for all of them is nobody's address.
    let ips = config.public.iter().map(SocketAddr::ip);
    let ips: Vec<IpAddr> = ips.filter(|ip| !ip.is_unspecified()).collect();
    let tls = control.server_config_for_portal(&ips, config.name.as_ref())?;
    let mut outside = config.outside.then(|| control.outside());
    let mut enrolments = control.enrolments();
    let mut approvals = None;
    let mut connects = control.connects();
    if let Some(name) = &config.name {
        let mut ports: Vec<u16> = config.public.iter().map(SocketAddr::port).collect();
        ports.sort_unstable();
        ports.dedup();
        let passkeys = control.passkeys(name.clone(), &ports)?;
        outside = outside.map(|outside| outside.with_passkeys(passkeys.clone()));
        approvals = Some(control.approvals(passkeys.clone()));
        enrolments = enrolments.with_passkeys(passkeys);
        // The first address is the one that links name, and that providers know.
        let ports: Vec<u16> = config.public.iter().map(SocketAddr::port).collect();
        connects = connects.with_sso(control.sso(name.clone(), &ports)?);
    }
    let portal = Portal::bind_public(
        &config.public,
        tls,
        enrolments,
        connects,
        outside,
        approvals,
    )?;
    tracing::info!(
        page,
        sign_in = config.outside,
        "users enrol by one-time links, and devices of session-key locations connect"
    );
    control.serve_enrolments_at(page);
    if let Some(page) = config.approval_page() {
        control.serve_approvals_at(page);
    }
    Ok(Some(portal))
}

/// Prints a link for the first administrator, as long as nobody has enrolled. It goes to stdout, not to
/// the log, whose readers are more.
pub(super) async fn greet(control: &Control, output: Output) -> Result<()> {
    match control.first_admin().await? {
        FirstAdmin::NotNeeded => {}
        FirstAdmin::Off => tracing::info!(
            "there is no account yet: `portcullis user add NAME --role admin` adds one with a password; with an address in [portal] public a link would be printed here"
        ),
        FirstAdmin::Link { url, expires_ms } => {
            let url = url.expose();
            let image = qr::render(url)?;
            let ca = control.ca_fingerprint();
            output.answer(
                || {
                    json!({
                        "first_admin": {
                            "user": "admin",
                            "url": url,
                            "expires": time::json(expires_ms),
                            "ca_fingerprint": ca,
                        }
                    })
                },
                || {
                    format!(
                        "No account has enrolled yet. The first administrator, `admin`, enrols here:\n\n{image}\n{url}\n\nThe page's certificate is by this CA: {ca}\nGood once, until {}, and as long as no account has enrolled; each start prints a new one.\n",
                        time::text(expires_ms)
                    )
                },
            )?;
        }
    }
    Ok(())
}
