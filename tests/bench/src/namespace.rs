//! A network namespace of the benchmark's own, and TUN devices in it.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use tun_rs::{DeviceBuilder, SyncDevice};

const MARK: &str = "PORTCULLIS_BENCH_NAMESPACE";

/// Starts this program again in a network namespace of its own, which ends with it. Returns `true`
/// in there; `false` in the outer process, once the inner one has succeeded.
pub fn in_own_namespace() -> Result<bool> {
    if std::env::var_os(MARK).is_some() {
        run("ip", &["link", "set", "lo", "up"])?;
        return Ok(true);
    }
    let status = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(MARK, "1")
        .status()
        .context("cannot run unshare (util-linux)")?;
    if !status.success() {
        bail!("the measurement failed");
    }
    Ok(false)
}

/// Sets a kernel parameter of this network namespace, such as `net/ipv4/ip_forward`.
pub fn write_sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{name}");
    std::fs::write(&path, value).with_context(|| format!("cannot write {path}"))
}

/// A TUN device: raw IP packets, like WireGuard's interface. Writing to it is a packet's arrival.
pub struct Tun {
    pub device: SyncDevice,
    pub index: u32,
}

impl Tun {
    /// Makes it with an address in CIDR notation, up.
    pub fn new(name: &str, address: &str) -> Result<Self> {
        let device = DeviceBuilder::new()
            .name(name)
            .build_sync()
            .with_context(|| format!("cannot make TUN device {name}"))?;
        run("ip", &["address", "add", address, "dev", name])?;
        run("ip", &["link", "set", name, "txqueuelen", "4096", "up"])?;
        let index = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"));
        let index = match index {
            Ok(index) => index.trim().parse()?,
            // /sys shows the namespace in which it was mounted.
            Err(_) => device.if_index()?,
        };
        Ok(Self { device, index })
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!("{program} {} failed", arguments.join(" "));
    }
    Ok(())
}
