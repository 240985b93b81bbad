//! Numbered datagrams to an echo server, each one accounted for.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::namespace::Namespace;

/// How long a reply may take before its datagram counts as lost.
const GRACE: Duration = Duration::from_secs(5);

/// One flow of numbered datagrams.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<Log>>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Log {
    sent: BTreeMap<u64, Instant>,
    answered: BTreeMap<u64, Instant>,
}

/// What became of the datagrams.
#[derive(Clone, Debug)]
pub struct Report {
    /// How many were sent.
    pub sent: usize,
    /// How many came back.
    pub answered: usize,
    /// The numbers of those that did not.
    pub missing: Vec<u64>,
    /// When the last one that came back had been sent.
    pub last_answered_sent_at: Option<Instant>,
}

impl Report {
    /// How many never came back.
    pub fn lost(&self) -> usize {
        self.sent - self.answered
    }
}

impl Probe {
    /// Sends one datagram from `namespace` to `to` every `interval` until stopped.
    pub fn start(namespace: &Namespace, to: SocketAddr, interval: Duration) -> Result<Self> {
        let socket = namespace
            .enter(move || {
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.connect(to)?;
                Ok::<_, std::io::Error>(socket)
            })?
            .with_context(|| format!("cannot send to {to}"))?;
        socket.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let log = Arc::new(Mutex::new(Log::default()));
        let thread = thread::spawn({
            let (stop, log) = (Arc::clone(&stop), Arc::clone(&log));
            move || work(&socket, interval, &stop, &log)
        });
        Ok(Self {
            stop,
            log,
            thread: Some(thread),
        })
    }

    /// How many replies have come back so far.
    pub fn answered(&self) -> usize {
        self.with(|log| log.answered.len())
    }

    /// When the last reply came in.
    pub fn last_reply(&self) -> Option<Instant> {
        self.with(|log| log.answered.values().max().copied())
    }

    /// Whether a reply came in within `period`.
    pub fn is_alive_within(&self, period: Duration) -> bool {
        self.last_reply().is_some_and(|at| at.elapsed() < period)
    }

    /// Stops sending, waits for what is still under way, and accounts for every datagram.
    pub fn finish(mut self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the probe panicked"))??;
        }
        Ok(self.with(|log| Report {
            sent: log.sent.len(),
            answered: log.answered.len(),
            missing: log
                .sent
                .keys()
                .filter(|number| !log.answered.contains_key(number))
                .copied()
                .collect(),
            last_answered_sent_at: log
                .answered
                .keys()
                .filter_map(|number| log.sent.get(number))
                .max()
                .copied(),
        }))
    }

    fn with<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn work(socket: &UdpSocket, interval: Duration, stop: &AtomicBool, log: &Mutex<Log>) -> Result<()> {
    let mut next = Instant::now();
    let mut number = 0_u64;
    let mut ended: Option<Instant> = None;
    loop {
        let now = Instant::now();
        if ended.is_none() && stop.load(Ordering::Relaxed) {
            ended = Some(now);
        }
        if ended.is_none() && now >= next {
            // A refused or unroutable datagram is a lost one.
            socket.send(&number.to_be_bytes()).ok();
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .sent
                .insert(number, now);
            number += 1;
            next = now + interval;
        }
        let mut buffer = [0; 8];
        while let Ok(length) = socket.recv(&mut buffer) {
            if length == buffer.len() {
                let number = u64::from_be_bytes(buffer);
                log.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .answered
                    .insert(number, Instant::now());
            }
        }
        let all_back = {
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.answered.len() == log.sent.len()
        };
        // Only now, when everything that had come was read.
        if ended.is_some_and(|at| all_back || now.duration_since(at) >= GRACE) {
            break;
        }
        thread::sleep(interval.min(Duration::from_millis(5)));
    }
    Ok(())
}
