//! Every map, private behind functions that name what they do. Sizes of the large ones are set by
//! the agent when it loads the object.
#![allow(
    clippy::needless_borrows_for_generic_args,
    reason = "by value, keys and values would be copied to the stack, which has no room for them"
)]

use core::{arch::asm, ptr};

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{
        Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie, ring_buf::RingBufEntry,
    },
};
use gateway_common::{
    abi::{
        self, AddressV4, AddressV6, CaptiveKey, CaptivePortal, Event, EventBudget, FlowKeyV4,
        FlowKeyV6, FlowState, FragmentKey, FragmentState, PeerDrops, PeerKey, PeerState,
        PolicyPrefix, ServiceKey, Settings,
    },
    policy::Climb,
    verdict::Reason,
};

use crate::{
    clock::Tick,
    flows::{COPIES, Copied},
    policy::{RULINGS, Ruling, Set},
};

const PEERS_DEFAULT: u32 = 1024;
const FLOWS_DEFAULT: u32 = 4096;
const FRAGMENTS_MOST: u32 = 16_384;
const SERVICES_MOST: u32 = 1024;
const CAPTIVE_MOST: u32 = 16_384;
const EVENT_BYTES: u32 = 256 * 1024;

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static PEERS: Array<PeerState> = Array::with_max_entries(PEERS_DEFAULT, BPF_F_MMAPABLE);
// Userspace alone reads it: the programs only keep it in the object.
#[map]
static PEER_KEYS: Array<PeerKey> = Array::with_max_entries(PEERS_DEFAULT, BPF_F_MMAPABLE);
#[map]
static PEER_V4: HashMap<AddressV4, u32> = HashMap::with_max_entries(PEERS_DEFAULT, 0);
#[map]
static PEER_V6: HashMap<AddressV6, u32> = HashMap::with_max_entries(PEERS_DEFAULT, 0);
#[map]
static WIDE_V4: LpmTrie<AddressV4, u32> = LpmTrie::with_max_entries(PEERS_DEFAULT, 0);
#[map]
static WIDE_V6: LpmTrie<AddressV6, u32> = LpmTrie::with_max_entries(PEERS_DEFAULT, 0);
#[map]
static SERVICES: HashMap<ServiceKey, u8> =
    HashMap::with_max_entries(SERVICES_MOST, BPF_F_NO_PREALLOC);
// Without preallocation, so that a reader never sees an address that is being overwritten.
#[map]
static CAPTIVE: HashMap<u32, CaptivePortal> = HashMap::with_max_entries(2, BPF_F_NO_PREALLOC);
#[map]
static CAPTIVE_FLOWS: LruHashMap<CaptiveKey, AddressV6> =
    LruHashMap::with_max_entries(CAPTIVE_MOST, 0);
#[map]
static FLOWS_V4: LruHashMap<FlowKeyV4, FlowState> = LruHashMap::with_max_entries(FLOWS_DEFAULT, 0);
#[map]
static FLOWS_V6: LruHashMap<FlowKeyV6, FlowState> = LruHashMap::with_max_entries(FLOWS_DEFAULT, 0);
// Flows that need no session, apart from the others: a peer without one may open as many as it likes.
#[map]
static OPEN_FLOWS_V4: LruHashMap<FlowKeyV4, FlowState> =
    LruHashMap::with_max_entries(FLOWS_DEFAULT, 0);
#[map]
static OPEN_FLOWS_V6: LruHashMap<FlowKeyV6, FlowState> =
    LruHashMap::with_max_entries(FLOWS_DEFAULT, 0);
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentState> =
    LruHashMap::with_max_entries(FRAGMENTS_MOST, 0);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(abi::COUNTERS, 0);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_BYTES, 0);
#[map]
static EVENT_BUDGET: PerCpuArray<EventBudget> = PerCpuArray::with_max_entries(1, 0);
#[map]
static PEER_DROPS: Array<PeerDrops> = Array::with_max_entries(PEERS_DEFAULT, 0);

