//! What a packet costs, by program test-run on this machine's kernel, and how long a million
//! sessions take to load.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use aya::{TestRun, TestRunOptions, TestRunResult, maps::Array, programs::SchedClassifier};
use gateway_common::{
    abi::{
        Direction::{self, FromPeer, ToPeer},
        names,
    },
    verdict::Reason,
};
use portcullis_agent::datapath::{self, Datapath, PeerView};

use crate::{
    figure::Figure,
    kernel::{BpfFs, DROP, Kernel, Open, PASS},
    packets::{flag, ip, number, tcp, udp},
    scene::{SERVER_V4, SERVER_V6, State, services},
};

/// Sessions that are loaded while packets are measured.
pub const SESSIONS: u32 = 1_000_000;
/// Every this many peers one is locked instead.
const LOCKED_EVERY: u32 = 1000;
/// Numbers of a peer with a session, and of one without.
pub const LIVE: u32 = 77_777;
/// As [`LIVE`].
pub const LOCKED: u32 = 77_000;

/// The least of many short rounds: what the machine does besides only ever adds.
const REPEAT: u32 = 200_000;
const ROUNDS: usize = 40;
/// First packets of a round: no more than there are ports and addresses to go through.
const FIRST_PACKETS: u32 = 20_000;

/// A gate with a million sessions.
#[derive(Debug)]
pub struct Bench {
    kernel: Kernel,
    loaded: Duration,
}

impl Bench {
    /// Loads it, with room for so many flows of each address family.
    ///
    /// # Errors
    ///
    /// Without root, or when the kernel refuses.
    pub fn load(max_flows: u32) -> anyhow::Result<Self> {
        Self::opened_by(Datapath::open, max_flows)
    }

    /// The same for packets with Ethernet headers.
    ///
    /// # Errors
    ///
    /// As for [`Bench::load`].
    pub fn load_on_ethernet(max_flows: u32) -> anyhow::Result<Self> {
        Self::opened_by(Datapath::open_on_ethernet, max_flows)
    }

