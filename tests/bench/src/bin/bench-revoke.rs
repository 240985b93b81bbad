//! From an administrator's revocation to the last packet that passed, under a flood.
//!
//! Control with SQLite on disk (each commit synced), its admin socket, the mutually authenticated
//! stream, the agent and the programs are the real ones. A thread writes the peer's packets to the
//! interface as fast as it can; another reads what the gateway forwards.
//!
//! Beside the revocations: 4 KiB written and synced where the store lies, once before each, which is what its commit
//! waits for.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use gate_bench::{
    Figure, PinRoot, SERVER, Tun, datagram, in_own_namespace, in_sync, percentile, start,
    write_sysctl,
};
use portcullis_proto::v1::{self, admin_client::AdminClient, revoke_sessions_request::Target};
use tonic::transport::Channel;

const REVOCATIONS: usize = 250;
const LOCATION: &str = "bench";
/// The flood runs this long before each revocation, and goes on as long after it.
const FLOOD: Duration = Duration::from_millis(20);

/// As the units in deploy/ run the services.
const SERVICE_NICE: i32 = -10;

fn main() -> Result<()> {
    if !in_own_namespace()? {
        return Ok(());
    }
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("a TLS provider is set already")?;
    set_nice(SERVICE_NICE)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(measure())
}

