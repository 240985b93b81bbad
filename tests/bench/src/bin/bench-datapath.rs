//! What packets cost with a million sessions, 10 000 rules and 100 000 prefixes loaded, by program
//! test-run on this machine's kernel; and the memory of all maps.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result};
use datapath_tests::bench::{Bench, Family, Figure, LOCKED, SESSIONS};
use datapath_tests::kernel::{BpfFs, DROP, Kernel, PASS};
use datapath_tests::packets::{ip, number, udp};
use gateway_common::abi::{
    Direction::{FromPeer, ToPeer},
    names,
};
use portcullis_agent::datapath::{self, PeerView};
use portcullis_control::policy::{CompiledPolicy, Policy, Subject};

const RULES: u32 = 10_000;
const PREFIXES_PER_RULE: u32 = 10;
/// Groups that rules are for, and those that the peers' user is in.
const GROUPS: u32 = 500;
const MEMBER_OF: [&str; 3] = ["g1", "g2", "g3"];
/// Flows that established packets are drawn from.
const DRAWN: [(u32, &str); 2] = [(10_000, "10k"), (1_000_000, "1M")];
const DRAWS: u32 = 200_000;

fn main() -> Result<()> {
    for (peers, name) in [(10_000, "10k"), (100_000, "100k"), (1_000_000, "1M")] {
        print(&Figure {
            name: format!("maps/bytes_{name}"),
            unit: "bytes",
            value: map_bytes(peers)? as f64,
            baseline: None,
        });
    }
    eprintln!("loading a million sessions");
    let mut bench = Bench::load(1 << 21)?;
    eprintln!("loading {RULES} rules");
    let mut compiled = compile()?;
    let class = compiled.assign(&subject())?;
    bench
        .datapath()
        .switch_policy(Some((1, compiled.tables())), |_| class)?;

    print(&bench.repeated_in(
        "floor/hash",
        names::FLOOR,
        &Family::V4.opening(LOCKED),
        PASS,
    )?);
    for (family, name) in [(Family::V4, "v4"), (Family::V6, "v6")] {
        let (back, there) = bench.establish(family)?;
        for (direction, packet, way) in [(FromPeer, there, "from_peer"), (ToPeer, back, "to_peer")]
        {
            let name = format!("established/hot/{name}/{way}");
            print(&bench.repeated(&name, direction, &packet, PASS)?);
        }
    }
    print(&bench.repeated("denied/hot", FromPeer, &Family::V4.opening(LOCKED), DROP)?);
    print(&bench.repeated("denied/hot/v6", FromPeer, &Family::V6.opening(LOCKED), DROP)?);
    print(&bench.first("first/hot", Family::V4)?);
    print(&bench.first("first/hot/v6", Family::V6)?);
    for (flows, name) in DRAWN {
        eprintln!("opening {flows} flows");
        let mut opened = 0;
        bench.drawn("opening", flows, || {
            opened += 1;
            flow(opened - 1)
        })?;
        let mut state = 1;
        let name = format!("established/random_{name}");
        print(&bench.drawn(&name, DRAWS, || flow(random(&mut state, flows)))?);
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

fn subject() -> Subject {
    Subject {
        user: "bench".into(),
        groups: MEMBER_OF.map(str::to_owned).to_vec(),
    }
}

/// 10 000 rules for 100 000 prefixes, nearly; the one that permits the measured packets is among them.
fn compile() -> Result<CompiledPolicy> {
    let mut text = String::new();
    for rule in 0..RULES - 2 {
        let mut to = Vec::new();
        for prefix in 0..PREFIXES_PER_RULE {
            let number = rule * PREFIXES_PER_RULE + prefix;
            // Half of them IPv4, down to single subnets of each other.
            to.push(match number % 4 {
                0 => format!(
                    "\"10.{}.{}.0/24\"",
                    16 + number / 4 / 256 % 128,
                    number / 4 % 256
                ),
                1 => format!(
                    "\"172.{}.{}.{}/30\"",
                    16 + number / 4 % 16,
                    number / 64 % 256,
                    number / 16384 * 4
                ),
                _ => format!("\"fd09:{:x}:{:x}::/64\"", number >> 8, number & 0xff),
            });
        }
        write!(
            text,
            "[[rule]]\nname = \"rule-{rule}\"\nwho = [\"group:g{}\"]\nto = [{}]\nports = [\"tcp/{}\", \"tcp/8000-8999\", \"udp/53\"]\n\n",
            rule % GROUPS,
            to.join(", "),
            1 + rule % 1000,
        )?;
    }
    // Around the measured destination, for other ports: the look-up has to go on past them.
    write!(
        text,
        "[[rule]]\nname = \"wide\"\nwho = [\"group:{}\"]\nto = [\"10.0.0.0/8\", \"{}\", \"fd09::/16\", \"{}\"]\nports = [\"tcp/443\"]\n\n",
        MEMBER_OF[1],
        Family::V4.server(),
        Family::V6.server(),
    )?;
    write!(
        text,
        "[[rule]]\nname = \"measured\"\nwho = [\"group:{}\"]\nto = [\"10.9.0.0/16\", \"fd09::/64\"]\nports = [\"tcp/22\", \"udp/53\"]\n",
        MEMBER_OF[0],
    )?;
    let policy = Policy::parse(&text).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    Ok(CompiledPolicy::compile(&policy)?)
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

fn print(figure: &Figure) {
    match figure.baseline {
        Some(baseline) => eprintln!(
            "{}: {:.1} {} over {baseline:.1}",
            figure.name, figure.value, figure.unit
        ),
        None => eprintln!("{}: {} {}", figure.name, figure.value, figure.unit),
    }
    println!(
        "{}",
        serde_json::json!({"name": figure.name, "unit": figure.unit, "value": figure.value, "baseline": figure.baseline})
    );
}
