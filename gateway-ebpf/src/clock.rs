//! The maps' clock, cheaply.

use core::ptr;

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns};

use crate::maps;

/// The time that a tick began with.
#[repr(C)]
pub(crate) struct Tick {
    jiffies: u64,
    now: u64,
}

/// Now, in nanoseconds of `gateway_common::clock`.
///
/// The coarse clock moves with the timer tick. So each CPU asks once per tick and remembers: the tick
/// counter is read in place, while the call costs as much as half of everything else that is done
/// for a packet of a known flow. A CPU that asks in the very moment of the tick may be one tick late.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: helpers without arguments (Linux 5.5 and 5.11).
    let jiffies = unsafe { bpf_jiffies64() };
    let Some(tick) = maps::tick() else {
        // SAFETY: as above.
        return unsafe { bpf_ktime_get_coarse_ns() };
    };
    // SAFETY: a valid value, this CPU's own; programs do not interrupt each other.
    unsafe {
        if ptr::read(&raw const (*tick).jiffies) == jiffies {
            return ptr::read(&raw const (*tick).now);
        }
        let now = bpf_ktime_get_coarse_ns();
        ptr::write(tick, Tick { jiffies, now });
        now
    }
}

/// 0, in a way that neither compiler nor verifier knows: the clock's sign bit, everywhere, which stays
/// clear for the next 292 years.
#[inline(always)]
pub(crate) fn nothing(now: u64) -> u32 {
    (now.cast_signed() >> 63).cast_unsigned() as u32
}