    fn opened_by(open: Open, max_flows: u32) -> anyhow::Result<Self> {
        let bpf_fs = BpfFs::mount()?;
        let config = datapath::Config {
            max_peers: 1 << 20,
            max_flows,
            ..bpf_fs.config()
        };
        let mut kernel = Kernel::opened_by(open, bpf_fs, config)?;
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
                    addresses: vec![Family::V4.peer(i).into(), Family::V6.peer(i).into()],
                    session: state.session(now),
                    policy: 0,
                }
            })
            .collect();
        let start = Instant::now();
        kernel.datapath.load_sessions(&peers)?;
        let loaded = start.elapsed();
        for name in [
            names::EMPTY,
            names::FLOOR,
            names::RENUMBERED,
            names::RENUMBERED_FROM_PEER,
        ] {
            let program: &mut SchedClassifier = kernel
                .datapath
                .object()
                .program_mut(name)
                .context("no such program")?
                .try_into()?;
            program.load()?;
        }
        Ok(Self { kernel, loaded })
    }

    /// How long the sessions took to load.
    pub fn loaded(&self) -> Figure {
        Figure::new("load/1M_sessions", "s", self.loaded.as_secs_f64())
    }

    /// Prints all packet figures.
    ///
    /// # Errors
    ///
    /// When a packet does not end as it should.
    pub fn packets(&mut self) -> anyhow::Result<()> {
        // The plain names are IPv4's, from the peer.
        for (family, suffix) in [(Family::V4, ""), (Family::V6, "/v6")] {
            let denied = family.opening(LOCKED);
            self.repeated(&format!("packet/denied{suffix}"), FromPeer, &denied, DROP)?
                .print()?;
            let (unsolicited, _) = family.exchange(LIVE, 5000);
            let name = format!("packet/unsolicited{suffix}");
            self.repeated(&name, ToPeer, &unsolicited, DROP)?.print()?;
            let (back, there) = self.establish(family)?;
            let name = format!("packet/established{suffix}");
            self.repeated(&name, FromPeer, &there, PASS)?.print()?;
            let name = format!("packet/established/to_peer{suffix}");
            self.repeated(&name, ToPeer, &back, PASS)?.print()?;
            self.first(&format!("packet/first{suffix}"), family, Step::Port)?
                .print()?;
        }
        ensure!(self.kernel.counted(FromPeer, Reason::Session)? > 0);
        Ok(())
    }

    /// Opens a flow, and returns the packets of both directions: towards the peer, and from it.
    ///
    /// # Errors
    ///
    /// When either does not pass.
    pub fn establish(&mut self, family: Family) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
        let (back, there) = family.exchange(LIVE, 5001);
        ensure!(
            self.kernel.action(FromPeer, &there)? == PASS
                && self.kernel.action(ToPeer, &back)? == PASS,
            "a permitted flow does not pass"
        );
        Ok((back, there))
    }

    /// The datapath.
    pub fn datapath(&mut self) -> &mut Datapath {
        &mut self.kernel.datapath
    }

    /// One packet, many times over.
    ///
    /// # Errors
    ///
    /// When it does not end in `action`.
    pub fn repeated(
        &mut self,
        name: &str,
        direction: Direction,
        packet: &[u8],
        action: u32,
    ) -> anyhow::Result<Figure> {
        let program = match direction {
            FromPeer => names::FROM_PEER,
            ToPeer => names::TO_PEER,
        };
        self.repeated_in(name, program, packet, action)
    }

    /// One packet, many times over, in the program of this name.
    ///
    /// # Errors
    ///
    /// When it does not end in `action`.
    pub fn repeated_in(
        &mut self,
        name: &str,
        program: &str,
        packet: &[u8],
        action: u32,
    ) -> anyhow::Result<Figure> {
        let (mut value, mut baseline) = (u64::MAX, u64::MAX);
        for _ in 0..ROUNDS {
            let (ns, found) = run(self.program(names::EMPTY)?, packet, REPEAT)?;
            ensure!(found == PASS, "the empty program ended in {found}");
            baseline = baseline.min(ns);
            let (ns, found) = run(self.program(program)?, packet, REPEAT)?;
            ensure!(found == action, "{name} ended in {found}");
            value = value.min(ns);
        }
        Ok(Figure::over(name, value as f64, baseline as f64))
    }

    /// Packets drawn from many, each run once: the mean without the slowest hundredth, which other work
    /// of the machine has interrupted.
    ///
    /// # Errors
    ///
    /// When one does not pass.
    pub fn drawn(
        &mut self,
        name: &str,
        times: u32,
        mut draw: impl FnMut() -> Vec<u8>,
    ) -> anyhow::Result<Figure> {
        let (mut value, mut baseline) = (Vec::new(), Vec::new());
        for _ in 0..times {
            let packet = draw();
            baseline.push(run(self.program(names::EMPTY)?, &packet, 1)?.0);
            let (ns, found) = run(self.program(names::FROM_PEER)?, &packet, 1)?;
            ensure!(found == PASS, "{name} ended in {found}");
            value.push(ns);
        }
        Ok(Figure::over(
            name,
            trimmed_mean(value),
            trimmed_mean(baseline),
        ))
    }

    /// Packets that each open a flow, one after the other.
    ///
    /// # Errors
    ///
    /// When one does not pass, or opens none.
    pub fn first(&mut self, name: &str, family: Family, step: Step) -> anyhow::Result<Figure> {
        let (mut value, mut baseline) = (u64::MAX, u64::MAX);
        for round in 0..ROUNDS {
            // Each round has a peer of its own, so that its flows are new.
            let peer = family.peer(LIVE + 1 + u32::try_from(round)?);
            let packet = ip(peer, family.server(), number::UDP, &udp(1, 53, 32));
            let (ns, found) = step.run(self.program(names::RENUMBERED)?, &packet)?;
            ensure!(found == PASS, "the program below ended in {found}");
            baseline = baseline.min(ns);
            let before = self.stored()?;
            let (ns, found) = step.run(self.program(names::RENUMBERED_FROM_PEER)?, &packet)?;
            ensure!(found == PASS, "{name} ended in {found}");
            let flows = self.stored()? - before;
            ensure!(
                flows >= u64::from(FIRST_PACKETS),
                "only {flows} flows were opened"
            );
            value = value.min(ns);
        }
        Ok(Figure::over(name, value as f64, baseline as f64))
    }

    /// How often a flow was stored.
    fn stored(&mut self) -> anyhow::Result<u64> {
        let map = self.kernel.datapath.object().map(names::STORED);
        let stored: Array<_, u64> = Array::try_from(map.context("no such map")?)?;
        Ok(stored.get(&0, 0)?)
    }

    fn program(&mut self, name: &str) -> anyhow::Result<&mut SchedClassifier> {
        let program = self
            .kernel
            .datapath
            .object()
            .program_mut(name)
            .context("no such program")?;
        Ok(program.try_into()?)
    }
}

