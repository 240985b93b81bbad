//! The shield's kernel side as the agent sees it: an XDP program and a learner on the network card,
//! and their maps, pinned apart from the gate's.
//!
//! What the maps hold can be learned again. So where they do not fit, they are replaced by empty ones,
//! and whenever the learner may have missed a handshake, unknown indexes pass until it cannot have.

mod guard;
mod state;

use std::{
    collections::HashSet,
    fmt, io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    sync::atomic::Ordering,
};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, RingBuf},
};
use gateway_common::{
    abi::{AddressV6, Direction},
    clock::SECOND,
    shield::{
        BUCKET_SLOTS, Bucket, Budget, Cpu, LEARNING, LOCAL_MOST, Learned, LearnedBucket,
        ShieldReason, ShieldSettings, Slot, names,
    },
};

use super::{
    clock,
    error::DatapathError,
    hooks::LEARN,
    load::Object,
    pins::Pins,
    shared::Shared,
    specs::{SHIELD_SPECS, buckets},
    sys,
    table::Table,
    types::{Attached, Config},
};

pub use guard::Mode;
pub use state::State;

static OBJECT: Object = Object {
    bytes: aya::include_bytes_aligned!(env!("PORTCULLIS_SHIELD_OBJECT")),
    specs: &SHIELD_SPECS,
    globals: &[],
};

/// Between the learner's start and the settings' being written.
const SLACK: u64 = SECOND;

/// Budgets of handshake initiations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    /// For each IPv4 address or IPv6 /64.
    pub source: Budget,
    /// For all of them, on each CPU that receives.
    pub overall: Budget,
}

/// What the shield is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The network card.
    pub ifindex: u32,
    /// How the guard is to be attached.
    pub mode: Mode,
    /// WireGuard's UDP port.
    pub port: u16,
    /// The machine's own addresses, the likely ones first; more than eight of a family are not shielded.
    pub local: Vec<IpAddr>,
    /// How many initiations may come.
    pub budgets: Budgets,
}

/// What [`Shield::keep`] found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// All was as it should be, or only numbers changed.
    Sound,
    /// A program was attached. It says whether the guard runs in the driver.
    Attached {
        /// Otherwise it is generic XDP.
        native: bool,
    },
}

/// The shield of one WireGuard interface. Dropping it changes nothing in the kernel.
pub struct Shield {
    object: Ebpf,
    guard: u32,
    learn: u32,
    pins: Pins,
    /// The programs of this process are attached.
    started: bool,
    settings: Table<u32, ShieldSettings>,
    current: ShieldSettings,
    indexes: Shared,
    learned: Shared,
    buckets: u32,
    cpus: PerCpuArray<MapData, Cpu>,
    events: Option<RingBuf<MapData>>,
}

impl fmt::Debug for Shield {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shield")
            .field("pins", &self.pins)
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}

impl Shield {
    /// Loads the programs over the maps of an earlier run, or over new ones. Nothing is attached yet.
    ///
    /// # Errors
    ///
    /// When the kernel refuses something.
    pub fn open(config: &Config) -> Result<Self, DatapathError> {
        let pins = Pins::shield(config)?;
        if pins.exist()? {
            match OBJECT
                .adopt(config, &pins)
                .and_then(|object| Self::over(config, object, pins.clone()))
            {
                Ok(shield) => return Ok(shield),
                Err(
                    DatapathError::PinnedMapOfAnotherShape { .. }
                    | DatapathError::PinnedMapMissing { .. },
                ) => Self::teardown(config)?,
                Err(error) => return Err(error),
            }
        }
        let object = OBJECT.begin(config, &pins)?;
        pins.commit()?;
        Self::over(config, object, pins)
    }

