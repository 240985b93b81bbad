//! The programs and their tables by themselves, to ask them about single packets by program
//! test-run: no interface, no peers but one, and nothing that another process could find.

mod ages;

use std::{fmt, mem::offset_of, net::IpAddr, os::fd::AsRawFd as _, path::PathBuf};

use aya::{
    TestRun as _, TestRunOptions,
    maps::{MapData, PerCpuValues, RingBuf},
    util::nr_cpus,
};
use gateway_common::{
    abi::{Direction, Event, EventBudget, Level, PeerState, names},
    clock::SECOND,
    policy::Tables,
    verdict::{Reason, Verdict},
};
use ipnet::IpNet;

use super::{Config, Datapath, DatapathError, clock, hooks::HOOKS, sys};
use ages::Ages;

/// The peer's slot.
const SLOT: u32 = 0;
/// Flows that the tables have room for; each packet is a new one.
const FLOWS: u32 = 4096;
/// Packets after which the programs may tell of as many again: fewer than they tell of in one window.
const BUDGET: u32 = 256;
/// How often a packet is tried again when so much time has passed that its session has grown older.
const ATTEMPTS: u32 = 20;
/// `TC_ACT_UNSPEC` and `TC_ACT_SHOT`.
const PASS: u32 = u32::MAX;
const DROP: u32 = 2;

/// A session in times relative to now, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Assurance of the login.
    pub level: Level,
    /// Since the login.
    pub age: u64,
    /// From login to deadline.
    pub lifetime: u64,
    /// Since the last packet from the peer that passed.
    pub idle: u64,
    /// Longest silence; 0 for no limit.
    pub idle_timeout: u64,
}

/// The first packet of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The peer's, in the tunnel.
    pub address: IpAddr,
    /// Number of its effective policy.
    pub class: u32,
    /// `None` without a session.
    pub session: Option<Terms>,
    /// Which way the packet goes.
    pub direction: Direction,
    /// From its IP header on.
    pub packet: &'a [u8],
}

/// What the programs made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Why it passed or was dropped.
    pub reason: Reason,
    /// Number of the rule that decided, or [`gateway_common::abi::NO_RULE`].
    pub rule: u32,
}

/// Programs that no packet reaches but by [`Self::judge`].
pub struct Trial {
    datapath: Datapath,
    events: RingBuf<MapData>,
    ages: Ages,
    /// What proves the peer.
    address: Option<IpNet>,
    runs: u32,
    policies: u64,
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial")
            .field("datapath", &self.datapath)
            .field("ages", &self.ages)
            .finish_non_exhaustive()
    }
}

impl Trial {
    /// Loads the programs over maps of their own, under a policy that permits nothing. All of it is
    /// gone with this value, or this process.
    ///
    /// # Errors
    ///
    /// Without root, and when the kernel refuses something.
    pub fn open() -> Result<Self, DatapathError> {
        // On no path of any process: it goes with the descriptor, also when this process is killed.
        let bpf_fs = sys::detached_bpf_fs().map_err(|source| DatapathError::System {
            call: "fsmount",
            target: "a private BPF file system (needs root)".into(),
            source,
        })?;
        let config = Config {
            interface: "trial".into(),
            pin_root: PathBuf::from(format!("/proc/self/fd/{}", bpf_fs.as_raw_fd())),
            max_peers: 1,
            max_flows: FLOWS,
        };
        let mut datapath = Datapath::open(&config)?;
        // Every map is open by now, so its pins are done with.
        drop(bpf_fs);
        datapath.set_trace(true)?;
        let events = datapath
            .take_events()
            .ok_or(DatapathError::Object(names::EVENTS))?;
        let nothing = Tables::default();
        let mut trial = Self {
            datapath,
            events,
            ages: Ages::none(),
            address: None,
            runs: 0,
            policies: 0,
        };
        trial.load(&nothing)?;
        Ok(trial)
    }

    /// Makes these tables the policy.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or its clock is too young for the tables' ages.
    pub fn load(&mut self, tables: &Tables) -> Result<(), DatapathError> {
        let ages = Ages::new(tables, room()).ok_or(DatapathError::Trial(
            "this machine was started too lately for a policy with so many different `max_age`",
        ))?;
        let mut tables = tables.clone();
        ages.rewrite(&mut tables);
        self.policies += 1;
        self.datapath
            .switch_policy(Some((self.policies, &tables)), |_| 0)?;
        self.ages = ages;
        Ok(())
    }