/// In what first packets differ from those before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The peer's port only: the rules have been asked about the same destination just before.
    Port = 1,
    /// The remote address, and the port.
    Remote = 0x1_0001,
}

impl Step {
    /// Runs a program that renumbers by as much.
    fn run(self, program: &SchedClassifier, packet: &[u8]) -> anyhow::Result<(u64, u32)> {
        // Of the kernel's `__sk_buff`, up to the mark.
        let mut context = [0; 12];
        context[8..].copy_from_slice(&(self as u32).to_ne_bytes());
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.ctx_in = Some(&context);
        options.repeat = FIRST_PACKETS;
        finish(program.test_run(options)?)
    }
}

/// Runs a program so many times on one packet or frame: nanoseconds for each, and its action.
///
/// # Errors
///
/// When the kernel does not run it.
pub fn run<P>(program: &P, packet: &[u8], repeat: u32) -> anyhow::Result<(u64, u32)>
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>,
{
    let mut options = TestRunOptions::new();
    options.data_in = Some(packet);
    options.repeat = repeat;
    finish(program.test_run(options)?)
}

fn finish(result: TestRunResult) -> anyhow::Result<(u64, u32)> {
    Ok((
        u64::try_from(result.duration.as_nanos())?,
        result.return_value,
    ))
}

fn trimmed_mean(mut all: Vec<u64>) -> f64 {
    all.sort_unstable();
    all.truncate(all.len() - all.len() / 100);
    all.iter().sum::<u64>() as f64 / all.len() as f64
}

fn key(i: u32) -> [u8; 32] {
    let mut key = [0xaa; 32];
    key[..4].copy_from_slice(&i.to_be_bytes());
    key
}

/// An address family, and its addresses in the measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Address of the peer of this number.
    pub fn peer(self, i: u32) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::from(0x0a80_0000 + i)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from(
                (0xfd77_u128 << 112) | (u128::from(i) + 0x1_0000),
            )),
        }
    }

    /// The other end.
    pub fn server(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(SERVER_V4),
            Self::V6 => IpAddr::V6(SERVER_V6),
        }
    }

    /// A connection's first packet.
    pub fn opening(self, peer: u32) -> Vec<u8> {
        ip(
            self.peer(peer),
            self.server(),
            number::TCP,
            &tcp(5000, 22, flag::SYN),
        )
    }

    /// A connection's packets towards the peer and from it.
    pub fn exchange(self, peer: u32, port: u16) -> (Vec<u8>, Vec<u8>) {
        let (peer, server) = (self.peer(peer), self.server());
        (
            ip(server, peer, number::TCP, &tcp(22, port, flag::ACK)),
            ip(peer, server, number::TCP, &tcp(port, 22, flag::ACK)),
        )
    }
}
