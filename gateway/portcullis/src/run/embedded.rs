//! The gateway inside `portcullis up`: enrolled by its own control service, over the same protocol
//! as any other gateway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use portcullis_agent::enroll;
use portcullis_agent::identity::Enrolment;
use portcullis_agent::{AgentConfig, Figures};
use portcullis_client::Fingerprint;
use portcullis_control::{Control, ControlConfig};
use portcullis_proto::v1::Location;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::watch;

use super::shutdown::Shutdown;
use crate::config::UpConfig;
use crate::exit::UsageError;

/// Between looks at the store for a location that an admin has yet to add.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// Between looks at how long the certificate is still good.
const RENEWAL_LOOK: Duration = Duration::from_secs(6 * 60 * 60);

/// Waits for the location, enrols where needed, and runs the agent.
pub(super) async fn run_agent(
    control: Control,
    control_config: ControlConfig,
    agent_config: AgentConfig,
    up: UpConfig,
    figures: watch::Sender<Option<Figures>>,
    shutdown: Shutdown,
) -> Result<()> {
    if choose(control.locations().await?, up.location.as_deref())?.is_none() {
        let name = up.location.as_deref().unwrap_or("NAME");
        tracing::info!(
            "waiting for a location: portcullis location add {name} --pool CIDR --endpoint HOST:PORT"
        );
    }
    let Some(location) = wait_for_location(&control, &up, &shutdown).await? else {
        return Ok(());
    };
    let state_dir = agent_config.state_dir.clone();
    let url = own_url(control_config.listen);
    loop {
        if !is_enrolled(&control, &state_dir, &up.gateway, &location.name, &url).await? {
            tracing::info!(
                gateway = up.gateway,
                location = location.name,
                "enrolling this machine's own gateway"
            );
            enrol(&control, &url, &up.gateway, &location.name, &state_dir).await?;
        }
        // What the kernel enforces stays in place while the agent starts again with a new one.
        let certificate = Enrolment::load(&state_dir)?.certificate;
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
            .context("the enrolment holds no certificate")?;
        let stop = async {
            tokio::select! {
                () = shutdown.requested() => {}
                () = renewal_due(&control, &certificate) => {}
            }
        };
        let agent = agent_config.clone().build()?;
        figures.send_replace(Some(agent.figures()));
        agent.run(stop).await?;
        if shutdown.is_requested() {
            return Ok(());
        }
    }
}

/// Resolves when the certificate is about to end.
async fn renewal_due(control: &Control, certificate: &CertificateDer<'_>) {
    loop {
        tokio::time::sleep(RENEWAL_LOOK).await;
        if control.is_certificate_ending(certificate) {
            return;
        }
    }
}

/// The location this gateway serves, as soon as there is one. None when told to stop first.
pub(super) async fn wait_for_location(
    control: &Control,
    up: &UpConfig,
    shutdown: &Shutdown,
) -> Result<Option<Location>> {
    loop {
        let locations = control.locations().await?;
        if let Some(location) = choose(locations, up.location.as_deref())? {
            return Ok(Some(location));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_PERIOD) => {}
            () = shutdown.requested() => return Ok(None),
        }
    }
}

fn choose(mut locations: Vec<Location>, wanted: Option<&str>) -> Result<Option<Location>> {
    if let Some(wanted) = wanted {
        return Ok(locations
            .into_iter()
            .find(|location| location.name == wanted));
    }
    if locations.len() > 1 {
        let names: Vec<&str> = locations
            .iter()
            .map(|location| location.name.as_str())
            .collect();
        bail!(UsageError(format!(
            "there are several locations; set location in the [up] section to one of {}",
            names.join(", ")
        )));
    }
    Ok(locations.pop())
}