    /// Attaches what is not attached, and tells the programs what to watch for. Doing it again changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// When the interface is not there, or the kernel refuses; what is attached then stays.
    pub fn keep(&mut self, wanted: &Wanted) -> Result<Kept, DatapathError> {
        let mut settings = ShieldSettings {
            port: wanted.port,
            source: wanted.budgets.source,
            overall: wanted.budgets.overall,
            ifindex: wanted.ifindex,
            mask: self.buckets - 1,
            learning_until: Some(self.current.learning_until)
                .filter(|&until| until > clock::now())
                .unwrap_or(0),
            flags: self.current.flags,
            ..ShieldSettings::default()
        };
        set_local(&mut settings, &wanted.local);
        let moved = self.current.ifindex != wanted.ifindex;
        if moved {
            self.leave()?;
        }
        // First the learner: what it has seen, the guard need not learn by letting it pass.
        let mut relearn = moved || self.current.port != wanted.port;
        let mut kept = Kept::Sound;
        if !self.started || !LEARN.is_attached(wanted.ifindex, self.learn)? {
            relearn |=
                LEARN.attach(&mut self.object, &self.pins, wanted.ifindex)? == Attached::Afresh;
            kept = Kept::Attached { native: false };
        }
        if relearn {
            settings.learning_until = clock::now() + LEARNING + SLACK;
            // Widens before the rest narrows.
            self.write(ShieldSettings {
                learning_until: settings.learning_until,
                ..self.current
            })?;
        }
        self.write(settings)?;
        if !self.started || !guard::is_attached(&self.pins, wanted.ifindex, self.guard)? {
            let was_native = self.current.flags & ShieldSettings::NATIVE != 0;
            let native = guard::attach(
                &mut self.object,
                &self.pins,
                wanted.ifindex,
                wanted.mode,
                was_native,
            )?;
            self.write(ShieldSettings {
                flags: if native { ShieldSettings::NATIVE } else { 0 },
                ..self.current
            })?;
            kept = Kept::Attached { native };
        }
        if let Kept::Attached { native } = &mut kept {
            *native = self.current.flags & ShieldSettings::NATIVE != 0;
        }
        self.started = true;
        Ok(kept)
    }

    /// Until when unknown indexes pass, in nanoseconds of the maps' clock; 0 when that is over.
    pub fn learning_until(&self) -> u64 {
        self.current.learning_until
    }

    /// Ends the learning: for measurements and tests, which have no live sessions that it may not know.
    #[doc(hidden)]
    pub fn stop_learning(&mut self) -> Result<(), DatapathError> {
        self.write(ShieldSettings {
            learning_until: 0,
            ..self.current
        })
    }

    /// Forgets the indexes whose handshake went to one of these, and returns how many that were.
    pub fn forget(&mut self, endpoints: &HashSet<SocketAddr>) -> usize {
        let wanted: HashSet<_> = endpoints
            .iter()
            .map(|endpoint| {
                (
                    AddressV6::from(endpoint.ip().to_canonical()),
                    endpoint.port(),
                )
            })
            .collect();
        let mut count = 0;
        for bucket in 0..self.buckets {
            for position in 0..BUCKET_SLOTS {
                let word = self.slot(bucket, position);
                let slot = word.load(Ordering::Acquire);
                if slot == 0 {
                    continue;
                }
                let learned = self.learned(bucket, position);
                if learned.index == Slot(slot).index()
                    && wanted.contains(&(learned.address, learned.port))
                    && word
                        .compare_exchange(slot, 0, Ordering::AcqRel, Ordering::Relaxed)
                        .is_ok()
                {
                    count += 1;
                }
            }
        }
        count
    }

    /// Indexes that are live now.
    pub fn live(&self) -> usize {
        let now = clock::now();
        let slots = (0..self.buckets)
            .flat_map(|bucket| (0..BUCKET_SLOTS).map(move |position| (bucket, position)));
        slots
            .filter(|&(bucket, position)| {
                !Slot(self.slot(bucket, position).load(Ordering::Relaxed)).is_free(now)
            })
            .count()
    }

    /// Indexes that the table has room for.
    pub fn room(&self) -> usize {
        self.buckets as usize * BUCKET_SLOTS
    }

