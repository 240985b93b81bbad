//! What a packet costs, by program test-run on this machine's kernel, and how long a million
//! sessions take to load.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use aya::{TestRun as _, TestRunOptions, programs::SchedClassifier};
use gateway_common::{
    abi::{
        Direction::{self, FromPeer, ToPeer},
        names,
    },
    verdict::Reason,
};
use portcullis_agent::datapath::{self, PeerView};

use crate::{
    kernel::{self, BpfFs, DROP, Kernel, PASS},
    packets::{flag, ip, number, tcp, udp},
    scene::{SERVER_V4, SERVER_V6, State, services},
};

/// Sessions that are loaded while packets are measured.
pub const SESSIONS: u32 = 1_000_000;
/// Every this many peers one is locked instead.
const LOCKED_EVERY: u32 = 1000;

/// The least of many short rounds: what the machine does besides only ever adds.
const REPEAT: u32 = 200_000;
const ROUNDS: usize = 40;
/// First packets are measured one by one.
const FIRST_PACKETS: u16 = 20_000;

/// One measured figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: &'static str,
    /// What was measured.
    pub value: f64,
    /// The same without us.
    pub baseline: Option<f64>,
}

/// A gate with a million sessions.
#[derive(Debug)]
pub struct Bench {
    kernel: Kernel,
    loaded: Duration,
}

impl Bench {
    /// Loads it.
    ///
    /// # Errors
    ///
    /// Without root, or when the kernel refuses.
    pub fn load() -> anyhow::Result<Self> {
        let bpf_fs = BpfFs::mount()?;
        let config = datapath::Config {
            max_peers: 1 << 20,
            max_flows: 262_144,
            ..bpf_fs.config()
        };
        let mut kernel = Kernel::with(bpf_fs, config)?;
        kernel.datapath.set_services(&services())?;
        let now = datapath::now();
        let peers: Vec<PeerView> = (0..SESSIONS)
            .map(|i| {
                let state = if i % LOCKED_EVERY == 0 {
                    State::Locked
                } else {
                    State::Live
                };
                PeerView {
                    key: key(i),
                    addresses: vec![peer_v4(i).into(), peer_v6(i).into()],
                    session: state.session(now),
                    policy: 0,
                }
            })
            .collect();
        let start = Instant::now();
        kernel.datapath.load_sessions(&peers)?;
        let loaded = start.elapsed();
        object_empty(&mut kernel)?.load()?;
        Ok(Self { kernel, loaded })
    }

    /// How long the sessions took to load.
    pub fn loaded(&self) -> Figure {
        Figure {
            name: "load/1M_sessions".into(),
            unit: "s",
            value: self.loaded.as_secs_f64(),
            baseline: None,
        }
    }

    /// All packet figures, each told to `progress` as it comes.
    ///
    /// # Errors
    ///
    /// When a packet does not end as it should.
    pub fn packets(&mut self, mut progress: impl FnMut(&Figure)) -> anyhow::Result<Vec<Figure>> {
        let mut figures = Vec::new();
        let mut add = |figure: Figure| {
            progress(&figure);
            figures.push(figure);
        };
        let live = 77_777;
        let locked = 77_000;
        for (family, live, locked, server) in [
            ("v4", peer_v4(live), peer_v4(locked), IpAddr::V4(SERVER_V4)),
            ("v6", peer_v6(live), peer_v6(locked), IpAddr::V6(SERVER_V6)),
        ] {
            let denied = ip(locked, server, number::TCP, &tcp(5000, 22, flag::SYN));
            add(self.repeated(&format!("packet/denied/{family}"), FromPeer, &denied, DROP)?);
            let unsolicited = ip(server, live, number::TCP, &tcp(22, 5000, flag::SYN));
            add(self.repeated(
                &format!("packet/unsolicited/{family}"),
                ToPeer,
                &unsolicited,
                DROP,
            )?);
            let there = ip(live, server, number::TCP, &tcp(5001, 22, flag::ACK));
            let back = ip(server, live, number::TCP, &tcp(22, 5001, flag::ACK));
            ensure!(
                self.kernel.action(FromPeer, &there)? == PASS
                    && self.kernel.action(ToPeer, &back)? == PASS
            );
            add(self.repeated(
                &format!("packet/established/from_peer/{family}"),
                FromPeer,
                &there,
                PASS,
            )?);
            add(self.repeated(
                &format!("packet/established/to_peer/{family}"),
                ToPeer,
                &back,
                PASS,
            )?);
            add(self.first(&format!("packet/first/{family}"), live, server)?);
        }
        ensure!(self.kernel.counted(FromPeer, Reason::Session)? > 0);
        Ok(figures)
    }

