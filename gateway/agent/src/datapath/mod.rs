//! The kernel side as the agent sees it: loaded programs, pinned maps, and the order in which they
//! are written.
//!
//! # What holds at every instant, also when this process is killed between two writes
//!
//! 1. A packet is dropped unless its tunnel address leads to a slot with a live session, or it goes
//!    to a service. An address is the last thing that is written for a new peer and, after the lock,
//!    the first that is taken away; a new slot starts locked.
//! 2. A flow is good for one incarnation of one slot. Whenever an address stops proving a peer (it is
//!    removed, or another peer takes it or a part of it), the order is: mark the slot, take the
//!    mapping away, wait until no program can still be acting on it, raise the incarnation, clear
//!    the mark, and only then let the address prove someone else. A start that finds a mark raises
//!    the incarnation first. No flow outlives the mapping that it was opened under.
//! 3. A session changes by narrowing, then widening (see `session`).
//! 4. A slot is free when its key is all zero. The key is written after the slot was made a locked
//!    one of a new incarnation, and erased after the last address is gone. A peer with a key and
//!    without addresses is harmless: the next reconcile finds it.
//! 5. Services and the epoch: a service is deleted before the epoch moves, so that no verdict of the
//!    new epoch was made with it. A start moves the epoch, in case an earlier run ended in between.
#![expect(
    unsafe_code,
    reason = "bpf(2), memory-mapped maps and netlink, in sys, shared, clock and filters"
)]

mod addresses;
mod clock;
mod error;
mod filters;
mod hooks;
mod load;
mod observe;
mod order;
mod peers;
mod pins;
mod policy;
mod services;
mod session;
mod settings;
mod shared;
mod shield;
mod slots;
mod specs;
mod sys;
mod table;
mod trial;
mod types;

use std::{
    fmt,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use aya::{
    Ebpf, Pod,
    maps::{MapData, PerCpuArray, RingBuf},
};
use gateway_common::{
    abi::{
        CaptivePortal, Direction, EventBudget, PeerDrops, PeerKey, PeerState, ServiceKey, Settings,
        counter_index, names,
    },
    verdict::Reason,
};

pub use clock::now;
pub use error::DatapathError;
pub use observe::{FlowCounter, MapFigures, PeerSnapshot, ProgramFigures};
pub use shield::{
    Budgets as ShieldBudgets, Kept as ShieldKept, Mode as ShieldMode,
    REPORTED_AS as SHIELD_REPORTED_AS, Shield, State as ShieldState, Wanted as ShieldWanted,
};
pub use trial::{Case, Judged, Terms, Trial};
pub use types::{Attached, Config, Counter, PeerView, PublicKey, Service, SessionGrant};

use addresses::Addresses;
use hooks::HOOKS;
use load::Object;
use order::Order;
use pins::Pins;
use policy::Sets;
use session::States;
use shared::Shared;
use slots::Slots;
use specs::SPECS;
use table::Table;

/// The compiled programs, part of this binary.
static OBJECT: Object = Object {
    bytes: aya::include_bytes_aligned!(env!("PORTCULLIS_BPF_OBJECT")),
    specs: &SPECS,
    globals: &[],
};

/// The same for Ethernet, where throughput is measured.
static OBJECT_ON_ETHERNET: Object = Object {
    globals: &[(names::LINK_HEADER, 14)],
    ..OBJECT
};

/// The datapath of one WireGuard interface.
///
/// Dropping it changes nothing in the kernel: what is attached stays, and enforces.
pub struct Datapath {
    object: Ebpf,
    /// Kernel ids of the programs, in the order of the hooks.
    programs: [u32; 2],
    pins: Pins,
    adopted: bool,
    settings: Table<u32, Settings>,
    settings_words: Shared,
    sets: Sets,
    order: Order,
    /// Id of the policy that holds, and since when at the latest; `None` where that is not known.
    judged: Option<(u64, u64)>,
    services: Table<ServiceKey, u8>,
    captive: Table<u32, CaptivePortal>,
    addresses: Addresses,
    states: States,
    keys: Shared,
    state_table: Table<u32, PeerState>,
    key_table: Table<u32, PeerKey>,
    counters: PerCpuArray<MapData, u64>,
    budgets: PerCpuArray<MapData, EventBudget>,
    drops: Table<u32, PeerDrops>,
    events: Option<RingBuf<MapData>>,
    slots: Slots,
    max_peers: u32,
    config: Config,
}

impl fmt::Debug for Datapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datapath")
            .field("pins", &self.pins)
            .field("adopted", &self.adopted)
            .finish_non_exhaustive()
    }
}

