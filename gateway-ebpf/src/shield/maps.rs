//! The shield's maps, private behind functions that name what they do. Sizes of the large ones are
//! set by the agent when it loads the object.

use core::{arch::asm, ptr};

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_MMAPABLE},
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::map,
    maps::{Array, LruHashMap, PerCpuArray, RingBuf},
};
use gateway_common::shield::{
    Bucket, Cpu, Learned, LearnedBucket, ShieldEvent, ShieldReason, ShieldSettings, Slot,
};

const BUCKETS_DEFAULT: u32 = 64;
const SOURCES_MOST: u32 = 65_536;
const EVENT_BYTES: u32 = 64 * 1024;

#[map]
static SHIELD_SETTINGS: Array<ShieldSettings> = Array::with_max_entries(1, 0);
#[map]
static INDEXES: Array<Bucket> = Array::with_max_entries(BUCKETS_DEFAULT, BPF_F_MMAPABLE);
#[map]
static LEARNED: Array<LearnedBucket> = Array::with_max_entries(BUCKETS_DEFAULT, BPF_F_MMAPABLE);
#[map]
static SOURCES: LruHashMap<u64, u64> = LruHashMap::with_max_entries(SOURCES_MOST, 0);
#[map]
static KNOWN: LruHashMap<u64, u64> = LruHashMap::with_max_entries(SOURCES_MOST, 0);
#[map]
static SHIELD_CPUS: PerCpuArray<Cpu> = PerCpuArray::with_max_entries(1, 0);
#[map]
static SHIELD_EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_BYTES, 0);

/// The maps' clock.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: a helper without arguments (Linux 5.11).
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The settings, to be read in place: few of a frame's paths need all of them.
#[inline(always)]
pub(crate) fn settings() -> Option<&'static ShieldSettings> {
    // SAFETY: an array's element lives as long as the map. Userspace may be writing it: a mixture of
    // old and new is harmless (see the agent's side, which widens before it narrows).
    SHIELD_SETTINGS.get_ptr(0).map(|value| unsafe { &*value })
}

#[inline(always)]
pub(crate) fn bucket(number: u32) -> Option<&'static Bucket> {
    // SAFETY: as above; each word of it is written at once.
    INDEXES.get_ptr(number).map(|value| unsafe { &*value })
}

/// Puts `new` in place of `old`; fails where that has changed since.
#[inline(always)]
pub(crate) fn replace(number: u32, slot: usize, old: Slot, new: Slot) -> bool {
    let Some(bucket) = INDEXES.get_ptr_mut(number) else {
        return false;
    };
    let mut found = old.0;
    // SAFETY: an aligned word of the element, which lives as long as the map. The instruction came with
    // Linux 5.12; Rust's own compare-and-exchange is not there for this target.
    unsafe {
        let word = (*bucket).slots.as_mut_ptr().add(slot);
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new.0,
            inout("r0") found,
            options(nostack),
        );
    }
    found == old.0
}

/// An index found no room in this bucket.
#[inline(always)]
pub(crate) fn overflowed(number: u32, until: u64) {
    if let Some(bucket) = INDEXES.get_ptr_mut(number) {
        // SAFETY: an aligned store of one word.
        unsafe { ptr::write_volatile(&raw mut (*bucket).lenient_until, until) };
    }
}

/// Writes down whose index it is; the slot is the caller's, and the index makes the rest valid.
#[inline(always)]
pub(crate) fn learned(number: u32, slot: usize, value: &Learned) {
    if let Some(bucket) = LEARNED.get_ptr_mut(number) {
        // SAFETY: within the element; userspace compares the index before and after it reads.
        unsafe {
            let learned = (*bucket).slots.as_mut_ptr().add(slot);
            ptr::write_volatile(&raw mut (*learned).index, !value.index);
            ptr::write_volatile(&raw mut (*learned).address, value.address);
            ptr::write_volatile(&raw mut (*learned).port, value.port);
            ptr::write_volatile(&raw mut (*learned).index, value.index);
        }
    }
}

#[inline(always)]
pub(crate) fn source(key: u64) -> u64 {
    // SAFETY: the value may be another source's by now; a budget is no more exact than that.
    SOURCES
        .get_ptr(key)
        .map_or(0, |state| unsafe { ptr::read_volatile(state) })
}

#[inline(always)]
pub(crate) fn set_source(key: u64, state: u64) {
    match SOURCES.get_ptr_mut(key) {
        // SAFETY: as in `source`.
        Some(value) => unsafe { ptr::write_volatile(value, state) },
        None => {
            // Full of others that are just being added: the source counts from its next message.
            let _ = SOURCES.insert(key, state, u64::from(BPF_ANY));
        }
    }
}

#[inline(always)]
pub(crate) fn is_known(key: u64) -> bool {
    KNOWN.get_ptr(key).is_some()
}

#[inline(always)]
pub(crate) fn set_known(key: u64, now: u64) {
    // Without it, the source only has no precedence.
    let _ = KNOWN.insert(key, now, u64::from(BPF_ANY));
}

#[inline(always)]
pub(crate) fn cpu() -> Option<*mut Cpu> {
    SHIELD_CPUS.get_ptr_mut(0)
}

#[inline(always)]
pub(crate) fn count(cpu: *mut Cpu, reason: ShieldReason) {
    // SAFETY: a valid value, this CPU's own; every reason has its counter.
    unsafe { *(*cpu).counters.as_mut_ptr().add(reason as usize) += 1 };
}

#[inline(always)]
pub(crate) fn send(event: &ShieldEvent) {
    // A full buffer loses the event, not the count.
    let _ = SHIELD_EVENTS.output::<ShieldEvent>(event, 0);
}