async fn measure() -> Result<()> {
    let pins = PinRoot::new("revoke");
    let state = tempfile::tempdir()?;
    let gateway = Tun::new("pcpeers", "10.77.0.1/16")?;
    let server = Tun::new("pcserver", "10.9.0.1/24")?;
    write_sysctl("net/ipv4/ip_forward", "1")?;

    let location = v1::Location {
        name: LOCATION.into(),
        pools: vec!["10.77.0.0/16".into()],
        endpoint: "192.0.2.1:51820".into(),
        listen_port: 51820,
        ..v1::Location::default()
    };
    let (_, mut admin) = start(state.path(), &pins, &gateway, location).await?;
    let devices = add_devices(&mut admin).await?;
    let flood = Flood::start(gateway, server);

    let mut acknowledged = Vec::with_capacity(REVOCATIONS);
    let mut last_packets = Vec::with_capacity(REVOCATIONS);
    let mut synced = Vec::with_capacity(REVOCATIONS);
    let mut disk = File::create(state.path().join("synced"))?;
    for (done, device) in devices.iter().enumerate() {
        let session = admin
            .add_session(v1::AddSessionRequest {
                device: device.name.clone(),
                lifetime_ms: 3_600_000,
                idle_timeout_ms: 0,
            })
            .await?
            .into_inner()
            .session
            .context("control answered without the session")?;
        flood.aim(device.address);
        let start = Instant::now();
        while flood.last_passed().is_none_or(|last| last < start) {
            ensure!(
                start.elapsed() < Duration::from_secs(10),
                "no packet of {} passes",
                device.name
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(FLOOD).await;

        let writing = Instant::now();
        disk.write_all(&[0; 4096])?;
        disk.sync_data()?;
        synced.push(writing.elapsed());

        let pressed = Instant::now();
        let answer = admin
            .revoke_sessions(v1::RevokeSessionsRequest {
                target: Some(Target::Session(session.id)),
                wait_ms: 10_000,
            })
            .await?
            .into_inner();
        acknowledged.push(pressed.elapsed());
        ensure!(
            answer.gateways.iter().all(|gateway| gateway.acknowledged),
            "a revocation was not acknowledged"
        );
        tokio::time::sleep(FLOOD).await;
        let last = flood.last_passed().context("packets passed before")?;
        last_packets.push(last.saturating_duration_since(pressed));
        if (done + 1) % 50 == 0 {
            eprintln!("{} of {REVOCATIONS} revocations", done + 1);
        }
    }
    flood.stop()?;

    for (name, samples) in [
        ("revoke/admin_to_map", &mut acknowledged),
        ("revoke/admin_to_last_packet", &mut last_packets),
    ] {
        for percent in [50, 99] {
            let name = format!("{name}/p{percent}");
            Figure::new(name, "ms", percentile(samples, percent))
                .beside(percentile(&mut synced, percent))
                .print()?;
        }
    }
    Ok(())
}

struct BenchDevice {
    name: String,
    address: Ipv4Addr,
}

async fn add_devices(admin: &mut AdminClient<Channel>) -> Result<Vec<BenchDevice>> {
    admin
        .add_user(v1::AddUserRequest {
            name: "bench".into(),
            password: "correct horse battery staple".into(),
            ..v1::AddUserRequest::default()
        })
        .await?;
    let mut devices = Vec::with_capacity(REVOCATIONS);
    for number in 0..REVOCATIONS {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| anyhow::anyhow!("{error}"))?;
        let name = format!("device-{number}");
        let device = admin
            .add_device(v1::AddDeviceRequest {
                name: name.clone(),
                user: "bench".into(),
                location: LOCATION.into(),
                public_key: key.to_vec(),
                preshared_key: false,
                for_ms: 0,
            })
            .await?
            .into_inner()
            .device
            .context("a device is in the answer")?;
        let address = device.addresses.iter().find_map(|address| {
            match address.split('/').next()?.parse().ok()? {
                IpAddr::V4(v4) => Some(v4),
                IpAddr::V6(_) => None,
            }
        });
        devices.push(BenchDevice {
            name,
            address: address.context("the device has an IPv4 address")?,
        });
    }
    in_sync(admin).await?;
    Ok(devices)
}

/// Packets of one peer at a time, and when the last of them came out.
struct Flood {
    source: Arc<AtomicU32>,
    /// Nanoseconds after `origin`; 0 for never.
    last: Arc<AtomicU64>,
    origin: Instant,
    stopping: Arc<AtomicBool>,
    sender: std::thread::JoinHandle<std::io::Result<()>>,
}

impl Flood {
    fn start(gateway: Tun, server: Tun) -> Self {
        let source = Arc::new(AtomicU32::new(0));
        let last = Arc::new(AtomicU64::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let origin = Instant::now();
        let sender = std::thread::spawn({
            let (source, stopping) = (Arc::clone(&source), Arc::clone(&stopping));
            move || {
                set_nice(0)?;
                while !stopping.load(Ordering::Relaxed) {
                    match source.load(Ordering::Relaxed) {
                        0 => std::thread::sleep(Duration::from_millis(1)),
                        source => {
                            gateway
                                .device
                                .send(&datagram(Ipv4Addr::from(source), SERVER))?;
                        }
                    }
                }
                Ok(())
            }
        });
        // Ends with the process: nothing arrives any more once the sender has stopped.
        std::thread::spawn({
            let (source, last) = (Arc::clone(&source), Arc::clone(&last));
            move || {
                set_nice(0).expect("lowering a priority is permitted");
                let mut packet = [0; 2048];
                while let Ok(length) = server.device.recv(&mut packet) {
                    let aimed = source.load(Ordering::Relaxed).to_be_bytes();
                    if packet.get(12..16) == Some(&aimed[..]) && length >= 28 {
                        let nanoseconds = u64::try_from(origin.elapsed().as_nanos());
                        last.store(nanoseconds.unwrap_or(u64::MAX), Ordering::Relaxed);
                    }
                }
            }
        });
        Self {
            source,
            last,
            origin,
            stopping,
            sender,
        }
    }

    fn aim(&self, source: Ipv4Addr) {
        self.source.store(source.to_bits(), Ordering::Relaxed);
    }

    fn last_passed(&self) -> Option<Instant> {
        match self.last.load(Ordering::Relaxed) {
            0 => None,
            nanoseconds => Some(self.origin + Duration::from_nanos(nanoseconds)),
        }
    }

    fn stop(self) -> Result<()> {
        self.stopping.store(true, Ordering::Relaxed);
        match self.sender.join() {
            Ok(result) => Ok(result?),
            Err(_) => bail!("the flood panicked"),
        }
    }
}

/// For this thread and those that it starts.
fn set_nice(nice: i32) -> std::io::Result<()> {
    rustix::process::setpriority_process(None, nice)?;
    Ok(())
}
