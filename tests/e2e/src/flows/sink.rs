//! Counts what arrives, and floods.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::TICK;
use crate::namespace::Namespace;

/// Counts the datagrams that reach a port, from one address. Runs until dropped.
#[derive(Debug)]
pub struct Sink {
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens in `namespace` on `port` and counts what comes from `from`.
    pub fn start(namespace: &Namespace, port: u16, from: IpAddr) -> Result<Self> {
        let socket = namespace
            .enter(move || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))?
            .with_context(|| format!("cannot listen on port {port}"))?;
        socket.set_read_timeout(Some(TICK))?;
        Ok(Self::count(socket, from))
    }

    fn count(socket: UdpSocket, from: IpAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let arrived = Arc::new(AtomicU64::new(0));
        let thread = thread::spawn({
            let (stop, arrived) = (Arc::clone(&stop), Arc::clone(&arrived));
            move || {
                let mut buffer = [0; 2048];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((_, source)) = socket.recv_from(&mut buffer)
                        && source.ip().to_canonical() == from
                    {
                        arrived.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Self {
            stop,
            arrived,
            thread: Some(thread),
        }
    }

    /// How many have arrived.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Sends datagrams to one place without waiting for anything. Runs until dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Sends from `namespace` to `to` every `interval`.
    pub fn start(namespace: &Namespace, to: SocketAddr, interval: Duration) -> Result<Self> {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = namespace
            .enter(move || UdpSocket::bind(any))?
            .context("cannot make a socket")?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    // An interface that is gone for a moment refuses; keep trying.
                    socket.send_to(b"flood", to).ok();
                    thread::sleep(interval);
                }
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