    /// Runs the program of the packet's direction.
    ///
    /// # Errors
    ///
    /// When the kernel does not, or the program's word and deed differ.
    pub fn judge(&mut self, case: &Case<'_>) -> Result<Judged, DatapathError> {
        self.prove(case.address)?;
        for _ in 0..ATTEMPTS {
            self.runs = self.runs.wrapping_add(1);
            if self.runs.is_multiple_of(BUDGET) {
                self.renew_budget()?;
            }
            let now = clock::now();
            let state = self.state(case, now);
            self.datapath.state_table.insert(&SLOT, &state)?;
            let action = self.run(case)?;
            let judged = self.told()?;
            let wanted = match judged.reason.verdict() {
                Verdict::Pass => PASS,
                Verdict::Drop => DROP,
            };
            if action != wanted {
                return Err(DatapathError::Trial(
                    "a program did other than it told about a packet",
                ));
            }
            if clock::now().saturating_sub(now) <= self.ages.patience() {
                return Ok(judged);
            }
        }
        Err(DatapathError::Trial(
            "this machine is too busy to run a program in time",
        ))
    }

    /// Lets this address, and no other, prove the peer.
    fn prove(&mut self, address: IpAddr) -> Result<(), DatapathError> {
        let address = IpNet::from(address);
        if self.address == Some(address) {
            return Ok(());
        }
        if let Some(old) = self.address.take() {
            self.datapath.addresses.remove_idle(&old)?;
        }
        self.datapath.addresses.insert(&address, SLOT)?;
        self.address = Some(address);
        Ok(())
    }

    /// The peer's, in a new incarnation: no flow of an earlier packet counts.
    fn state(&self, case: &Case<'_>, now: u64) -> PeerState {
        let state = PeerState {
            incarnation: self.runs,
            generation: self.runs,
            policy: [case.class; 2],
            ..PeerState::default()
        };
        let Some(terms) = case.session else {
            return state;
        };
        let left = terms.lifetime.saturating_sub(terms.age);
        // A silence from before the clock began, and what is permitted, are shortened by the same.
        let idle = terms.idle.min(room());
        let idle_timeout = match terms.idle_timeout {
            0 => 0,
            timeout => timeout.saturating_sub(terms.idle - idle).max(1),
        };
        PeerState {
            deadline: if left == 0 {
                1
            } else {
                now.saturating_add(left)
            },
            idle_timeout,
            last_activity: now.saturating_sub(idle),
            authenticated_at: now.saturating_sub(self.ages.of(terms.age)).max(1),
            level: terms.level as u8,
            tag: 1,
            ..state
        }
    }

    fn run(&mut self, case: &Case<'_>) -> Result<u32, DatapathError> {
        let hook = HOOKS[case.direction as usize];
        let mut options = TestRunOptions::new();
        options.data_in = Some(case.packet);
        let result = hook
            .program(&mut self.datapath.object)?
            .test_run(options)
            .map_err(|source| hook.error("run", source))?;
        Ok(result.return_value)
    }

    /// The one event of a run.
    fn told(&mut self) -> Result<Judged, DatapathError> {
        let mut told = None;
        let mut count = 0;
        while let Some(item) = self.events.next() {
            told = judged(&item);
            count += 1;
        }
        told.filter(|_| count == 1).ok_or(DatapathError::Trial(
            "a program did not tell once about a packet",
        ))
    }

    fn renew_budget(&mut self) -> Result<(), DatapathError> {
        let error = |source| DatapathError::Map {
            map: names::EVENT_BUDGET,
            source,
        };
        let cpus = nr_cpus().map_err(|(_, source)| error(source.into()))?;
        let values = PerCpuValues::try_from(vec![EventBudget::default(); cpus])
            .map_err(|source| error(source.into()))?;
        self.datapath.budgets.set(0, values, 0).map_err(error)
    }
}

/// How long ago something may have happened that the clock can tell.
fn room() -> u64 {
    clock::now().saturating_sub(SECOND / 10)
}

/// What an event says.
fn judged(event: &[u8]) -> Option<Judged> {
    let at = offset_of!(Event, rule);
    Some(Judged {
        reason: Reason::from_number(*event.get(offset_of!(Event, reason))?)?,
        rule: u32::from_ne_bytes(event.get(at..at + 4)?.try_into().ok()?),
    })
}
