//! Network namespaces.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command::run;

/// A network namespace, removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one; `role` becomes part of its name.
    pub fn new(role: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "pc{}-{}-{role}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        run(Command::new("ip").args(["netns", "add", &name]), "")?;
        let namespace = Self { name };
        // Duplicate address detection only costs time between addresses that are known to differ.
        namespace.set("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.set("net/ipv6/conf/all/accept_dad", "0")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run inside. nsenter rather than `ip netns exec`: the latter hides /sys/fs/bpf behind a
    /// fresh /sys.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program);
        command
    }

    /// Runs lines of ip(8) inside, as one batch.
    pub fn ip(&self, lines: &str) -> Result<()> {
        run(
            Command::new("ip").args(["-netns", &self.name, "-batch", "-"]),
            lines,
        )?;
        Ok(())
    }

    /// Runs `work` on a thread that lives inside. Sockets made there stay inside wherever they are used.
    pub fn enter<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let path = self.path();
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter a network namespace")
                .map(|()| work())
        })
        .join()
        .map_err(|_| anyhow!("a thread in namespace {} panicked", self.name))?
    }

    /// Writes a network sysctl, given as a path below /proc/sys.
    pub fn set(&self, sysctl: &str, value: &str) -> Result<()> {
        let (path, value) = (PathBuf::from("/proc/sys").join(sysctl), value.to_owned());
        self.enter(move || {
            std::fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))
        })?
    }

    /// Whether an interface of this name exists inside.
    pub fn has_link(&self, interface: &str) -> Result<bool> {
        let path = PathBuf::from("/proc/net/dev");
        let table = self.enter(move || {
            // /proc/net is the reading *process's*; the thread's own is under thread-self.
            std::fs::read_to_string("/proc/thread-self/net/dev")
                .or_else(|_| std::fs::read_to_string(path))
        })??;
        Ok(table
            .lines()
            .any(|line| line.trim_start().starts_with(&format!("{interface}:"))))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("ip").args(["netns", "delete", &self.name]), "") {
            eprintln!("namespace {} stays: {error:#}", self.name);
        }
    }
}
