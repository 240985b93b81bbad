//! The wall clock. Sessions do not depend on a gateway's (they end by control's clock, carried over
//! to the monotonic one), certificates and one-time codes do.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Check;

/// 1 January 2026: a clock before this was never set.
const PLAUSIBLE: Duration = Duration::from_secs(1_767_225_600);

/// Where the usual services show that they run, or that they have set the clock.
const SERVICES: [(&str, &str); 4] = [
    (
        "/run/systemd/timesync/synchronized",
        "set by systemd-timesyncd",
    ),
    ("/run/chrony/chronyd.pid", "kept by chrony"),
    ("/run/ntpd.pid", "kept by ntpd"),
    ("/run/openntpd.sock", "kept by openntpd"),
];

pub(super) fn wall_clock() -> Check {
    let name = "clock";
    if SystemTime::now() < SystemTime::UNIX_EPOCH + PLAUSIBLE {
        return Check::bad(
            name,
            "was never set",
            "run a time service (systemd-timesyncd, chrony)",
        );
    }
    match SERVICES.iter().find(|(path, _)| Path::new(path).exists()) {
        Some((_, found)) => Check::good(name, *found),
        None => Check::hint(
            name,
            "plausible, but no time service is seen",
            "run one (systemd-timesyncd, chrony): certificates and one-time codes need the right time",
        ),
    }
}
