//! Userspace's side of the maps' clock.

/// Now on [`gateway_common::clock`], in nanoseconds.
pub fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure outlives the call. The clock exists since Linux 2.6.32, so it cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    // Neither is ever negative on a monotonic clock.
    time.tv_sec.unsigned_abs() * gateway_common::clock::SECOND + time.tv_nsec.unsigned_abs()
}