#[map]
static STORED: Array<u64> = Array::with_max_entries(1, 0);
#[map]
static COPIES_V4: PerCpuArray<Copied<AddressV4>> = PerCpuArray::with_max_entries(COPIES, 0);
#[map]
static COPIES_V6: PerCpuArray<Copied<AddressV6>> = PerCpuArray::with_max_entries(COPIES, 0);
#[map]
static RULINGS_V4: PerCpuArray<Ruling<AddressV4>> = PerCpuArray::with_max_entries(RULINGS, 0);
#[map]
static RULINGS_V6: PerCpuArray<Ruling<AddressV6>> = PerCpuArray::with_max_entries(RULINGS, 0);
#[map]
static TICK: PerCpuArray<Tick> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Arguments of helpers, each used between one look-up of this and the next: the stack, 512 bytes for
/// a program and all that it calls, has no room for them.
#[repr(C)]
pub(crate) struct Scratch {
    flow: FlowState,
    fragment: FragmentState,
    pub(crate) climb: Climb<Set>,
    fragment_key: FragmentKey,
    service: ServiceKey,
    wide_v4: lpm_trie::Key<AddressV4>,
    wide_v6: lpm_trie::Key<AddressV6>,
    pub(crate) prefix_v4: lpm_trie::Key<PolicyPrefix<AddressV4>>,
    pub(crate) prefix_v6: lpm_trie::Key<PolicyPrefix<AddressV6>>,
}

/// This CPU's own; programs do not interrupt each other.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: the look-up returned a valid value, which callers let go of before the next look-up.
    SCRATCH.get_ptr_mut(0).map(|value| unsafe { &mut *value })
}

/// Reads one field of a map value that other CPUs may be writing.
macro_rules! read {
    ($value:expr, $field:ident) => {
        // SAFETY: the look-up returned a valid, aligned value of this type.
        unsafe { ptr::read_volatile(&raw const (*$value).$field) }
    };
}

#[inline(always)]
pub(crate) fn settings() -> Option<Settings> {
    let value = SETTINGS.get_ptr(0)?;
    // SAFETY: as for `read!`; epoch and flags are the first eight bytes, and aligned. One load, so that
    // the parity is never that of another policy.
    let word = unsafe { ptr::read_volatile(value.cast::<u64>()) };
    Some(Settings {
        epoch: word as u32,
        flags: (word >> 32) as u32,
        service_filter: read!(value, service_filter),
        ..Settings::default()
    })
}

/// The fields that decide, incarnation and generation first (see `gateway_common::decide`).
#[inline(always)]
pub(crate) fn peer(index: u32) -> Option<PeerState> {
    let value = PEERS.get_ptr(index)?;
    Some(PeerState {
        incarnation: read!(value, incarnation),
        generation: read!(value, generation),
        deadline: read!(value, deadline),
        idle_timeout: read!(value, idle_timeout),
        last_activity: read!(value, last_activity),
        authenticated_at: read!(value, authenticated_at),
        policy: {
            // SAFETY: as for `read!`; both numbers are one aligned word.
            let both = unsafe { ptr::read_volatile((&raw const (*value).policy).cast::<u64>()) };
            [both as u32, (both >> 32) as u32]
        },
        level: read!(value, level),
        ..PeerState::default()
    })
}

#[inline(always)]
pub(crate) fn touch(index: u32, now: u64) {
    if let Some(value) = PEERS.get_ptr_mut(index) {
        // SAFETY: as for `read!`; an aligned 8-byte store is one store.
        unsafe { ptr::write_volatile(&raw mut (*value).last_activity, now) };
    }
}

/// Whether exactly this address is a peer's.
#[inline(always)]
pub(crate) fn is_peer_v4(address: AddressV4) -> bool {
    PEER_V4.get_ptr(address).is_some()
}

#[inline(always)]
pub(crate) fn peer_v4(settings: &Settings, address: AddressV4) -> Option<u32> {
    if let Some(index) = PEER_V4.get_ptr(address) {
        // SAFETY: as for `read!`. Userspace lets a grace period pass between deleting an element and
        // inserting one, so this is still the address's own.
        return Some(unsafe { ptr::read_volatile(index) });
    }
    if settings.flags & Settings::WIDE_V4 == 0 {
        return None;
    }
    let scratch = scratch()?;
    scratch.wide_v4 = lpm_trie::Key::new(32, address);
    WIDE_V4.get(&scratch.wide_v4).copied()
}

