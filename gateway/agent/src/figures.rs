//! The agent's figures for Prometheus: read from the kernel when they are asked for.

use std::time::{Duration, Instant};

use gateway_common::abi::Direction;
use portcullis_metrics::{Labels, Page};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::datapath::{Counter, DatapathError, MapFigures, ProgramFigures};
use crate::engine::Engine;
use crate::interface::Interface;
use crate::shield::ShieldFigures;

/// Requests that may wait.
const WAITING: usize = 4;
/// How long the agent may take to answer; it may be applying a snapshot.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Counting flows reads the whole tables: a few milliseconds each 10 000, on another thread, and
/// this often at most.
const COUNT_EVERY: Duration = Duration::from_secs(30);

/// A way to the figures of a running agent; cheap to clone.
#[derive(Clone, Debug)]
pub struct Figures(mpsc::Sender<Asker>);

/// Somebody who waits for figures.
#[derive(Debug)]
pub(crate) struct Asker(oneshot::Sender<Readings>);

impl Asker {
    pub(crate) fn answer(self, readings: Readings) {
        // Whoever asked may have given up.
        let _ = self.0.send(readings);
    }
}

impl Figures {
    pub(crate) fn channel() -> (Self, mpsc::Receiver<Asker>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Puts all figures on the page; only that the agent is not there, where it does not answer.
    pub async fn collect(&self, page: &mut Page) {
        let begun = Instant::now();
        let (sender, receiver) = oneshot::channel();
        let asked = self.0.try_send(Asker(sender)).is_ok();
        let readings = match asked {
            true => tokio::time::timeout(ANSWER_WITHIN, receiver)
                .await
                .ok()
                .and_then(Result::ok),
            false => None,
        };
        let up = if readings.is_some() { 1.0 } else { 0.0 };
        page.gauge(
            "agent_up",
            "Whether the agent answers",
            [(Labels::new(), up)],
        );
        if let Some(readings) = readings {
            readings.put(page);
        }
        let seconds = begun.elapsed().as_secs_f64();
        page.gauge(
            "agent_scrape_seconds",
            "What reading the agent's figures took",
            [(Labels::new(), seconds)],
        );
    }
}

/// Everything at one moment.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    connected: bool,
    attached: bool,
    revision: u64,
    peers: u64,
    sessions: u64,
    counters: Vec<Counter>,
    lost_events: u64,
    programs: Vec<ProgramFigures>,
    maps: Vec<MapFigures>,
    /// Of the shield, where there is one.
    pub(crate) shield: Option<ShieldFigures>,
}