    /// One packet, many times over.
    fn repeated(
        &mut self,
        name: &str,
        direction: Direction,
        packet: &[u8],
        action: u32,
    ) -> anyhow::Result<Figure> {
        let (mut value, mut baseline) = (u64::MAX, u64::MAX);
        for _ in 0..ROUNDS {
            let (ns, found) = run(object_empty(&mut self.kernel)?, packet, REPEAT)?;
            ensure!(found == PASS, "the empty program ended in {found}");
            baseline = baseline.min(ns);
            let (ns, found) = run(
                kernel::program(self.kernel.datapath.object(), direction)?,
                packet,
                REPEAT,
            )?;
            ensure!(found == action, "{name} ended in {found}");
            value = value.min(ns);
        }
        Ok(figure(name, value, baseline))
    }

    /// Packets that each open a flow: one run each, so the median of many.
    fn first(&mut self, name: &str, peer: IpAddr, server: IpAddr) -> anyhow::Result<Figure> {
        let packet = |port| ip(peer, server, number::UDP, &udp(port, 53, 32));
        let mut baseline = Vec::new();
        for port in 0..FIRST_PACKETS {
            baseline.push(run(object_empty(&mut self.kernel)?, &packet(port), 1)?.0);
        }
        let mut value = Vec::new();
        for port in 0..FIRST_PACKETS {
            let (ns, found) = run(
                kernel::program(self.kernel.datapath.object(), FromPeer)?,
                &packet(port),
                1,
            )?;
            ensure!(found == PASS, "{name} ended in {found}");
            value.push(ns);
        }
        Ok(figure(name, median(value), median(baseline)))
    }
}

/// Loads a million sessions and tells how long it took.
///
/// # Errors
///
/// As [`Bench::load`].
pub fn load_1m_sessions() -> anyhow::Result<Duration> {
    Ok(Bench::load()?.loaded)
}

fn run(program: &SchedClassifier, packet: &[u8], repeat: u32) -> anyhow::Result<(u64, u32)> {
    let mut options = TestRunOptions::new();
    options.data_in = Some(packet);
    options.repeat = repeat;
    let result = program.test_run(options)?;
    Ok((
        u64::try_from(result.duration.as_nanos())?,
        result.return_value,
    ))
}

fn object_empty(kernel: &mut Kernel) -> anyhow::Result<&mut SchedClassifier> {
    let program = kernel
        .datapath
        .object()
        .program_mut(names::EMPTY)
        .context("no empty program")?;
    Ok(program.try_into()?)
}

fn figure(name: &str, value: u64, baseline: u64) -> Figure {
    Figure {
        name: name.into(),
        unit: "ns",
        value: value as f64,
        baseline: Some(baseline as f64),
    }
}

fn median(mut all: Vec<u64>) -> u64 {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0)
}

fn key(i: u32) -> [u8; 32] {
    let mut key = [0xaa; 32];
    key[..4].copy_from_slice(&i.to_be_bytes());
    key
}

fn peer_v4(i: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a80_0000 + i))
}

fn peer_v6(i: u32) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(
        (0xfd77_u128 << 112) | (u128::from(i) + 0x1_0000),
    ))
}
