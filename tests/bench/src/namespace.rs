//! A network namespace of the benchmark's own, and TUN devices in it.

use std::process::{Child, Command};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context as _, Result, ensure};
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
    ensure!(status.success(), "the measurement failed");
    Ok(false)
}

/// Sets a kernel parameter of this network namespace, such as `net/ipv4/ip_forward`.
pub fn write_sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{name}");
    fs::write(&path, value).with_context(|| format!("cannot write {path}"))
}

/// A TUN device: raw IP packets, like WireGuard's interface. Writing to it is a packet's arrival.
pub struct Tun {
    pub name: String,
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
        let index = fs::read_to_string(format!("/sys/class/net/{name}/ifindex"));
        let index = match index {
            Ok(index) => index.trim().parse()?,
            // /sys shows the namespace in which it was mounted.
            Err(_) => device.if_index()?,
        };
        Ok(Self {
            name: name.to_owned(),
            device,
            index,
        })
    }
}

/// Another network namespace, which ends with this value.
pub struct Host(Child);

impl Host {
    /// Makes it, with its loopback interface up.
    pub fn new() -> Result<Self> {
        let child = Command::new("unshare")
            .args(["--net", "sleep", "infinity"])
            .spawn()
            .context("cannot run unshare (util-linux)")?;
        let host = Self(child);
        let own = fs::read_link("/proc/self/ns/net")?;
        let until = Instant::now() + Duration::from_secs(5);
        while fs::read_link(format!("/proc/{}/ns/net", host.pid()))? == own {
            ensure!(Instant::now() < until, "no namespace for another host");
            thread::sleep(Duration::from_millis(5));
        }
        host.run("ip", &["link", "set", "lo", "up"])?;
        Ok(host)
    }

    /// A process in it.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// A command that runs in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.pid()))
            .arg(program);
        command
    }

    /// Runs a command in it.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        succeed(self.command(program).args(arguments))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It is gone already where the benchmark was interrupted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command.
pub fn run(program: &str, arguments: &[&str]) -> Result<()> {
    succeed(Command::new(program).args(arguments))
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed");
    Ok(())
}