impl Datapath {
    /// Loads the programs over the interface's pinned maps, or over new ones that it pins. Nothing is
    /// attached yet, and what an earlier run attached goes on enforcing.
    ///
    /// # Errors
    ///
    /// When pinned maps are of another shape than this version and `config` ask for
    /// ([`DatapathError::PinnedMapOfAnotherShape`]), or the kernel refuses something.
    pub fn open(config: &Config) -> Result<Self, DatapathError> {
        Self::open_object(&OBJECT, config)
    }

    /// As [`Datapath::open`], for an interface with Ethernet headers: only measurements want one.
    #[doc(hidden)]
    pub fn open_on_ethernet(config: &Config) -> Result<Self, DatapathError> {
        Self::open_object(&OBJECT_ON_ETHERNET, config)
    }

    fn open_object(object: &Object, config: &Config) -> Result<Self, DatapathError> {
        let pins = Pins::new(config)?;
        let adopted = pins.exist()?;
        let mut object = if adopted {
            object.adopt(config, &pins)?
        } else {
            object.begin(config, &pins)?
        };
        let mut programs = [0; 2];
        for (id, hook) in programs.iter_mut().zip(HOOKS) {
            *id = hook.load(&mut object)?;
        }
        if !adopted {
            pins.commit()?;
        }
        Self::over(config, object, programs, pins, adopted)
    }

    /// Whether maps of an earlier run were taken over.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Attaches both programs to the interface, or replaces earlier versions of them without a gap.
    /// Doing it again changes nothing. The kernel is asked afterwards whether it runs them there,
    /// before any other program.
    ///
    /// # Errors
    ///
    /// When the interface is not there, the kernel refuses or does not do as it was told, or the
    /// programs are attached to another live interface ([`DatapathError::AttachedElsewhere`]). The
    /// interface must then be down.
    pub fn attach(&mut self, ifindex: u32) -> Result<Attached, DatapathError> {
        let mut all = Attached::Replaced;
        for hook in HOOKS {
            if hook.attach(&mut self.object, &self.pins, ifindex)? == Attached::Afresh {
                all = Attached::Afresh;
            }
        }
        for (hook, id) in HOOKS.into_iter().zip(self.programs) {
            hook.verify(ifindex, id)?;
        }
        Ok(all)
    }