#[inline(always)]
pub(crate) fn peer_v6(settings: &Settings, address: AddressV6) -> Option<u32> {
    if let Some(index) = PEER_V6.get_ptr(address) {
        // SAFETY: as in `peer_v4`.
        return Some(unsafe { ptr::read_volatile(index) });
    }
    if settings.flags & Settings::WIDE_V6 == 0 {
        return None;
    }
    let scratch = scratch()?;
    scratch.wide_v6 = lpm_trie::Key::new(128, address);
    WIDE_V6.get(&scratch.wide_v6).copied()
}

#[inline(always)]
pub(crate) fn is_service(key: &ServiceKey) -> bool {
    scratch().is_some_and(|scratch| {
        scratch.service = *key;
        SERVICES.get_ptr(&scratch.service).is_some()
    })
}

/// Where plain HTTP of this family is led.
#[inline(always)]
pub(crate) fn captive_portal(family: u32) -> Option<CaptivePortal> {
    // SAFETY: the look-up returned a valid value, which is never overwritten.
    CAPTIVE.get_ptr(&family).map(|value| unsafe { *value })
}

/// Where the peer wanted to go. Of a connection that is being forgotten, it may be another's.
#[inline(always)]
pub(crate) fn captive_flow(key: &CaptiveKey) -> Option<AddressV6> {
    // SAFETY: the look-up returned a valid value.
    CAPTIVE_FLOWS.get_ptr(key).map(|value| unsafe { *value })
}

#[inline(always)]
pub(crate) fn store_captive_flow(key: &CaptiveKey, wanted: &AddressV6) -> bool {
    CAPTIVE_FLOWS
        .insert(key, wanted, u64::from(BPF_ANY))
        .is_ok()
}

/// All fields, the check last (see [`FlowState::check`]).
#[inline(always)]
fn read_flow(value: *const FlowState) -> FlowState {
    let mut flow = FlowState {
        check: 0,
        expires: read!(value, expires),
        fresh_until: read!(value, fresh_until),
        peer: read!(value, peer),
        incarnation: read!(value, incarnation),
        generation: read!(value, generation),
        epoch: read!(value, epoch),
        opener: read!(value, opener),
        flags: read!(value, flags),
        level: read!(value, level),
        pad: 0,
        rule: read!(value, rule),
    };
    flow.check = read!(value, check);
    flow
}

#[inline(always)]
pub(crate) fn shared_v4(key: &FlowKeyV4) -> Option<FlowState> {
    FLOWS_V4
        .get_ptr(key)
        .or_else(|| OPEN_FLOWS_V4.get_ptr(key))
        .map(read_flow)
}

#[inline(always)]
pub(crate) fn shared_v6(key: &FlowKeyV6) -> Option<FlowState> {
    FLOWS_V6
        .get_ptr(key)
        .or_else(|| OPEN_FLOWS_V6.get_ptr(key))
        .map(read_flow)
}

#[inline(always)]
pub(crate) fn store_v4(key: &FlowKeyV4, state: &FlowState, flags: u32) -> bool {
    let Some(scratch) = scratch() else {
        return false;
    };
    scratch.flow = *state;
    let flags = u64::from(flags);
    // One that needed a session before stays where it is looked for first.
    if state.flags & FlowState::NO_SESSION != 0 && FLOWS_V4.get_ptr(key).is_none() {
        OPEN_FLOWS_V4.insert(key, &scratch.flow, flags).is_ok()
    } else {
        FLOWS_V4.insert(key, &scratch.flow, flags).is_ok()
    }
}

#[inline(always)]
pub(crate) fn store_v6(key: &FlowKeyV6, state: &FlowState, flags: u32) -> bool {
    let Some(scratch) = scratch() else {
        return false;
    };
    scratch.flow = *state;
    let flags = u64::from(flags);
    // One that needed a session before stays where it is looked for first.
    if state.flags & FlowState::NO_SESSION != 0 && FLOWS_V6.get_ptr(key).is_none() {
        OPEN_FLOWS_V6.insert(key, &scratch.flow, flags).is_ok()
    } else {
        FLOWS_V6.insert(key, &scratch.flow, flags).is_ok()
    }
}

/// How many flows have been stored, by all CPUs, in either table.
#[inline(always)]
pub(crate) fn stored() -> u64 {
    match STORED.get_ptr(0) {
        // SAFETY: as for `read!`.
        Some(value) => unsafe { ptr::read_volatile(value) },
        None => 0,
    }
}

