//! A TCP transfer that keeps going in both directions for as long as it may.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::TICK;
use crate::namespace::Namespace;

/// Between two writes: enough to keep moving, and little enough for an emulated processor to encrypt.
const PACE: Duration = Duration::from_millis(20);

/// Writes to an echo server and reads back, until dropped.
#[derive(Debug)]
pub struct Transfer {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Transfer {
    /// Opens a connection from `namespace` to the echo server at `to`.
    pub fn start(namespace: &Namespace, to: SocketAddr) -> Result<Self> {
        let stream = namespace
            .enter(move || TcpStream::connect_timeout(&to, Duration::from_secs(10)))?
            .with_context(|| format!("cannot connect to {to}"))?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(TICK))?;
        let stop = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicU64::new(0));
        let threads = vec![
            thread::spawn({
                let (stream, stop) = (stream.try_clone()?, Arc::clone(&stop));
                move || send(stream, &stop)
            }),
            thread::spawn({
                let (stop, received) = (Arc::clone(&stop), Arc::clone(&received));
                move || receive(stream, &stop, &received)
            }),
        ];
        Ok(Self {
            stop,
            received,
            threads,
        })
    }

    /// Bytes that have come back so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

fn send(mut stream: TcpStream, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match stream.write(&[0x5a; 1024]) {
            Ok(_) => thread::sleep(PACE),
            Err(error) if super::is_timeout(&error) => {}
            Err(_) => return,
        }
    }
}

fn receive(mut stream: TcpStream, stop: &AtomicBool, received: &AtomicU64) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                received.fetch_add(length as u64, Ordering::Relaxed);
            }
            Err(error) if super::is_timeout(&error) => {}
            Err(_) => return,
        }
    }
}
