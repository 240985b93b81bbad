//! What each pinned map is like, and whether a pinned one is.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya::maps::{MapInfo, MapType};
use gateway_common::{
    abi::{self, names},
    shield,
};

use super::{error::DatapathError, sys, types::Config};

const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_F_MMAPABLE: u32 = 1 << 10;
/// Arrays of any size may stand in the same map of maps (Linux 5.10, commit 4a8f87e60f6d).
const BPF_F_INNER_MAP: u32 = 1 << 12;

/// Shape of one map.
pub(super) struct Spec {
    pub(super) name: &'static str,
    /// A map of maps, which is made before the object is loaded: what each of its maps is like.
    pub(super) inner: Option<sys::Shape>,
    kind: MapType,
    key: usize,
    value: usize,
    entries: Entries,
    flags: u32,
}

enum Entries {
    Fixed(u32),
    Peers,
    /// A peer has addresses of both families, and seldom more than a few of either.
    Addresses,
    Flows,
    /// Flows that need no session: look-ups of names and logins, which are short.
    OpenFlows,
    /// Of the shield's index table: on average a session and a half, in a bucket of seven.
    Buckets,
}

/// Addresses of one family that a peer has room for on average.
const ADDRESSES_PER_PEER: u32 = 2;

/// A map that the loader makes.
const fn spec(
    name: &'static str,
    kind: MapType,
    key: usize,
    value: usize,
    entries: Entries,
    flags: u32,
) -> Spec {
    Spec {
        name,
        inner: None,
        kind,
        key,
        value,
        entries,
        flags,
    }
}

/// One map for each set of policy tables.
const fn sets(name: &'static str, kind: MapType, key: usize, value: usize, flags: u32) -> Spec {
    let inner = sys::Shape {
        kind: kind as u32,
        key: key as u32,
        value: value as u32,
        entries: 1,
        flags,
    };
    let entries = Entries::Fixed(abi::POLICY_SETS);
    Spec {
        name,
        inner: Some(inner),
        kind: MapType::ArrayOfMaps,
        key: 4,
        value: 4,
        entries,
        flags: 0,
    }
}

/// Every map that is pinned. What the object declares is compared with this when it is first loaded.
pub(super) const SPECS: [Spec; 25] = {
    use MapType::{Array, Hash, LpmTrie, LruHash, PerCpuArray, RingBuf};
    use abi::LpmKey;
    const V4: usize = size_of::<abi::AddressV4>();
    const V6: usize = size_of::<abi::AddressV6>();
    const STATE: usize = size_of::<abi::PeerState>();
    const FLOW: usize = size_of::<abi::FlowState>();
    [
        spec(
            names::SETTINGS,
            Array,
            4,
            size_of::<abi::Settings>(),
            Entries::Fixed(1),
            BPF_F_MMAPABLE,
        ),
        spec(
            names::PEERS,
            Array,
            4,
            STATE,
            Entries::Peers,
            BPF_F_MMAPABLE,
        ),
        spec(
            names::PEER_KEYS,
            Array,
            4,
            size_of::<abi::PeerKey>(),
            Entries::Peers,
            BPF_F_MMAPABLE,
        ),
        spec(
            names::PEER_DROPS,
            Array,
            4,
            size_of::<abi::PeerDrops>(),
            Entries::Peers,
            0,
        ),
        spec(names::PEER_V4, Hash, V4, 4, Entries::Addresses, 0),
        spec(names::PEER_V6, Hash, V6, 4, Entries::Addresses, 0),
        spec(
            names::WIDE_V4,
            LpmTrie,
            4 + V4,
            4,
            Entries::Addresses,
            BPF_F_NO_PREALLOC,
        ),
        spec(
            names::WIDE_V6,
            LpmTrie,
            4 + V6,
            4,
            Entries::Addresses,
            BPF_F_NO_PREALLOC,
        ),
        spec(
            names::SERVICES,
            Hash,
            size_of::<abi::ServiceKey>(),
            1,
            Entries::Fixed(1024),
            BPF_F_NO_PREALLOC,
        ),
        spec(
            names::CAPTIVE,
            Hash,
            4,
            size_of::<abi::CaptivePortal>(),
            Entries::Fixed(2),
            BPF_F_NO_PREALLOC,
        ),
        spec(
            names::CAPTIVE_FLOWS,
            LruHash,
            size_of::<abi::CaptiveKey>(),
            V6,
            Entries::Fixed(16_384),
            0,
        ),
        sets(
            names::POLICY_V4,
            LpmTrie,
            size_of::<LpmKey<abi::PolicyPrefix<abi::AddressV4>>>(),
            4,
            BPF_F_NO_PREALLOC,
        ),
        sets(
            names::POLICY_V6,
            LpmTrie,
            size_of::<LpmKey<abi::PolicyPrefix<abi::AddressV6>>>(),
            4,
            BPF_F_NO_PREALLOC,
        ),
        sets(
            names::POLICY_GRANTS,
            Hash,
            size_of::<abi::GrantKey>(),
            size_of::<abi::IntervalList>(),
            0,
        ),
        sets(
            names::POLICY_REGIONS,
            Array,
            4,
            size_of::<abi::Region>(),
            BPF_F_INNER_MAP,
        ),
        sets(
            names::POLICY_INTERVALS,
            Array,
            4,
            size_of::<abi::PortInterval>(),
            BPF_F_INNER_MAP,
        ),
        sets(
            names::POLICY_OUTCOMES,
            Array,
            4,
            size_of::<abi::Outcome>(),
            BPF_F_INNER_MAP,
        ),
        sets(
            names::POLICY_CLASSES,
            Array,
            4,
            size_of::<abi::EffectivePolicy>(),
            BPF_F_INNER_MAP,
        ),
        spec(
            names::FLOWS_V4,
            LruHash,
            size_of::<abi::FlowKeyV4>(),
            FLOW,
            Entries::Flows,
            0,
        ),
        spec(
            names::FLOWS_V6,
            LruHash,
            size_of::<abi::FlowKeyV6>(),
            FLOW,
            Entries::Flows,
            0,
        ),
        spec(
            names::OPEN_FLOWS_V4,
            LruHash,
            size_of::<abi::FlowKeyV4>(),
            FLOW,
            Entries::OpenFlows,
            0,
        ),
        spec(
            names::OPEN_FLOWS_V6,
            LruHash,
            size_of::<abi::FlowKeyV6>(),
            FLOW,
            Entries::OpenFlows,
            0,
        ),
        spec(
            names::FRAGMENTS,
            LruHash,
            size_of::<abi::FragmentKey>(),
            size_of::<abi::FragmentState>(),
            Entries::Fixed(16_384),
            0,
        ),
        spec(
            names::COUNTERS,
            PerCpuArray,
            4,
            8,
            Entries::Fixed(abi::COUNTERS),
            0,
        ),
        spec(names::EVENTS, RingBuf, 0, 0, Entries::Fixed(256 * 1024), 0),
    ]
};

