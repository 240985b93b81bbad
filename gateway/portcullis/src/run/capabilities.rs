//! What the kernel must allow before the agent starts: better one clear sentence now than a
//! refused system call in the middle.

use std::fs;

use anyhow::{Context as _, Result, bail};

/// Bits of capabilities(7).
const NET_ADMIN: (u32, &str) = (12, "CAP_NET_ADMIN");
const PERFMON: (u32, &str) = (38, "CAP_PERFMON");
const BPF: (u32, &str) = (39, "CAP_BPF");
/// Stands for CAP_BPF and CAP_PERFMON (Linux 5.8 split them off).
const SYS_ADMIN: u32 = 21;

/// What this process may not do.
#[derive(Debug, thiserror::Error)]
#[error("this needs {0}: run it as root, or grant it, as deploy/portcullis-connect@.service does")]
pub(crate) struct Missing(&'static str);

/// A client configures WireGuard.
pub(crate) fn require_for_client() -> Result<()> {
    let missing = missing(of_this_process()?);
    if missing.contains(&NET_ADMIN.1) {
        bail!(Missing(NET_ADMIN.1));
    }
    Ok(())
}

/// The agent configures WireGuard and loads eBPF programs.
pub(super) fn require_for_agent() -> Result<()> {
    let missing = missing(of_this_process()?);
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "the agent lacks {}: run it as root, or grant these with AmbientCapabilities= as in deploy/portcullis-agent.service; \
         `portcullis doctor` checks the rest",
        missing.join(", ")
    )
}

fn of_this_process() -> Result<u64> {
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    effective(&status).context("/proc/self/status names no effective capabilities")
}

fn effective(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing(effective: u64) -> Vec<&'static str> {
    let has = |bit: u32| effective & (1 << bit) != 0;
    let stand_in = |bit: u32| bit != NET_ADMIN.0 && has(SYS_ADMIN);
    [NET_ADMIN, PERFMON, BPF]
        .into_iter()
        .filter(|&(bit, _)| !(has(bit) || stand_in(bit)))
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        let all = effective("Name:\tportcullis\nCapEff:\t000001ffffffffff\n").unwrap();
        assert!(missing(all).is_empty());
        assert_eq!(missing(0), ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
        assert_eq!(missing(all & !(1 << 12)), ["CAP_NET_ADMIN"]);
        assert!(missing(1 << 12 | 1 << 21).is_empty());
        assert_eq!(effective("CapEff: none"), None);
    }
}
