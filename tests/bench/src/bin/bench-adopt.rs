//! How long an agent takes to adopt 100 000 peers with sessions from the kernel, and to find that
//! all of them are as control wants them: from opening the pinned maps to the acknowledgement.
//! WireGuard's side is in memory here; reading it from the kernel comes on top.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use gate_bench::{Figure, InMemory, PinRoot, Tun, in_own_namespace};
use portcullis_agent::datapath::{Config, Datapath};
use portcullis_agent::engine::Engine;
use portcullis_agent::wireguard::WireGuard;
use portcullis_proto::v1;
use prost::Message as _;

const PEERS: u32 = 100_000;

fn main() -> Result<()> {
    if !in_own_namespace()? {
        return Ok(());
    }
    let pins = PinRoot::new("adopt");
    let interface = Tun::new("pcadopt", "10.64.0.1/10")?;
    let config = Config {
        interface: "pcadopt".into(),
        pin_root: pins.path().to_owned(),
        max_peers: PEERS * 2,
        max_flows: 1 << 16,
    };
    let wireguard: Arc<dyn WireGuard> = Arc::new(InMemory::default());
    let message = snapshot().encode_to_vec();

    eprintln!("filling a gateway with {PEERS} peers");
    let (fresh, expected) = apply(&config, &wireguard, interface.index, &message, false)?;
    eprintln!("adopting them");
    let (adopted, digest) = apply(&config, &wireguard, interface.index, &message, true)?;
    ensure!(digest == expected, "what was adopted is not what was there");
    Datapath::teardown(&config)?;

    // Beside the same gateway from nothing.
    Figure::new("adopt/100k_peers", "s", adopted)
        .beside(fresh)
        .print()
}

/// One life of an agent up to its acknowledgement: seconds, and the digest.
fn apply(
    config: &Config,
    wireguard: &Arc<dyn WireGuard>,
    ifindex: u32,
    message: &[u8],
    adopts: bool,
) -> Result<(f64, Vec<u8>)> {
    let start = Instant::now();
    let datapath = Datapath::open(config)?;
    ensure!(
        datapath.adopted() == adopts,
        "adopted: {}",
        datapath.adopted()
    );
    let mut engine = Engine::new(datapath, Arc::clone(wireguard));
    engine.attach(ifindex)?;
    let outcome = engine.snapshot(v1::Snapshot::decode(message)?)?;
    Ok((start.elapsed().as_secs_f64(), outcome.applied.digest))
}

fn snapshot() -> v1::Snapshot {
    let now = 1_800_000_000_000;
    let peers = (1..=PEERS).map(|number| {
        let mut key = [7; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        let address = std::net::Ipv4Addr::from(0x0a40_0001 + number);
        let mut id = vec![9; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        v1::Peer {
            public_key: key.to_vec(),
            preshared_key: Vec::new(),
            allowed_ips: vec![
                format!("{address}/32"),
                format!("fd77::{:x}:{:x}/128", number >> 16, number & 0xffff),
            ],
            persistent_keepalive_s: 0,
            session: Some(v1::Session {
                id,
                level: v1::Level::Mfa.into(),
                authenticated_at_ms: now,
                deadline_ms: now + 3_600_000,
                idle_timeout_ms: 0,
                last_activity_ms: now,
            }),
            policy: 0,
            renews: Vec::new(),
        }
    });
    v1::Snapshot {
        revision: 1,
        store_id: "bench".into(),
        control_now_ms: now,
        location: Some(v1::LocationConfig {
            name: "bench".into(),
            addresses: vec!["10.64.0.1/10".into()],
            listen_port: 51820,
            mtu: 1420,
            open_services: Vec::new(),
            answer_drops: false,
            captive_portals: Vec::new(),
        }),
        peers: peers.collect(),
        policy: None,
    }
}
