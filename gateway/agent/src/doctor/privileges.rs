//! What the process has to be allowed.

use std::fs;

use super::Check;

/// Numbers of capability.h.
const NEEDED: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (39, "CAP_BPF")];
const SYS_ADMIN: u32 = 21;
const SYS_RESOURCE: u32 = 24;

pub(super) fn capabilities() -> Check {
    let name = "capabilities";
    let Some(effective) = effective() else {
        return Check::bad(name, "unknown", "mount /proc, so that they can be read");
    };
    let has = |number: u32| effective & (1 << number) != 0;
    let missing: Vec<_> = NEEDED
        .iter()
        // Before CAP_BPF there was CAP_SYS_ADMIN, which still includes it.
        .filter(|(number, _)| !(has(*number) || *number == 39 && has(SYS_ADMIN)))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        Check::good(name, "sufficient")
    } else {
        let advice = "run the agent as root, or by its systemd unit, which grants them";
        Check::bad(name, format!("missing: {}", missing.join(", ")), advice)
    }
}

/// Since Linux 5.11 maps are accounted to the memory cgroup, not to this limit.
pub(super) fn locked_memory() -> Check {
    let name = "locked-memory";
    let limit = fs::read_to_string("/proc/self/limits")
        .ok()
        .and_then(|text| {
            let line = text
                .lines()
                .find(|line| line.starts_with("Max locked memory"))?;
            line.split_whitespace().nth(3).map(str::to_owned)
        });
    let limit = limit.unwrap_or_else(|| "unknown".into());
    let raisable = effective().is_some_and(|set| set & (1 << SYS_RESOURCE) != 0);
    if limit == "unlimited" || raisable {
        Check::good(name, format!("limit {limit}"))
    } else {
        Check::good(
            name,
            format!("limit {limit} (maps are accounted to the memory cgroup instead)"),
        )
    }
}

fn effective() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}
