//! What WireGuard's configuration takes in a kernel that has it: all peers at once, one more, one that goes, one whose
//! pre-shared key changes, and finding that nothing is to be done.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Result, ensure};
use gate_bench::{Figure, run};
use ipnet::IpNet;
use portcullis_agent::keys::{PresharedKey, PublicKey};
use portcullis_agent::wireguard::{Kernel, PeerChange, PeerUpdate, WireGuard as _};

fn main() -> Result<()> {
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
