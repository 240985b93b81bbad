//! Forwarding: without it a gateway is a host.
//!
//! IPv4 decides by the interface that a packet came in on, so the WireGuard interface's own switch
//! would do for packets from peers; their replies come in on interfaces that the agent does not
//! know, so the machine's switch is needed too. IPv6 looks at the machine's switch only. Switches
//! that are on already are left alone, since writing the IPv4 one resets others.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

/// A switch could not be read or set.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {path} to {value}: {source}")]
pub struct SysctlError {
    path: PathBuf,
    value: &'static str,
    source: io::Error,
}

/// Switches forwarding on for the families of these addresses.
pub fn enable_forwarding(interface: &str, addresses: &[IpNet]) -> Result<(), SysctlError> {
    let root = Path::new("/proc/sys/net");
    if addresses
        .iter()
        .any(|address| matches!(address, IpNet::V4(_)))
    {
        set_for_machine(&root.join("ipv4/ip_forward"))?;
        set(
            &root.join("ipv4/conf").join(interface).join("forwarding"),
            "1",
        )?;
    }
    if addresses
        .iter()
        .any(|address| matches!(address, IpNet::V6(_)))
    {
        let conf = root.join("ipv6/conf");
        let switch = conf.join("all/forwarding");
        if !is_set(&switch, "1") {
            keep_router_advertisements(&conf)?;
        }
        set_for_machine(&switch)?;
        set(&conf.join(interface).join("forwarding"), "1")?;
    }
    Ok(())
}

/// Switches forwarding on for all interfaces, and says so: beyond the WireGuard interface it is the
/// machine's own packet filter that decides what is forwarded.
fn set_for_machine(switch: &Path) -> Result<(), SysctlError> {
    if is_set(switch, "1") {
        return Ok(());
    }
    set(switch, "1")?;
    tracing::warn!(
        switch = %switch.display(),
        "this machine now forwards packets between all of its interfaces: a machine with more networks than the \
         gateway serves needs a packet filter that forwards nothing else"
    );
    Ok(())
}

/// Whether the machine forwards packets: of IPv4, of IPv6.
pub(crate) fn forwarding() -> (bool, bool) {
    let on = |path: &str| is_set(Path::new(path), "1");
    (
        on("/proc/sys/net/ipv4/ip_forward"),
        on("/proc/sys/net/ipv6/conf/all/forwarding"),
    )
}

/// A machine that forwards IPv6 stops listening to router advertisements, and would lose a default
/// route it learnt from one, unless `accept_ra` is 2.
fn keep_router_advertisements(conf: &Path) -> Result<(), SysctlError> {
    for entry in fs::read_dir(conf).into_iter().flatten().flatten() {
        let path = entry.path().join("accept_ra");
        if is_set(&path, "1") {
            set(&path, "2")?;
        }
    }
    Ok(())
}

fn is_set(path: &Path, value: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.trim() == value)
}

fn set(path: &Path, value: &'static str) -> Result<(), SysctlError> {
    if is_set(path, value) {
        return Ok(());
    }
    fs::write(path, value).map_err(|source| SysctlError {
        path: path.to_owned(),
        value,
        source,
    })
}