/// Where the portal of a location is: at its own addresses, or else at the gateway's.
pub(super) fn portal_addresses(location: &Location) -> Result<Vec<SocketAddr>> {
    let port =
        u16::try_from(location.portal_port).context("the location's portal port is no port")?;
    let addresses: Vec<IpAddr> = if location.portals.is_empty() {
        location
            .pools
            .iter()
            .map(|pool| first_host(pool))
            .collect::<Result<_>>()?
    } else {
        let parse = |text: &String| {
            text.parse()
                .with_context(|| format!("portal address {text}"))
        };
        location.portals.iter().map(parse).collect::<Result<_>>()?
    };
    Ok(addresses
        .into_iter()
        .map(|address| SocketAddr::new(address, port))
        .collect())
}

/// The gateway's address in a pool.
fn first_host(pool: &str) -> Result<IpAddr> {
    let net: IpNet = pool.parse().with_context(|| format!("pool {pool}"))?;
    net.hosts()
        .find(|host| *host != net.network())
        .with_context(|| format!("pool {pool} has no host"))
}

/// Where control is reached from its own machine.
fn own_url(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("https://{}", SocketAddr::new(ip, listen.port()))
}

/// Whether what an earlier run left fits this control service: another store has another CA, and a
/// store that was set up anew or restored knows another certificate or none.
async fn is_enrolled(
    control: &Control,
    state_dir: &Path,
    gateway: &str,
    location: &str,
    url: &str,
) -> Result<bool> {
    let Ok(enrolment) = Enrolment::load(state_dir) else {
        return Ok(false);
    };
    let ca = CertificateDer::from_pem_slice(enrolment.ca.as_bytes());
    let ours = ca.is_ok_and(|ca| Fingerprint::of(&ca).to_string() == control.ca_fingerprint());
    let certificate = CertificateDer::from_pem_slice(enrolment.certificate.as_bytes());
    let (true, Ok(certificate)) = (ours && enrolment.control == url, certificate) else {
        return Ok(false);
    };
    if enrolment.gateway != gateway || enrolment.location != location {
        return Ok(false);
    }
    let enrolled = control.is_gateway_enrolled(gateway, location, &certificate);
    Ok(enrolled.await?)
}

async fn enrol(
    control: &Control,
    url: &str,
    gateway: &str,
    location: &str,
    state_dir: &Path,
) -> Result<()> {
    let token = control.gateway_token(gateway, location).await?;
    enroll::enroll(url, token.expose(), &control.ca_fingerprint(), state_dir)
        .await
        .context("cannot enrol this machine's own gateway")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(name: &str) -> Location {
        Location {
            name: name.to_owned(),
            pools: vec!["10.77.0.0/24".to_owned(), "fd77::/64".to_owned()],
            portal_port: 8443,
            ..Location::default()
        }
    }

    #[test]
    fn the_portal_is_at_the_gateways_addresses_unless_it_has_its_own() {
        let mut location = location("office");
        let addresses = portal_addresses(&location).unwrap();
        assert_eq!(
            addresses,
            [
                "10.77.0.1:8443".parse().unwrap(),
                "[fd77::1]:8443".parse().unwrap()
            ]
        );
        location.portals = vec!["10.9.0.5".to_owned()];
        assert_eq!(
            portal_addresses(&location).unwrap(),
            ["10.9.0.5:8443".parse().unwrap()]
        );
    }

    #[test]
    fn one_location_needs_no_name_and_several_do() {
        assert!(choose(vec![], None).unwrap().is_none());
        assert_eq!(
            choose(vec![location("a")], None).unwrap().unwrap().name,
            "a"
        );
        assert!(choose(vec![location("a"), location("b")], None).is_err());
        assert_eq!(
            choose(vec![location("a"), location("b")], Some("b"))
                .unwrap()
                .unwrap()
                .name,
            "b"
        );
        assert!(choose(vec![location("a")], Some("b")).unwrap().is_none());
    }

    #[test]
    fn control_is_dialled_at_an_address_it_listens_on() {
        assert_eq!(
            own_url("0.0.0.0:7443".parse().unwrap()),
            "https://127.0.0.1:7443"
        );
        assert_eq!(own_url("[::]:7443".parse().unwrap()), "https://[::1]:7443");
        assert_eq!(
            own_url("192.0.2.1:7443".parse().unwrap()),
            "https://192.0.2.1:7443"
        );
    }
}
