//! Logins at a session-key location: from the last factor to the first packet that passes, one at a time, and then
//! many at once.
//!
//! Control with SQLite on disk (each commit synced), the mutually authenticated stream, the agent and the programs are the
//! real ones. A TUN device stands in for WireGuard, whose configuration is kept in memory: the handshake that a
//! client makes before its first packet is not in these figures.
//!
//! Beside the last factors: 4 KiB written and synced where the store lies, once before each, which is what its commit waits
//! for. Beside the rate: passwords verified in the same time with nothing else, which is what logins cost before all else.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gate_bench::{
    Figure, PinRoot, SERVER, Tun, datagram, in_own_namespace, in_sync, percentile, start,
    write_sysctl,
};
use portcullis_control::{ConnectProof, ConnectStep, Connection, Connects, Control, LoginError};
use portcullis_proto::v1::{self, admin_client::AdminClient};
use portcullis_trust::Claim;
use tonic::transport::Channel;
use totp_rs::Totp;
use x25519_dalek::{PublicKey, StaticSecret};

const LOCATION: &str = "vault";
const PASSWORD: &str = "correct horse battery staple";
/// One at a time.
const ALONE: usize = 200;
/// At once, those before included.
const ALL: usize = 10_000;
/// That are under way at any time.
const AT_ONCE: usize = 32;

fn main() -> Result<()> {
    if !in_own_namespace()? {
        return Ok(());
    }
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("a TLS provider is set already")?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(measure())
}

/// Who logs in, and by what.
struct Person {
    name: String,
    totp: Totp,
    device: [u8; 32],
}

async fn measure() -> Result<()> {
    let pins = PinRoot::new("connect");
    let state = tempfile::tempdir()?;
    let gateway = Tun::new("pcpeers", "10.77.0.1/16")?;
    let server = Tun::new("pcserver", "10.9.0.1/24")?;
    write_sysctl("net/ipv4/ip_forward", "1")?;
    let location = v1::Location {
        name: LOCATION.into(),
        pools: vec!["10.77.0.0/16".into()],
        endpoint: "192.0.2.1:51820".into(),
        listen_port: 51820,
        session_lifetime_ms: 3_600_000,
        mode: "session-key".into(),
        ..v1::Location::default()
    };
    let (control, mut admin) = start(state.path(), &pins, &gateway, location).await?;
    let people = Arc::new(add_people(&admin).await?);
    in_sync(&mut admin).await?;

    alone(&control, &people[..ALONE], &gateway, server, state.path()).await?;
    at_once(&control, people).await
}

/// From the last factor's arrival to its answer, and to the first packet.
async fn alone(
    control: &Control,
    people: &[Person],
    gateway: &Tun,
    server: Tun,
    dir: &std::path::Path,
) -> Result<()> {
    let connects = control.connects();
    let mut disk = File::create(dir.join("synced"))?;
    let mut synced = Vec::with_capacity(people.len());
    let mut begun = Vec::with_capacity(people.len());
    let mut answered = Vec::with_capacity(people.len());
    let mut passed = Vec::with_capacity(people.len());
    let (sender, arrivals) = std::sync::mpsc::channel();
    // Ends with the process.
    std::thread::spawn(move || {
        let mut packet = [0; 2048];
        while let Ok(length) = server.device.recv(&mut packet) {
            let source: Option<[u8; 4]> =
                packet.get(12..16).and_then(|source| source.try_into().ok());
            if length >= 28 && sender.send((source, Instant::now())).is_err() {
                return;
            }
        }
    });
    for person in people {
        let writing = Instant::now();
        disk.write_all(&[0; 4096])?;
        disk.sync_data()?;
        synced.push(writing.elapsed());

        let beginning = Instant::now();
        let attempt = begin(&connects, person).await?;
        begun.push(beginning.elapsed());
        let code = person.totp.generate_current().to_string();
        let pressed = Instant::now();
        let connection = connected(connects.totp(&attempt, &code).await?)?;
        answered.push(pressed.elapsed());

        let address = connection.tunnel.addresses.first();
        let address = address.and_then(|address| address.split('/').next());
        let address: Ipv4Addr = address.context("the tunnel has an address")?.parse()?;
        gateway.device.send(&datagram(address, SERVER))?;
        // The machine itself says something now and then.
        let at = loop {
            match arrivals.recv_timeout(Duration::from_secs(10))? {
                (Some(source), at) if source == address.octets() => break at,
                _ => {}
            }
        };
        passed.push(at.duration_since(pressed));
    }
    for (name, samples) in [
        ("connect/proof_and_password", &mut begun),
        ("connect/last_factor_to_answer", &mut answered),
        ("connect/last_factor_to_packet", &mut passed),
    ] {
        for percent in [50, 99] {
            Figure::new(
                format!("{name}/p{percent}"),
                "ms",
                percentile(samples, percent),
            )
            .beside(percentile(&mut synced, percent))
            .print()?;
        }
    }
    Ok(())
}

