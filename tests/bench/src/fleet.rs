//! Control on SQLite and the agent of its only gateway, both the real ones, and packets through them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use portcullis_agent::{Agent, AgentConfig, LinkMode};
use portcullis_control::{Control, ControlConfig};
use portcullis_proto::v1::{self, admin_client::AdminClient};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{InMemory, PinRoot, Tun};

/// Behind the gateway.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// Control and the agent of its only gateway, connected.
/// The location has no gateway but this one.
pub async fn start(
    state: &Path,
    pins: &PinRoot,
    interface: &Tun,
    location: v1::Location,
) -> Result<(Control, AdminClient<Channel>)> {
    let name = location.name.clone();
    let socket = state.join("admin.sock");
    let control = Control::open(ControlConfig {
        database: format!("sqlite://{}", state.join("portcullis.db").display()),
        state_dir: state.join("control"),
        admin_socket: socket.clone(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7443)),
        ..ControlConfig::default()
    })
    .await?;
    let listener = control.bind_gateways().await?;
    let serving = control.clone();
    tokio::spawn(async move {
        if let Err(error) = serving
            .serve_gateways_on(listener, std::future::pending())
            .await
        {
            eprintln!("control: {error}");
        }
    });
    let serving = control.clone();
    tokio::spawn(async move {
        if let Err(error) = serving.serve_admin(std::future::pending()).await {
            eprintln!("admin: {error}");
        }
    });
    let mut admin = connect(socket).await?;
    admin
        .add_location(v1::AddLocationRequest {
            location: Some(location),
            ..v1::AddLocationRequest::default()
        })
        .await?;

    let agent_dir = state.join("agent");
    let token = control.gateway_token("bench", &name).await?;
    portcullis_agent::enroll::enroll(
        "https://127.0.0.1:7443",
        token.expose(),
        &control.ca_fingerprint(),
        &agent_dir,
    )
    .await?;
    let agent = Agent::with_parts(
        AgentConfig {
            state_dir: agent_dir,
            interface: interface.name.clone(),
            pin_root: pins.path().to_owned(),
            ..AgentConfig::default()
        },
        LinkMode::Existing {
            index: interface.index,
        },
        Box::new(InMemory::default()),
    );
    tokio::spawn(async move {
        if let Err(error) = agent.run(std::future::pending()).await {
            eprintln!("agent: {error}");
        }
    });
    in_sync(&mut admin).await?;
    Ok((control, admin))
}

async fn connect(socket: PathBuf) -> Result<AdminClient<Channel>> {
    let start = Instant::now();
    loop {
        let socket = socket.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(socket).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        match Endpoint::from_static("http://admin")
            .connect_with_connector(connector)
            .await
        {
            Ok(channel) => return Ok(AdminClient::new(channel)),
            Err(error) if start.elapsed() > Duration::from_secs(10) => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Waits until every gateway holds what control wants.
pub async fn in_sync(admin: &mut AdminClient<Channel>) -> Result<()> {
    let start = Instant::now();
    loop {
        let gateways = admin
            .list_gateways(v1::ListRequest {})
            .await?
            .into_inner()
            .gateways;
        if !gateways.is_empty() && gateways.iter().all(|gateway| gateway.in_sync) {
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(20) {
            bail!("the gateway did not come into sync: {gateways:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A UDP datagram of 1200 bytes of payload, its checksum left out (RFC 768).
pub fn datagram(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    const PAYLOAD: u16 = 1200;
    let mut packet = Vec::with_capacity(usize::from(28 + PAYLOAD));
    packet.extend([0x45, 0]);
    packet.extend((28 + PAYLOAD).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let sum: u32 = packet
        .chunks_exact(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes()[2..]);
    packet.extend(40_000_u16.to_be_bytes());
    packet.extend(9_000_u16.to_be_bytes());
    packet.extend((8 + PAYLOAD).to_be_bytes());
    packet.extend([0, 0]);
    packet.resize(usize::from(28 + PAYLOAD), 0);
    packet
}
