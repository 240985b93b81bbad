//! What the shield costs: a dead index, a live one and a stranger's frame over an empty XDP program, and
//! how many dead ones one core gets rid of.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use aya::{TestRun as _, TestRunAttrs, TestRunOptions, programs::Xdp};
use gateway_common::shield::names;

use crate::{
    bench::run,
    figure::{Figure, median},
    packets::{ip, number, tcp},
    shield::{DROP, GATEWAY, Guarded, PASS, PEER},
    wireguard::{PORT, data, ethernet, frame, response},
};

/// As the agent's default.
const PEERS: u32 = 65_536;
const REPEAT: u32 = 1_000_000;
const ROUNDS: usize = 9;
/// Frames in flight of the live-frame run.
const BATCH: u32 = 64;
/// For the figure with cold caches, each run has an index of its own.
const RANDOM: u32 = 20_000;

/// A shield with a table half full.
#[derive(Debug)]
pub struct BenchShield(Guarded);

impl BenchShield {
    /// Attaches it.
    ///
    /// # Errors
    ///
    /// Without root, or when the kernel refuses.
    pub fn load() -> anyhow::Result<Self> {
        let mut guarded = Guarded::learning(PEERS)?;
        guarded.shield.stop_learning()?;
        // Indexes are drawn at random; multiplication by an odd number spreads as well.
        for i in 0..PEERS {
            guarded.send((i % 2) as usize, &response(spread(i), 0))?;
        }
        empty(&mut guarded)?.load()?;
        Ok(Self(guarded))
    }

    /// Prints all figures.
    ///
    /// # Errors
    ///
    /// When a frame does not end as it should.
    pub fn figures(&mut self) -> anyhow::Result<()> {
        let message = |family: usize, index: u32| {
            let (from, to) = (
                SocketAddr::new(PEER[family], 4000),
                SocketAddr::new(GATEWAY[family], PORT),
            );
            frame(&[], from, to, &data(index))
        };
        let dead = message(0, spread(PEERS + 1));
        self.repeated("shield/dead_index", &dead, DROP)?.print()?;
        let dead_v6 = message(1, spread(PEERS + 1));
        self.repeated("shield/dead_index/v6", &dead_v6, DROP)?
            .print()?;
        self.random("shield/dead_index/random", |i| {
            message(0, spread(PEERS + 1 + i))
        })?
        .print()?;
        let live = message(0, spread(9));
        self.repeated("shield/live_index", &live, PASS)?.print()?;
        let other = ethernet(
            &[],
            GATEWAY[0],
            &ip(PEER[0], GATEWAY[0], number::TCP, &tcp(5, 443, 16)),
        );
        self.repeated("shield/others", &other, PASS)?.print()?;
        self.mpps(&dead)?.print()
    }

    /// One frame, a million times over.
    fn repeated(&mut self, name: &str, frame: &[u8], action: u32) -> anyhow::Result<Figure> {
        let (mut value, mut baseline) = (u64::MAX, u64::MAX);
        for _ in 0..ROUNDS {
            let (ns, found) = run(&*empty(&mut self.0)?, frame, REPEAT)?;
            ensure!(found == PASS, "the empty program ended in {found}");
            baseline = baseline.min(ns);
            let (ns, found) = run(guard(&mut self.0)?, frame, REPEAT)?;
            ensure!(found == action, "{name} ended in {found}");
            value = value.min(ns);
        }
        Ok(Figure::over(name, value as f64, baseline as f64))
    }

    /// Frames that each meet another line of the table, one run each: the median.
    fn random(&mut self, name: &str, frame: impl Fn(u32) -> Vec<u8>) -> anyhow::Result<Figure> {
        let (mut value, mut baseline) = (Vec::new(), Vec::new());
        for i in 0..RANDOM {
            baseline.push(run(&*empty(&mut self.0)?, &frame(i), 1)?.0);
            let (ns, found) = run(guard(&mut self.0)?, &frame(i), 1)?;
            ensure!(found == DROP, "{name} ended in {found}");
            value.push(ns);
        }
        Ok(Figure::over(
            name,
            median(value) as f64,
            median(baseline) as f64,
        ))
    }

    /// Dead frames a second on one core, with the driver's part of receiving them.
    fn mpps(&mut self, frame: &[u8]) -> anyhow::Result<Figure> {
        let mut best = Duration::MAX;
        for _ in 0..ROUNDS {
            let mut options = TestRunOptions::new();
            options.data_in = Some(frame);
            options.repeat = REPEAT;
            options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
            let start = Instant::now();
            guard(&mut self.0)?.test_run(options)?;
            best = best.min(start.elapsed());
        }
        let value = f64::from(REPEAT) / best.as_secs_f64() / 1e6;
        Ok(Figure::new("shield/mpps", "Mpps", value))
    }
}

fn spread(i: u32) -> u32 {
    (i + 1).wrapping_mul(0x9e37_79b1)
}

fn guard(guarded: &mut Guarded) -> anyhow::Result<&Xdp> {
    Ok(guarded
        .shield
        .object()
        .program(names::GUARD)
        .context("no guard")?
        .try_into()?)
}

fn empty(guarded: &mut Guarded) -> anyhow::Result<&mut Xdp> {
    Ok(guarded
        .shield
        .object()
        .program_mut(names::EMPTY)
        .context("no empty program")?
        .try_into()?)
}