    /// Asks the kernel whether an earlier run's programs, over these maps, are on both hooks of this
    /// interface, before any other: such an interface is enforced already.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn holds(&self, ifindex: u32) -> Result<bool, DatapathError> {
        for hook in HOOKS {
            if !hook.holds(&self.pins, ifindex)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Asks the kernel whether it runs both programs on this interface, before any other.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn is_attached(&self, ifindex: u32) -> Result<bool, DatapathError> {
        for (hook, id) in HOOKS.into_iter().zip(self.programs) {
            if !hook.is_attached(ifindex, id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What the programs have counted since the maps were made, without the zeros.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn counters(&self) -> Result<Vec<Counter>, DatapathError> {
        let mut all = Vec::new();
        for direction in Direction::ALL {
            for &reason in Reason::ALL {
                let values = self
                    .counters
                    .get(&counter_index(direction, reason), 0)
                    .map_err(|source| DatapathError::Map {
                        map: names::COUNTERS,
                        source,
                    })?;
                let packets = values.iter().sum();
                if packets != 0 {
                    all.push(Counter {
                        reason,
                        direction,
                        packets,
                    });
                }
            }
        }
        Ok(all)
    }

    /// The ring buffer of [`gateway_common::abi::Event`]s; `None` when it was taken before.
    pub fn take_events(&mut self) -> Option<RingBuf<MapData>> {
        self.events.take()
    }

    /// How often a change of a peer had to wait for programs that were running: what tests count.
    #[doc(hidden)]
    pub fn waits(&self) -> u64 {
        self.order.waits()
    }

    /// The loaded programs, for program test-run.
    #[doc(hidden)]
    pub fn object(&mut self) -> &mut Ebpf {
        &mut self.object
    }

    /// Where everything of this configuration's interface is pinned.
    ///
    /// # Errors
    ///
    /// When this thread's network namespace, a part of the path, cannot be told.
    pub fn pin_directory(config: &Config) -> Result<PathBuf, DatapathError> {
        Ok(Pins::new(config)?.dir().to_owned())
    }

    /// Detaches the programs and removes every pin of the interface, those of earlier versions
    /// included. The interface must be down or gone: afterwards nothing is enforced on it.
    ///
    /// # Errors
    ///
    /// When the programs are on another interface that is alive, which would be open without them
    /// (nothing has been changed then), or a filter or a pin could not be removed.
    pub fn teardown(config: &Config) -> Result<(), DatapathError> {
        let all = Pins::new(config)?.of_all_versions()?;
        let ifindex = sys::interface_index(&config.interface);
        for (pins, hook) in all.iter().flat_map(|pins| HOOKS.map(|hook| (pins, hook))) {
            hook.refuse_elsewhere(pins, &config.interface, ifindex)?;
        }
        for hook in HOOKS {
            hook.detach_clsact(&config.interface)?;
        }
        all.iter().try_for_each(Pins::remove)
    }

    fn over(
        config: &Config,
        mut object: Ebpf,
        programs: [u32; 2],
        pins: Pins,
        adopted: bool,
    ) -> Result<Self, DatapathError> {
        let state_table = table::<u32, PeerState>(&pins, names::PEERS)?;
        let key_table = table::<u32, PeerKey>(&pins, names::PEER_KEYS)?;
        let states = shared(
            &state_table,
            names::PEERS,
            config.max_peers,
            size_of::<PeerState>(),
        )?;
        let keys = shared(
            &key_table,
            names::PEER_KEYS,
            config.max_peers,
            size_of::<PeerKey>(),
        )?;
        let counters = object
            .take_map(names::COUNTERS)
            .and_then(|map| PerCpuArray::try_from(map).ok())
            .ok_or(DatapathError::Object(names::COUNTERS))?;
        let events = object
            .take_map(names::EVENTS)
            .and_then(|map| RingBuf::try_from(map).ok())
            .ok_or(DatapathError::Object(names::EVENTS))?;
        let budgets = object
            .take_map(names::EVENT_BUDGET)
            .and_then(|map| PerCpuArray::try_from(map).ok())
            .ok_or(DatapathError::Object(names::EVENT_BUDGET))?;
        let settings = table::<u32, Settings>(&pins, names::SETTINGS)?;
        let settings_words = shared(&settings, names::SETTINGS, 1, size_of::<Settings>())?;
        let addresses = Addresses::new(
            table(&pins, names::PEER_V4)?,
            table(&pins, names::PEER_V6)?,
            table(&pins, names::WIDE_V4)?,
            table(&pins, names::WIDE_V6)?,
        );
        let mut datapath = Self {
            object,
            programs,
            adopted,
            settings,
            settings_words,
            sets: Sets::open(&pins)?,
            order: Order::new(adopted, sys::grace_period),
            judged: None,
            services: table(&pins, names::SERVICES)?,
            captive: table(&pins, names::CAPTIVE)?,
            addresses,
            states: States(states),
            keys,
            state_table,
            key_table,
            counters,
            budgets,
            drops: table(&pins, names::PEER_DROPS)?,
            events: Some(events),
            slots: Slots::from_kernel(config.max_peers, [], 0),
            max_peers: config.max_peers,
            config: config.clone(),
            pins,
        };
        if adopted {
            datapath.adopt_peers()?;
        }
        datapath.judged = Some((datapath.policy_id()?, now()));
        Ok(datapath)
    }
}

fn open_pin(pins: &Pins, name: &'static str) -> Result<OwnedFd, DatapathError> {
    sys::open_pin(&pins.path(name)).map_err(|source| DatapathError::System {
        call: "BPF_OBJ_GET",
        target: format!("map {name}"),
        source,
    })
}

fn table<K: Pod + Default, V: Pod + Default>(
    pins: &Pins,
    name: &'static str,
) -> Result<Table<K, V>, DatapathError> {
    Ok(Table::new(name, open_pin(pins, name)?))
}

fn shared<K: Pod + Default, V: Pod + Default>(
    table: &Table<K, V>,
    name: &'static str,
    entries: u32,
    stride: usize,
) -> Result<Shared, DatapathError> {
    Shared::map(table.fd().as_fd(), entries, stride).map_err(|source| DatapathError::System {
        call: "mmap",
        target: format!("map {name}"),
        source,
    })
}