/// Counts a stored flow.
#[inline(always)]
pub(crate) fn count_stored() {
    if let Some(counter) = STORED.get_ptr_mut(0) {
        add_one(counter);
    }
}

/// One atomic addition. By hand, because Rust gives this target, which had no compare-and-swap once,
/// none.
#[inline(always)]
fn add_one(counter: *mut u64) {
    // SAFETY: callers pass a counter in a map's value.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {one}", counter = in(reg) counter, one = in(reg) 1_u64);
    }
}

#[inline(always)]
pub(crate) fn copy_v4(slot: u32) -> Option<*mut Copied<AddressV4>> {
    COPIES_V4.get_ptr_mut(slot)
}

#[inline(always)]
pub(crate) fn copy_v6(slot: u32) -> Option<*mut Copied<AddressV6>> {
    COPIES_V6.get_ptr_mut(slot)
}

#[inline(always)]
pub(crate) fn rulings_v4(place: u32) -> Option<*mut Ruling<AddressV4>> {
    RULINGS_V4.get_ptr_mut(place)
}

#[inline(always)]
pub(crate) fn rulings_v6(place: u32) -> Option<*mut Ruling<AddressV6>> {
    RULINGS_V6.get_ptr_mut(place)
}

#[inline(always)]
pub(crate) fn tick() -> Option<*mut Tick> {
    TICK.get_ptr_mut(0)
}

#[inline(always)]
pub(crate) fn fragment(key: &FragmentKey) -> Option<FragmentState> {
    let scratch = scratch()?;
    scratch.fragment_key = *key;
    let value = FRAGMENTS.get_ptr(&scratch.fragment_key)?;
    let mut state = FragmentState {
        check: 0,
        expires: read!(value, expires),
        peer: read!(value, peer),
        incarnation: read!(value, incarnation),
        peer_port: read!(value, peer_port),
        remote_port: read!(value, remote_port),
        protocol: read!(value, protocol),
        opener: read!(value, opener),
        pad: [0; 2],
    };
    state.check = read!(value, check);
    Some(state)
}

#[inline(always)]
pub(crate) fn store_fragment(key: &FragmentKey, state: &FragmentState) {
    // Without it the later fragments are dropped.
    if let Some(scratch) = scratch() {
        scratch.fragment_key = *key;
        scratch.fragment = *state;
        let _ = FRAGMENTS.insert(&scratch.fragment_key, &scratch.fragment, u64::from(BPF_ANY));
    }
}

#[inline(always)]
pub(crate) fn count(index: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: as for `read!`; the slot is this CPU's own, and programs do not interrupt each other.
        unsafe { *counter += 1 };
    }
}

#[inline(always)]
pub(crate) fn event_budget() -> Option<*mut EventBudget> {
    EVENT_BUDGET.get_ptr_mut(0)
}

/// Counts a dropped packet of a peer. One atomic addition, and only for drops.
#[inline(always)]
pub(crate) fn count_drop(peer: u32, reason: Reason) {
    if let Some(slot) = PeerDrops::slot(reason)
        && let Some(drops) = PEER_DROPS.get_ptr_mut(peer)
    {
        // SAFETY: the slot is one of the value's.
        add_one(unsafe { (&raw mut (*drops).packets).cast::<u64>().add(slot) });
    }
}

/// Marks our own answers; 0 while there is no mark.
#[inline(always)]
pub(crate) fn answer_mark() -> u32 {
    match SETTINGS.get_ptr(0) {
        Some(value) => read!(value, answer_mark),
        None => 0,
    }
}

/// Whether dropped packets are answered.
#[inline(always)]
pub(crate) fn answers() -> bool {
    match SETTINGS.get_ptr(0) {
        Some(value) => read!(value, flags) & Settings::ANSWER != 0,
        None => false,
    }
}

/// Room for one event; `None` when the buffer is full.
#[inline(always)]
pub(crate) fn event() -> Option<RingBufEntry<Event>> {
    EVENTS.reserve::<Event>(0)
}

/// Keeps the maps that only userspace uses in the object.
#[inline(always)]
pub(crate) fn keep() {
    core::hint::black_box(&raw const PEER_KEYS);
}
