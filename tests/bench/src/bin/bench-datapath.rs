//! What packets cost with a million sessions, 10 000 rules and 100 000 prefixes loaded, by program
//! test-run on this machine's kernel; and the memory of all maps.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result};
use datapath_tests::bench::{Bench, Family, LOCKED, SESSIONS, Step};
use datapath_tests::figure::Figure;
use datapath_tests::kernel::{BpfFs, DROP, Kernel, PASS};
use datapath_tests::packets::{ip, number, udp};
use gate_bench::with_policy;
use gateway_common::abi::{
    Direction::{FromPeer, ToPeer},
    names,
};
use portcullis_agent::datapath::{self, PeerView};

/// Flows that established packets are drawn from.
const DRAWN: [(u32, &str); 2] = [(10_000, "10k"), (1_000_000, "1M")];
const DRAWS: u32 = 200_000;

fn main() -> Result<()> {
    for (peers, name) in [(10_000, "10k"), (100_000, "100k"), (1_000_000, "1M")] {
        let bytes = map_bytes(peers)? as f64;
        Figure::new(format!("maps/bytes_{name}"), "bytes", bytes).print()?;
    }
    eprintln!("loading a million sessions");
    let mut bench = with_policy(Bench::load(1 << 21)?)?;

    let denied = Family::V4.opening(LOCKED);
    bench
        .repeated_in("floor/hash", names::FLOOR, &denied, PASS)?
        .print()?;
    for (family, name) in [(Family::V4, "v4"), (Family::V6, "v6")] {
        let (back, there) = bench.establish(family)?;
        for (direction, packet, way) in [(FromPeer, there, "from_peer"), (ToPeer, back, "to_peer")]
        {
            let name = format!("established/hot/{name}/{way}");
            bench.repeated(&name, direction, &packet, PASS)?.print()?;
        }
    }
    bench
        .repeated("denied/hot", FromPeer, &denied, DROP)?
        .print()?;
    let denied = Family::V6.opening(LOCKED);
    bench
        .repeated("denied/hot/v6", FromPeer, &denied, DROP)?
        .print()?;
    for (family, suffix) in [(Family::V4, ""), (Family::V6, "/v6")] {
        let name = format!("first/hot{suffix}");
        bench.first(&name, family, Step::Port)?.print()?;
        let name = format!("first/new_remote{suffix}");
        bench.first(&name, family, Step::Remote)?.print()?;
    }
    for (flows, name) in DRAWN {
        eprintln!("opening {flows} flows");
        let mut opened = 0;
        bench.drawn("opening", flows, || {
            opened += 1;
            flow(opened - 1)
        })?;
        let mut state = 1;
        let name = format!("established/random_{name}");
        bench
            .drawn(&name, DRAWS, || flow(random(&mut state, flows)))?
            .print()?;
    }
    Ok(())
}

/// Flow of this number: many peers, and some ports of each.
fn flow(number: u32) -> Vec<u8> {
    const PORTS: u32 = 4;
    // Peers whose number ends in 000 are locked.
    let peer = number / PORTS * 1001 % SESSIONS;
    let peer = if peer.is_multiple_of(1000) {
        peer + 1
    } else {
        peer
    };
    let port = 1024 + u16::try_from(number % PORTS).unwrap_or(0);
    let (from, to) = (Family::V4.peer(peer), Family::V4.server());
    ip(from, to, number::UDP, &udp(port, 53, 32))
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
fn random(state: &mut u64, below: u32) -> u32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    u32::try_from((z ^ (z >> 31)) % u64::from(below)).unwrap_or(0)
}

/// Memory of all maps with so many peers, as the kernel accounts for it.
fn map_bytes(peers: u32) -> Result<u64> {
    let before: HashSet<u32> = map_ids()?;
    let bpf_fs = BpfFs::mount()?;
    let config = datapath::Config {
        max_peers: peers.next_power_of_two(),
        max_flows: 262_144,
        ..bpf_fs.config()
    };
    let mut kernel = Kernel::with(bpf_fs, config)?;
    let views: Vec<PeerView> = (0..peers)
        .map(|i| {
            let mut key = [0xaa; 32];
            key[..4].copy_from_slice(&i.to_be_bytes());
            PeerView {
                key,
                addresses: vec![Family::V4.peer(i).into(), Family::V6.peer(i).into()],
                session: None,
                policy: 0,
            }
        })
        .collect();
    kernel.datapath.load_sessions(&views)?;
    let mut bytes = 0;
    for info in aya::maps::loaded_maps() {
        let info = info?;
        if before.contains(&info.id()) {
            continue;
        }
        let fd = info.fd()?;
        let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
        let text = std::fs::read_to_string(path)?;
        let memlock = text
            .lines()
            .find_map(|line| line.strip_prefix("memlock:"))
            .context("the kernel does not tell a map's memory")?;
        bytes += memlock.trim().parse::<u64>()?;
    }
    Ok(bytes)
}

fn map_ids() -> Result<HashSet<u32>> {
    let ids = aya::maps::loaded_maps().map(|info| Ok(info?.id()));
    ids.collect()
}
