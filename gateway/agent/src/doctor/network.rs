//! The interface and the switches of forwarding.

use std::fs;
use std::path::Path;

use super::Check;
use crate::sysctl;

pub(super) fn interface(name: &str) -> Check {
    let path = Path::new("/sys/class/net").join(name);
    if !path.exists() {
        return Check::good(
            "interface",
            format!("{name} does not exist yet: the agent makes it"),
        );
    }
    let kind = fs::read_to_string(path.join("uevent")).unwrap_or_default();
    if kind.lines().any(|line| line == "DEVTYPE=wireguard") {
        Check::good("interface", format!("{name} is WireGuard's"))
    } else {
        Check::bad(
            "interface",
            format!("{name} exists and is not WireGuard's"),
            "name another one in agent.interface",
        )
    }
}

pub(super) fn forwarding() -> Check {
    let say = |on: bool| if on { "on" } else { "off" };
    let (v4, v6) = sysctl::forwarding();
    let found = format!("IPv4 {}, IPv6 {}", say(v4), say(v6));
    if v4 && v6 {
        Check::good("forwarding", found)
    } else {
        Check::hint(
            "forwarding",
            found,
            "the agent switches on what its location's addresses need; to have it from boot, set \
             net.ipv4.ip_forward=1 and net.ipv6.conf.all.forwarding=1 in /etc/sysctl.d",
        )
    }
}
