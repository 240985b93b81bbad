//! What the datapath tells about itself and about single peers, and what it is told to tell.

use aya::programs::{ProgramError, SchedClassifier};
use gateway_common::{
    abi::{PeerDrops, PeerState, ServiceKey, Settings, names},
    verdict::Reason,
};

use super::{Datapath, DatapathError, PublicKey, hooks::HOOKS, specs::SPECS, sys};

/// One peer and the interface as the kernel holds them, for an explanation.
#[derive(Clone, Debug)]
pub struct PeerSnapshot {
    /// Of the interface.
    pub settings: Settings,
    /// Of the peer.
    pub state: PeerState,
    /// What is reachable before login.
    pub services: Vec<ServiceKey>,
}

/// A program in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramFigures {
    /// Its name.
    pub name: &'static str,
    /// Runs and nanoseconds, since it was loaded; zero unless the kernel counts them
    /// (`sysctl kernel.bpf_stats_enabled=1`).
    pub runs: u64,
    /// Likewise.
    pub nanoseconds: u64,
    /// Instructions that the verifier went through (Linux 5.16).
    pub verified_instructions: u32,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapFigures {
    /// Its name.
    pub name: &'static str,
    /// Elements in it; `None` where counting them would cost too much.
    pub entries: Option<u64>,
    /// Most elements that fit.
    pub most: u64,
}

impl Datapath {
    /// Whether senders of dropped openers are told. The first time, chooses the mark that the
    /// programs know their own answers by.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, or has no random numbers.
    pub fn set_answers(&mut self, on: bool) -> Result<(), DatapathError> {
        let mark = if on { random_mark()? } else { 0 };
        self.change_settings(|settings| {
            if on && settings.answer_mark == 0 {
                settings.answer_mark = mark;
            }
            settings.flags = with_flag(settings.flags, Settings::ANSWER, on);
        })
    }

    /// Whether the programs tell of flows that are opened, and of more drops than usual.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_trace(&mut self, on: bool) -> Result<(), DatapathError> {
        self.change_settings(|settings| {
            settings.flags = with_flag(settings.flags, Settings::TRACE, on)
        })
    }

    /// Events that the programs have not sent since they were loaded: too many of them, or the
    /// buffer was full.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn lost_events(&self) -> Result<u64, DatapathError> {
        let map = names::EVENT_BUDGET;
        let budgets = self
            .budgets
            .get(&0, 0)
            .map_err(|source| DatapathError::Map { map, source })?;
        Ok(budgets.iter().map(|budget| budget.lost).sum())
    }

    /// Packets of the peer that its session or a rule did not permit, without the zeros.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn peer_drops(&self, key: &PublicKey) -> Result<Vec<(Reason, u64)>, DatapathError> {
        let Some(slot) = self.slots.get(key) else {
            return Ok(Vec::new());
        };
        let drops = self.drops.get(&slot.index)?.unwrap_or_default();
        let all = PeerDrops::REASONS.into_iter().zip(drops.packets);
        Ok(all.filter(|(_, packets)| *packets != 0).collect())
    }

    /// Whose index this was at that time; `None` where that is not certain, as it may have been
    /// another's.
    pub fn key_at(&self, index: u32, time: u64) -> Option<&PublicKey> {
        self.slots.key_at(index, time)
    }

    /// The peer as the kernel holds it, with all that its packets are judged by except rules.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn snapshot(&self, key: &PublicKey) -> Result<Option<PeerSnapshot>, DatapathError> {
        let Some(slot) = self.slots.get(key) else {
            return Ok(None);
        };
        let Some(state) = self.state_table.get(&slot.index)? else {
            return Ok(None);
        };
        let settings = self.settings()?;
        let services = self
            .services
            .dump()?
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        Ok(Some(PeerSnapshot {
            settings,
            state,
            services,
        }))
    }

    /// What the kernel knows of both programs.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn program_figures(&self) -> Result<Vec<ProgramFigures>, DatapathError> {
        let mut all = Vec::new();
        for hook in HOOKS {
            let name = hook.name();
            let error = |source: ProgramError| DatapathError::Program {
                action: "ask about",
                program: name,
                source,
            };
            let program = self
                .object
                .program(name)
                .ok_or(DatapathError::Object(name))?;
            let program: &SchedClassifier = program.try_into().map_err(error)?;
            let info = program.info().map_err(error)?;
            all.push(ProgramFigures {
                name,
                runs: info.run_count(),
                nanoseconds: u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX),
                verified_instructions: info.verified_instruction_count().unwrap_or(0),
            });
        }
        Ok(all)
    }

    /// How full the maps are, as far as that is known without walking through them.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn map_figures(&self) -> Result<Vec<MapFigures>, DatapathError> {
        let config = &self.config;
        let peers = self.slots.iter().len() as u64;
        let of = |v4: bool, wide: bool| {
            let addresses = self.slots.iter().flat_map(|(_, slot)| &slot.addresses);
            let chosen = addresses.filter(|address| {
                address.addr().is_ipv4() == v4 && super::addresses::is_wide(address) == wide
            });
            chosen.count() as u64
        };
        let services = self.services.dump()?.len() as u64;
        let entries = |name| match name {
            names::PEERS => Some(peers),
            names::PEER_V4 => Some(of(true, false)),
            names::PEER_V6 => Some(of(false, false)),
            names::WIDE_V4 => Some(of(true, true)),
            names::WIDE_V6 => Some(of(false, true)),
            names::SERVICES => Some(services),
            _ => None,
        };
        let told = [
            names::PEERS,
            names::PEER_V4,
            names::PEER_V6,
            names::WIDE_V4,
            names::WIDE_V6,
            names::SERVICES,
            names::FLOWS_V4,
            names::FLOWS_V6,
            names::OPEN_FLOWS_V4,
            names::OPEN_FLOWS_V6,
            names::FRAGMENTS,
        ];
        let specs = SPECS.iter().filter(|spec| told.contains(&spec.name));
        Ok(specs
            .map(|spec| MapFigures {
                name: spec.name,
                entries: entries(spec.name),
                most: spec.entries(config).into(),
            })
            .collect())
    }

    /// Counts the elements of the maps that the programs fill. May be sent to another thread: with
    /// many flows it takes a while.
    ///
    /// # Errors
    ///
    /// When the maps cannot be opened.
    pub fn flow_counter(&self) -> Result<FlowCounter, DatapathError> {
        let open = |name| Ok::<_, DatapathError>((name, super::open_pin(&self.pins, name)?));
        Ok(FlowCounter([
            open(names::FLOWS_V4)?,
            open(names::FLOWS_V6)?,
            open(names::OPEN_FLOWS_V4)?,
            open(names::OPEN_FLOWS_V6)?,
            open(names::FRAGMENTS)?,
        ]))
    }
}