/// The shield's maps.
pub(super) const SHIELD_SPECS: [Spec; 7] = {
    use MapType::{Array, LruHash, PerCpuArray, RingBuf};
    use shield::names;
    const LEARNED: usize = size_of::<shield::LearnedBucket>();
    [
        spec(
            names::SETTINGS,
            Array,
            4,
            size_of::<shield::ShieldSettings>(),
            Entries::Fixed(1),
            0,
        ),
        spec(
            names::INDEXES,
            Array,
            4,
            size_of::<shield::Bucket>(),
            Entries::Buckets,
            BPF_F_MMAPABLE,
        ),
        spec(
            names::LEARNED,
            Array,
            4,
            LEARNED,
            Entries::Buckets,
            BPF_F_MMAPABLE,
        ),
        spec(names::SOURCES, LruHash, 8, 8, Entries::Fixed(65_536), 0),
        spec(names::KNOWN, LruHash, 8, 8, Entries::Fixed(65_536), 0),
        spec(
            names::CPUS,
            PerCpuArray,
            4,
            size_of::<shield::Cpu>(),
            Entries::Fixed(1),
            0,
        ),
        spec(names::EVENTS, RingBuf, 0, 0, Entries::Fixed(64 * 1024), 0),
    ]
};

/// Buckets of the shield's index table: a power of two.
pub(super) fn buckets(config: &Config) -> u32 {
    config.max_peers.clamp(64, 1 << 24).next_power_of_two()
}

impl Spec {
    /// Makes the map of maps, empty; `None` for every other map, which the loader makes.
    pub(super) fn create(&self, config: &Config) -> Result<Option<OwnedFd>, DatapathError> {
        let Some(inner) = self.inner else {
            return Ok(None);
        };
        let error = |source| DatapathError::System {
            call: "BPF_MAP_CREATE",
            target: self.name.into(),
            source,
        };
        let template = sys::create_map(self.name, inner, None).map_err(error)?;
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let shape = sys::Shape {
            kind: self.kind as u32,
            key: size(self.key),
            value: size(self.value),
            entries: self.entries(config),
            flags: self.flags,
        };
        sys::create_map(self.name, shape, Some(template.as_fd()))
            .map(Some)
            .map_err(error)
    }

    /// Entries under this configuration.
    pub(super) fn entries(&self, config: &Config) -> u32 {
        match self.entries {
            Entries::Fixed(entries) => entries,
            Entries::Peers => config.max_peers,
            Entries::Addresses => config.max_peers.saturating_mul(ADDRESSES_PER_PEER),
            Entries::Flows => config.max_flows,
            Entries::OpenFlows => (config.max_flows / 8).max(1024),
            Entries::Buckets => buckets(config),
        }
    }

    /// Whether the pinned map at `path` is of this shape.
    pub(super) fn check(&self, path: &Path, config: &Config) -> Result<(), DatapathError> {
        let map = self.name;
        let info = MapInfo::from_pin(path).map_err(|source| DatapathError::Map { map, source })?;
        let kind = info
            .map_type()
            .map_err(|source| DatapathError::Map { map, source })?;
        let shape = |kind: MapType, key: u32, value: u32, entries: u32, flags: u32| {
            format!("{kind:?} of {entries}, key {key} bytes, value {value} bytes, flags {flags:#x}")
        };
        let found = shape(
            kind,
            info.key_size(),
            info.value_size(),
            info.max_entries(),
            info.map_flags(),
        );
        let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let wanted = shape(
            self.kind,
            size(self.key),
            size(self.value),
            self.entries(config),
            self.flags,
        );
        if found == wanted {
            Ok(())
        } else {
            Err(DatapathError::PinnedMapOfAnotherShape { map, found, wanted })
        }
    }
}
