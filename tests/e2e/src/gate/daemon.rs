//! A service as a child process.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::eventually;

/// Killed when dropped.
#[derive(Debug)]
pub(super) struct Daemon {
    service: &'static str,
    child: RefCell<Child>,
}

impl Daemon {
    /// Starts `command`, appending what it says to `log`.
    pub(super) fn start(service: &'static str, mut command: Command, log: &Path) -> Result<Self> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .context("cannot open a log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start portcullis {service}"))?;
        Ok(Self {
            service,
            child: RefCell::new(child),
        })
    }

    pub(super) fn service(&self) -> &'static str {
        self.service
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.child.borrow_mut().try_wait(), Ok(None))
    }

    /// SIGKILL, and waits until it is gone.
    pub(super) fn kill(self) -> Result<()> {
        let mut child = self.child.borrow_mut();
        child.kill().context("cannot kill a service")?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits until it has ended.
    pub(super) fn terminate(self) -> Result<()> {
        let id = i32::try_from(self.child.borrow().id())
            .ok()
            .and_then(Pid::from_raw);
        kill_process(id.context("a process id is positive")?, Signal::TERM)?;
        eventually(
            "a service ends after SIGTERM",
            Duration::from_secs(30),
            || Ok(!self.is_running()),
        )?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        child.kill().ok();
        child.wait().ok();
    }
}