/// The maps that the programs fill.
#[derive(Debug)]
pub struct FlowCounter([(&'static str, std::os::fd::OwnedFd); 5]);

impl FlowCounter {
    /// Elements of each, by name; expired ones that nothing has displaced yet are among them.
    pub fn count(&self) -> Vec<(&'static str, Option<u64>)> {
        use std::os::fd::AsFd as _;
        let count = |name, fd: &std::os::fd::OwnedFd| match name {
            names::FLOWS_V4 | names::OPEN_FLOWS_V4 => sys::count::<KEY_V4, VALUE_FLOW>(fd.as_fd()),
            names::FLOWS_V6 | names::OPEN_FLOWS_V6 => sys::count::<KEY_V6, VALUE_FLOW>(fd.as_fd()),
            _ => sys::count::<KEY_FRAGMENT, VALUE_FRAGMENT>(fd.as_fd()),
        };
        self.0
            .iter()
            .map(|(name, fd)| (*name, count(*name, fd).ok()))
            .collect()
    }
}

const KEY_V4: usize = size_of::<gateway_common::abi::FlowKeyV4>();
const KEY_V6: usize = size_of::<gateway_common::abi::FlowKeyV6>();
const KEY_FRAGMENT: usize = size_of::<gateway_common::abi::FragmentKey>();
const VALUE_FLOW: usize = size_of::<gateway_common::abi::FlowState>();
const VALUE_FRAGMENT: usize = size_of::<gateway_common::abi::FragmentState>();

const fn with_flag(flags: u32, flag: u32, on: bool) -> u32 {
    if on { flags | flag } else { flags & !flag }
}

/// Not 0, and not easily guessed.
fn random_mark() -> Result<u32, DatapathError> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(|error| DatapathError::System {
        call: "getrandom",
        target: "the mark of answers".into(),
        source: std::io::Error::other(error),
    })?;
    Ok(u32::from_ne_bytes(bytes).max(1))
}
