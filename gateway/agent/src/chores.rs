//! What the agent does besides listening to control, and when.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::debug_log::DebugLog;
use crate::figures::Asker;
use crate::link::LinkError;
use crate::watch::LinkWatch;
use crate::wireguard::{Device, WireGuard, WireGuardError};

/// Nobody tells when a tcx program is detached: the kernel is asked this often. It costs two
/// system calls.
const INSPECT_PERIOD: Duration = Duration::from_millis(250);
const REPORT_PERIOD: Duration = Duration::from_secs(5);
/// The first report of a stream waits for the first acknowledgement.
const REPORT_SOON: Duration = Duration::from_millis(500);

/// Something to do now.
pub(crate) enum Chore {
    /// Are the programs where they belong?
    Inspect,
    /// Compare everything with the kernel.
    Reconcile,
    /// Time for a report: read the device first.
    Report,
    /// Somebody wants figures.
    Scrape(Asker),
    /// The device has been read.
    DeviceRead(Result<Device, WireGuardError>),
}

pub(crate) struct Chores {
    inspect: Interval,
    reconcile: Interval,
    report: Interval,
    watch: Option<LinkWatch>,
    wireguard: Arc<dyn WireGuard>,
    reading: Option<JoinHandle<Result<Device, WireGuardError>>>,
    scrapes: mpsc::Receiver<Asker>,
    debug_log: DebugLog,
}

impl Chores {
    pub(crate) fn new(
        reconcile_period: Duration,
        watched: Option<&str>,
        wireguard: Arc<dyn WireGuard>,
        scrapes: mpsc::Receiver<Asker>,
        debug_log: DebugLog,
    ) -> Result<Self, LinkError> {
        let mut reconcile = every(reconcile_period);
        reconcile.reset();
        Ok(Self {
            inspect: every(INSPECT_PERIOD),
            reconcile,
            report: every(REPORT_PERIOD),
            watch: watched.map(LinkWatch::new).transpose()?,
            wireguard,
            reading: None,
            scrapes,
            debug_log,
        })
    }

    /// Waits until there is something to do. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Chore {
        tokio::select! {
            _ = self.inspect.tick() => Chore::Inspect,
            () = hint(&mut self.watch) => Chore::Inspect,
            _ = self.reconcile.tick() => Chore::Reconcile,
            _ = self.report.tick() => Chore::Report,
            Some(asker) = self.scrapes.recv() => Chore::Scrape(asker),
            device = finished(&mut self.reading) => {
                self.reading = None;
                Chore::DeviceRead(device)
            }
        }
    }

    /// Logs what the programs have logged since. Never waits.
    pub(crate) fn log(&mut self) {
        self.debug_log.flush();
    }

    pub(crate) fn report_soon(&mut self) {
        self.report.reset_after(REPORT_SOON);
    }

    /// Reads the device on another thread: with many peers that takes longer than a revocation
    /// should have to wait.
    pub(crate) fn read_device(&mut self) {
        if self.reading.is_none() {
            let wireguard = Arc::clone(&self.wireguard);
            self.reading = Some(tokio::task::spawn_blocking(move || wireguard.read()));
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn hint(watch: &mut Option<LinkWatch>) {
    match watch {
        Some(watch) => watch.hint().await,
        None => std::future::pending().await,
    }
}

async fn finished(
    reading: &mut Option<JoinHandle<Result<Device, WireGuardError>>>,
) -> Result<Device, WireGuardError> {
    match reading {
        // A panic of the reader: no figures this time.
        Some(task) => task.await.unwrap_or_else(|_| Ok(Device::default())),
        None => std::future::pending().await,
    }
}
