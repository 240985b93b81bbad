//! A running ping(8).

use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result};

use crate::namespace::Namespace;

/// Pings five times a second until dropped.
#[derive(Debug)]
pub struct Pinger {
    child: Child,
    replies: Arc<AtomicU64>,
}

impl Pinger {
    /// Starts pinging `to` from `namespace`.
    pub fn start(namespace: &Namespace, to: IpAddr) -> Result<Self> {
        let mut child = namespace
            .command("ping")
            .args(["-n", "-i", "0.2", &to.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start ping")?;
        let stdout = child.stdout.take().context("ping's output is piped")?;
        let replies = Arc::new(AtomicU64::new(0));
        thread::spawn({
            let replies = Arc::clone(&replies);
            move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if line.contains("bytes from") {
                        replies.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Ok(Self { child, replies })
    }

    /// Replies so far.
    pub fn replies(&self) -> u64 {
        self.replies.load(Ordering::Relaxed)
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