/// What a count of the flow tables came to.
type Counted = Vec<(&'static str, Option<u64>)>;

/// Reads figures, and remembers those that are costly.
#[derive(Debug, Default)]
pub(crate) struct FlowFigures {
    counted: Counted,
    counting: Option<JoinHandle<Counted>>,
    begun: Option<Instant>,
}

impl FlowFigures {
    /// What is read; what the kernel does not tell is left out.
    pub(crate) fn read(
        &mut self,
        engine: &Engine,
        interface: &Interface,
        connected: bool,
    ) -> Readings {
        self.count(engine);
        let datapath = engine.datapath();
        let mut maps = told(datapath.map_figures());
        for map in &mut maps {
            if let Some((_, entries)) = self.counted.iter().find(|(name, _)| *name == map.name) {
                map.entries = *entries;
            }
        }
        let now = crate::datapath::now();
        let live = |desired: &crate::desired::Desired| {
            let peers = desired
                .peers()
                .filter_map(|(_, peer)| peer.session.as_ref());
            peers.filter(|session| session.deadline > now).count() as u64
        };
        Readings {
            connected,
            attached: engine.is_attached(interface.index()).unwrap_or(false),
            revision: engine.desired().map_or(0, |desired| desired.revision),
            peers: engine
                .desired()
                .map_or(0, |desired| desired.peers().count() as u64),
            sessions: engine.desired().map_or(0, live),
            counters: told(datapath.counters()),
            lost_events: told(datapath.lost_events()),
            programs: told(datapath.program_figures()),
            maps,
            shield: None,
        }
    }

    /// Takes in a count that has ended, and begins another one when it is time.
    fn count(&mut self, engine: &Engine) {
        use futures_util::FutureExt as _;
        if let Some(counting) = &mut self.counting
            && let Some(counted) = counting.now_or_never()
        {
            self.counted = counted.unwrap_or_default();
            self.counting = None;
        }
        let due = self
            .begun
            .is_none_or(|begun| begun.elapsed() >= COUNT_EVERY);
        if self.counting.is_none() && due {
            match engine.datapath().flow_counter() {
                Ok(counter) => {
                    self.begun = Some(Instant::now());
                    self.counting = Some(tokio::task::spawn_blocking(move || counter.count()));
                }
                Err(error) => tracing::debug!("flows are not counted: {error}"),
            }
        }
    }
}

fn told<T: Default>(result: Result<T, DatapathError>) -> T {
    result.unwrap_or_else(|error| {
        tracing::debug!("a figure is missing: {error}");
        T::default()
    })
}

impl Readings {
    fn put(self, page: &mut Page) {
        let one = |value: f64| [(Labels::new(), value)];
        let flag = |value: bool| one(f64::from(u8::from(value)));
        page.gauge(
            "control_connected",
            "Whether the stream to control is open",
            flag(self.connected),
        );
        page.gauge(
            "applied_revision",
            "Revision that was applied last",
            one(self.revision as f64),
        );
        page.gauge(
            "peers",
            "Peers that control wants here",
            one(self.peers as f64),
        );
        page.gauge(
            "peer_sessions",
            "Sessions before their deadline",
            one(self.sessions as f64),
        );
        let packets = self.counters.iter().map(|counter| {
            let direction = match counter.direction {
                Direction::FromPeer => "from_peer",
                Direction::ToPeer => "to_peer",
            };
            let labels = vec![
                ("direction", direction.to_owned()),
                ("reason", counter.reason.name().to_owned()),
            ];
            (labels, counter.packets)
        });
        page.counter("packets", "Packets by direction and reason", packets);
        page.counter(
            "events_lost",
            "Events of single packets that the programs did not send",
            [(Labels::new(), self.lost_events)],
        );
        programs(page, self.attached, &self.programs);
        maps(page, &self.maps);
        if let Some(shield) = self.shield {
            shield.put(page);
        }
    }
}

fn programs(page: &mut Page, attached: bool, programs: &[ProgramFigures]) {
    let labels =
        |program: &ProgramFigures| -> Labels { vec![("program", program.name.to_owned())] };
    let attached = f64::from(u8::from(attached));
    page.gauge(
        "program_attached",
        "Whether the kernel runs the programs on the interface: both, or neither is 1",
        programs.iter().map(|program| (labels(program), attached)),
    );
    page.counter(
        "program_runs",
        "Runs of the program, while the kernel counts them (kernel.bpf_stats_enabled)",
        programs
            .iter()
            .map(|program| (labels(program), program.runs)),
    );
    page.counter(
        "program_run_nanoseconds",
        "Time spent in the program, while the kernel counts it",
        programs
            .iter()
            .map(|program| (labels(program), program.nanoseconds)),
    );
    page.gauge(
        "program_verified_instructions",
        "Instructions that the verifier went through",
        programs
            .iter()
            .map(|program| (labels(program), program.verified_instructions.into())),
    );
}

fn maps(page: &mut Page, maps: &[MapFigures]) {
    let labels = |map: &MapFigures| -> Labels { vec![("map", map.name.to_lowercase())] };
    page.gauge(
        "map_entries",
        "Entries in the map; flow tables keep expired ones until their room is needed",
        maps.iter()
            .filter_map(|map| Some((labels(map), map.entries? as f64))),
    );
    page.gauge(
        "map_entries_max",
        "Entries that fit",
        maps.iter().map(|map| (labels(map), map.most as f64)),
    );
}
