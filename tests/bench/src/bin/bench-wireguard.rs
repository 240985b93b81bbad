//! What WireGuard takes in a kernel that has it. Its configuration: all peers at once, one more, one that goes, one whose
//! pre-shared key changes, and finding that nothing is to be done. And a first packet, which waits for a handshake.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gate_bench::{Figure, Host, percentile, run};
use ipnet::IpNet;
use portcullis_agent::keys::{PresharedKey, PrivateKey, PublicKey};
use portcullis_agent::wireguard::{DeviceSettings, Kernel, PeerChange, PeerUpdate, WireGuard as _};

/// Handshakes that are measured.
const ROUNDS: usize = 50;
const PORTS: [u16; 2] = [51_901, 51_902];

fn main() -> Result<()> {
    handshakes()?;
    for (peers, name) in [(10_000_u32, "10k"), (100_000, "100k")] {
        // They end with the virtual machine: the kernel takes minutes to delete one with so many peers.
        let interface = format!("bench{name}");
        run("ip", &["link", "add", &interface, "type", "wireguard"])?;
        measure(&interface, peers, name)?;
    }
    Ok(())
}

fn measure(interface: &str, peers: u32, name: &str) -> Result<()> {
    let wireguard = Kernel::new(interface);
    let all = (0..peers).map(peer).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    wireguard.apply(&all)?;
    figure(&format!("wireguard/setup_{name}"), start)?;

    let one = peer(peers)?;
    let PeerChange::Update(update) = &one else {
        unreachable!("it was made as one");
    };
    let renewed = PeerChange::Update(PeerUpdate {
        key: update.key,
        create: false,
        preshared_key: Some(Some(PresharedKey::from_kernel([9; 32]).expect("no zeros"))),
        endpoint: None,
        persistent_keepalive: None,
        allowed_ips: None,
    });
    let removed = PeerChange::Remove(update.key);
    for (what, change) in [
        ("add", one.clone()),
        ("renew", renewed),
        ("remove", removed),
        ("change", one),
    ] {
        let start = Instant::now();
        wireguard.apply(&[change])?;
        figure(&format!("wireguard/{what}_{name}"), start)?;
    }

    // Nothing to be done is known once everything has been read.
    let start = Instant::now();
    let held = wireguard.read()?.peers.len();
    figure(&format!("wireguard/noop_{name}"), start)?;
    ensure!(held == peers as usize + 1, "{held} peers are configured");
    Ok(())
}

/// From the first ping through an interface that has just got its peer to its answer, beside the next one's.
fn handshakes() -> Result<()> {
    // Their sockets stay here, and reach each other over the loopback interface.
    let far = Host::new()?;
    let [ours, theirs] = ["near", "far"].map(Kernel::new);
    let [our_key, their_key] = [PrivateKey::generate()?, PrivateKey::generate()?];
    let preshared_key = PresharedKey::from_kernel([9; 32]).expect("no zeros");
    let end = |key: PublicKey, port| PeerUpdate {
        key,
        create: true,
        preshared_key: Some(Some(preshared_key.clone())),
        endpoint: Some((Ipv4Addr::LOCALHOST, port).into()),
        persistent_keepalive: None,
        allowed_ips: Some(vec!["10.99.0.0/24".parse().expect("a network")]),
    };
    let [us, them] = [
        end(our_key.public_key(), PORTS[0]),
        end(their_key.public_key(), PORTS[1]),
    ];
    for (name, kernel, private_key, port) in [
        ("near", &ours, our_key, PORTS[0]),
        ("far", &theirs, their_key, PORTS[1]),
    ] {
        run("ip", &["link", "add", name, "type", "wireguard"])?;
        kernel.configure(&DeviceSettings {
            private_key,
            listen_port: port,
        })?;
    }
    theirs.apply(&[PeerChange::Update(us)])?;
    run(
        "ip",
        &["link", "set", "far", "netns", &far.pid().to_string()],
    )?;
    far.run("ip", &["address", "add", "10.99.0.2/24", "dev", "far"])?;
    far.run("ip", &["link", "set", "far", "up"])?;
    run("ip", &["address", "add", "10.99.0.1/24", "dev", "near"])?;
    run("ip", &["link", "set", "near", "up"])?;
    run("ip", &["link", "set", "lo", "up"])?;

    let (mut first, mut next) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.apply(&[PeerChange::Remove(them.key)])?;
        ours.apply(&[PeerChange::Update(them.clone())])?;
        let pings = Command::new("ping")
            .args(["-n", "-c", "2", "-i", "0.05", "-W", "5", "10.99.0.2"])
            .output()?;
        let text = String::from_utf8_lossy(&pings.stdout);
        let mut times = text.lines().filter_map(time_of);
        first.push(times.next().context("no answer to the first ping")?);
        next.push(times.next().context("no answer to the second ping")?);
    }
    for percent in [50, 99] {
        let name = format!("wireguard/first_packet/p{percent}");
        Figure::new(name, "ms", percentile(&mut first, percent))
            .beside(percentile(&mut next, percent))
            .print()?;
    }
    Ok(())
}

/// From `64 bytes from 10.99.0.2: icmp_seq=1 ttl=64 time=1.23 ms`.
fn time_of(line: &str) -> Option<Duration> {
    let (_, time) = line.split_once("time=")?;
    let ms: f64 = time.split(' ').next()?.parse().ok()?;
    Some(Duration::from_secs_f64(ms / 1e3))
}

fn peer(number: u32) -> Result<PeerChange> {
    let mut key = [7; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    Ok(PeerChange::Update(PeerUpdate {
        key: PublicKey::try_from(key)?,
        create: true,
        preshared_key: None,
        endpoint: None,
        persistent_keepalive: None,
        allowed_ips: Some(vec![IpNet::from(std::net::IpAddr::V4(Ipv4Addr::from(
            0x0a00_0000 + number,
        )))]),
    }))
}

fn figure(name: &str, since: Instant) -> Result<()> {
    Figure::new(name, "s", since.elapsed().as_secs_f64()).print()
}