    /// What the guard has counted since its maps were made, without the zeros.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn counters(&self) -> Result<Vec<(ShieldReason, u64)>, DatapathError> {
        let cpus = self.cpus.get(&0, 0).map_err(|source| DatapathError::Map {
            map: names::CPUS,
            source,
        })?;
        let count =
            |reason: ShieldReason| cpus.iter().map(|cpu| cpu.counters[reason as usize]).sum();
        Ok(ShieldReason::all()
            .map(|reason| (reason, count(reason)))
            .filter(|&(_, count)| count != 0)
            .collect())
    }

    /// The ring buffer of [`gateway_common::shield::ShieldEvent`]s; `None` when it was taken before.
    pub fn take_events(&mut self) -> Option<RingBuf<MapData>> {
        self.events.take()
    }

    /// The loaded programs, for program test-run.
    #[doc(hidden)]
    pub fn object(&mut self) -> &mut Ebpf {
        &mut self.object
    }

    /// Detaches the programs and removes the pins, those of earlier versions included. Nothing of
    /// WireGuard's depends on them.
    ///
    /// # Errors
    ///
    /// When a filter or a pin could not be removed.
    pub fn teardown(config: &Config) -> Result<(), DatapathError> {
        let pins = Pins::shield(config)?;
        if let Ok(fd) = sys::open_pin(&pins.path(names::SETTINGS)) {
            let settings = Table::<u32, ShieldSettings>::new(names::SETTINGS, fd)
                .get(&0)?
                .unwrap_or_default();
            detach_learner(settings.ifindex)?;
        }
        for pins in pins.of_all_versions()? {
            guard::detach(&pins)?;
            pins.remove()?;
        }
        Ok(())
    }

    fn over(config: &Config, mut object: Ebpf, pins: Pins) -> Result<Self, DatapathError> {
        let open = |name: &'static str| {
            sys::open_pin(&pins.path(name)).map_err(|source| system("BPF_OBJ_GET", name, source))
        };
        let settings = Table::new(names::SETTINGS, open(names::SETTINGS)?);
        let current = settings.get(&0)?.unwrap_or_default();
        let buckets = buckets(config);
        let map = |name: &'static str, stride: usize| {
            Shared::map(open(name)?.as_fd(), buckets, stride)
                .map_err(|source| system("mmap", name, source))
        };
        let indexes = map(names::INDEXES, size_of::<Bucket>())?;
        let learned = map(names::LEARNED, size_of::<LearnedBucket>())?;
        let cpus = object
            .take_map(names::CPUS)
            .and_then(|map| PerCpuArray::try_from(map).ok())
            .ok_or(DatapathError::Object(names::CPUS))?;
        let events = object
            .take_map(names::EVENTS)
            .and_then(|map| RingBuf::try_from(map).ok())
            .ok_or(DatapathError::Object(names::EVENTS))?;
        Ok(Self {
            guard: guard::load(&mut object)?,
            learn: LEARN.load(&mut object)?,
            object,
            pins,
            started: false,
            settings,
            current,
            indexes,
            learned,
            buckets,
            cpus,
            events: Some(events),
        })
    }

    fn write(&mut self, settings: ShieldSettings) -> Result<(), DatapathError> {
        if settings != self.current {
            self.settings.insert(&0, &settings)?;
            self.current = settings;
        }
        Ok(())
    }

    /// Takes the learner off the card that it was on; the links find out by themselves.
    fn leave(&mut self) -> Result<(), DatapathError> {
        detach_learner(self.current.ifindex)
    }

    fn slot(&self, bucket: u32, position: usize) -> &std::sync::atomic::AtomicU64 {
        self.indexes
            .word(bucket, std::mem::offset_of!(Bucket, slots) + position * 8)
    }

    fn learned(&self, bucket: u32, position: usize) -> Learned {
        let at = position * size_of::<Learned>();
        let half = |offset: usize| {
            self.learned
                .half(bucket, at + offset)
                .load(Ordering::Acquire)
        };
        let address = AddressV6([half(0), half(4), half(8), half(12)]);
        let [low, high, ..] = half(std::mem::offset_of!(Learned, port)).to_ne_bytes();
        let index = half(std::mem::offset_of!(Learned, index));
        Learned {
            address,
            index,
            port: u16::from_ne_bytes([low, high]),
            pad: 0,
        }
    }
}

fn set_local(settings: &mut ShieldSettings, local: &[IpAddr]) {
    let v4 = local.iter().filter_map(|address| match address {
        IpAddr::V4(v4) if !v4.is_unspecified() => Some(u32::from_ne_bytes(v4.octets())),
        _ => None,
    });
    for (place, address) in settings.local_v4.iter_mut().zip(v4.take(LOCAL_MOST)) {
        *place = address;
    }
    // A list ends at the first zero word, and no address that a packet comes for begins with one.
    let v6 = local.iter().filter_map(|address| match address {
        IpAddr::V6(v6) => Some(AddressV6::from(*v6)).filter(|address| address.0[0] != 0),
        IpAddr::V4(_) => None,
    });
    for (place, address) in settings.local_v6.iter_mut().zip(v6.take(LOCAL_MOST)) {
        *place = address;
    }
}

/// tcx links go with their pins, or move to the new card by being replaced.
fn detach_learner(ifindex: u32) -> Result<(), DatapathError> {
    match sys::interface_name(ifindex) {
        Some(name) => LEARN.detach_clsact(&name),
        None => Ok(()),
    }
}

fn system(call: &'static str, map: &'static str, source: io::Error) -> DatapathError {
    DatapathError::System {
        call,
        target: format!("map {map}"),
        source,
    }
}

/// The number that stands for the shield where reports count by direction.
pub const REPORTED_AS: u32 = Direction::ALL.len() as u32;