/// All the others, so many under way at any time.
async fn at_once(control: &Control, people: Arc<Vec<Person>>) -> Result<()> {
    let hashed = passwords_per_second(control, &people).await?;
    let before = memory("VmRSS")?;
    let next = Arc::new(AtomicUsize::new(ALONE));
    let start = Instant::now();
    let workers = (0..AT_ONCE).map(|_| {
        let (connects, people, next) = (control.connects(), Arc::clone(&people), Arc::clone(&next));
        tokio::spawn(async move {
            let mut answered = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(person) = people.get(number) else {
                    return Ok::<_, anyhow::Error>(answered);
                };
                let attempt = begin(&connects, person).await?;
                let code = person.totp.generate_current().to_string();
                let pressed = Instant::now();
                connected(connects.totp(&attempt, &code).await?)?;
                answered.push(pressed.elapsed());
                if number % 1000 == 0 {
                    eprintln!("{number} of {ALL} logins");
                }
            }
        })
    });
    let mut answered = Vec::with_capacity(ALL);
    for worker in workers.collect::<Vec<_>>() {
        answered.extend(worker.await??);
    }
    let seconds = start.elapsed().as_secs_f64();
    let rate = answered.len() as f64 / seconds;
    Figure::new("connect/logins_per_second", "1/s", rate)
        .beside(hashed)
        .print()?;
    for percent in [50, 99] {
        let value = percentile(&mut answered, percent);
        Figure::new(
            format!("connect/last_factor_{AT_ONCE}_at_once/p{percent}"),
            "ms",
            value,
        )
        .print()?;
    }
    Figure::new("connect/memory_10k_sessions", "MiB", memory("VmRSS")?)
        .beside(before)
        .print()?;
    Figure::new("connect/memory_peak", "MiB", memory("VmHWM")?).print()
}

/// What wrong passwords for nobody cost, as many at once: verified as any other, and nothing comes of it.
async fn passwords_per_second(control: &Control, people: &[Person]) -> Result<f64> {
    const EACH: usize = 20;
    let start = Instant::now();
    let mut workers = Vec::new();
    for person in &people[..AT_ONCE] {
        let connects = control.connects();
        let device = person.device;
        workers.push(tokio::spawn(async move {
            for number in 0..EACH {
                let nobody = format!("nobody{number}");
                let refused = connects.begin(proof(&connects, &device, &nobody)?).await;
                ensure!(
                    matches!(
                        refused,
                        Err(LoginError::Refused | LoginError::Delayed { .. })
                    ),
                    "{refused:?}"
                );
                if matches!(refused, Err(LoginError::Delayed { .. })) {
                    return Ok(number);
                }
            }
            Ok(EACH)
        }));
    }
    let mut verified = 0;
    for worker in workers {
        verified += worker.await??;
    }
    Ok(verified as f64 / start.elapsed().as_secs_f64())
}

async fn begin(connects: &Connects, person: &Person) -> Result<portcullis_control::LoginId> {
    let proof = proof(connects, &person.device, &person.name)?;
    match connects.begin(proof).await? {
        ConnectStep::Wants { attempt, .. } => Ok(attempt),
        step => bail!("a login with one factor: {step:?}"),
    }
}

fn proof(connects: &Connects, device: &[u8; 32], username: &str) -> Result<ConnectProof> {
    let public = PublicKey::from(&StaticSecret::from(*device)).to_bytes();
    let public_key = STANDARD.encode(public);
    let asked = connects.challenge(LOCATION, &public_key)?;
    let location_key = STANDARD.decode(&asked.location_key)?;
    let claim = Claim {
        challenge: &asked.challenge,
        location: LOCATION,
        username,
        device: &public,
        location_key: location_key.as_slice().try_into()?,
    };
    let proof = claim.prove(device).context("a key of the location")?;
    Ok(ConnectProof {
        location: LOCATION.into(),
        public_key,
        challenge: asked.challenge,
        proof: STANDARD.encode(proof.as_slice()).into(),
        username: username.into(),
        password: PASSWORD.into(),
        renew: false,
    })
}

fn connected(step: ConnectStep) -> Result<Connection> {
    match step {
        ConnectStep::Connected(connection) => Ok(*connection),
        step => bail!("no connection: {step:?}"),
    }
}

async fn add_people(admin: &AdminClient<Channel>) -> Result<Vec<Person>> {
    let next = Arc::new(AtomicUsize::new(0));
    let workers = (0..4).map(|_| {
        let (mut admin, next) = (admin.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            let mut people = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= ALL {
                    return Ok::<_, anyhow::Error>(people);
                }
                people.push(add_person(&mut admin, number).await?);
                if number % 1000 == 0 {
                    eprintln!("{number} of {ALL} users and devices");
                }
            }
        })
    });
    let mut people = Vec::with_capacity(ALL);
    for worker in workers.collect::<Vec<_>>() {
        people.extend(worker.await??);
    }
    Ok(people)
}

async fn add_person(admin: &mut AdminClient<Channel>, number: usize) -> Result<Person> {
    let name = format!("user{number}");
    let user = v1::AddUserRequest {
        name: name.clone(),
        password: PASSWORD.into(),
        ..v1::AddUserRequest::default()
    };
    let user = admin.add_user(user).await?.into_inner();
    let mut device = [0; 32];
    getrandom::fill(&mut device).map_err(|error| anyhow::anyhow!("{error}"))?;
    let request = v1::AddDeviceRequest {
        name: format!("device{number}"),
        user: name.clone(),
        location: LOCATION.into(),
        public_key: PublicKey::from(&StaticSecret::from(device))
            .to_bytes()
            .to_vec(),
        ..v1::AddDeviceRequest::default()
    };
    admin.add_device(request).await?;
    Ok(Person {
        name,
        totp: Totp::from_url(user.totp_uri)?,
        device,
    })
}

/// Of this process, which is control and the agent, in MiB.
fn memory(field: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(field));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context("no such field")?.parse::<f64>()? / 1024.0)
}
