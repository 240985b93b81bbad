//! The one clock of the maps: `CLOCK_MONOTONIC`, coarse, in nanoseconds since boot without suspend.
//!
//! The programs read it with `bpf_ktime_get_coarse_ns` (Linux 5.11), userspace with
//! `clock_gettime(CLOCK_MONOTONIC_COARSE)`. Both return the time of the last timer tick, 1 to 10 ms
//! ago, so that neither side ever sees the other's "now" in the future, and reading it costs a
//! packet next to nothing. Setting the wall clock does not move a deadline.

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// Activity is written at most once in a period of 2^26 ns, about 67 ms: a busy peer does not keep
/// a cache line dirty, and an idle timeout is late by no more than that.
pub const ACTIVITY_SHIFT: u32 = 26;

/// Whether activity at `now` is worth writing over the `last` one written.
#[inline(always)]
pub const fn activity_due(last: u64, now: u64) -> bool {
    now > last && now >> ACTIVITY_SHIFT != last >> ACTIVITY_SHIFT
}
