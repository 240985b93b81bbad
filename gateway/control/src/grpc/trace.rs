//! What a gateway traces, named and passed on beside the stream, so that no revocation waits for it.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_proto::v1::{TraceEvent, TraceEvents};
use tokio::sync::mpsc;

use crate::core::Core;
use crate::domain::DeviceKey;
use crate::observe::trace::{Heard, Observed};
use crate::store::gateways::GatewayRow;
use crate::store::{StoreError, devices};

/// Messages that may wait; what comes on top is lost, and counted.
const WAITING: usize = 64;
/// Names remembered; with more, all are looked up again.
const MOST_NAMES: usize = 100_000;

/// Takes one gateway's trace.
#[derive(Debug)]
pub(super) struct Recorder {
    sender: mpsc::Sender<TraceEvents>,
    /// As the gateway has told last: it counts on while its trace is on.
    lost: u64,
    core: Arc<Core>,
}

impl Recorder {
    pub(super) fn start(core: Arc<Core>, gateway: &GatewayRow) -> Self {
        let (sender, mut messages) = mpsc::channel::<TraceEvents>(WAITING);
        let mut names = Names {
            core: core.clone(),
            gateway: gateway.name.clone(),
            location: gateway.location_id.clone(),
            revision: 0,
            by_key: HashMap::new(),
        };
        tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                if let Err(error) = names.pass_on(message.events).await {
                    tracing::warn!(gateway = names.gateway, %error, "traced packets were lost");
                }
            }
        });
        Self {
            sender,
            lost: 0,
            core,
        }
    }

    /// Takes a message in. Never waits.
    pub(super) fn take(&mut self, message: TraceEvents) {
        // Less than before means that the trace was off in between.
        let mut lost = match message.lost.checked_sub(self.lost) {
            Some(more) => more,
            None => message.lost,
        };
        self.lost = message.lost;
        if let Err(error) = self.sender.try_send(message) {
            lost += error.into_inner().events.len() as u64;
        }
        if lost > 0 {
            self.core.trace.tell(Heard::Lost(lost));
        }
    }
}

/// Finds whose packets they are.
struct Names {
    core: Arc<Core>,
    gateway: String,
    /// Id; a gateway speaks of its location's devices only.
    location: String,
    /// Of the store, when the names were looked up.
    revision: u64,
    /// Device and user; `None` where there is no such device of the location.
    by_key: HashMap<DeviceKey, Option<(String, String)>>,
}

impl Names {
    async fn pass_on(&mut self, events: Vec<TraceEvent>) -> Result<(), StoreError> {
        let count = events.len() as u64;
        let result = self.look_up(&events).await;
        if result.is_err() {
            self.core.trace.tell(Heard::Lost(count));
            return result;
        }
        for event in events {
            let key = DeviceKey::for_lookup(&event.public_key);
            let names = key.and_then(|key| self.by_key.get(&key).cloned().flatten());
            let (device, user) = names.unwrap_or_default();
            self.core.trace.tell(Heard::Event(Arc::new(Observed {
                gateway: self.gateway.clone(),
                device,
                user,
                event,
            })));
        }
        Ok(())
    }

    async fn look_up(&mut self, events: &[TraceEvent]) -> Result<(), StoreError> {
        let revision = self.core.store.revision();
        if revision != self.revision || self.by_key.len() > MOST_NAMES {
            self.by_key.clear();
            self.revision = revision;
        }
        let mut missing: Vec<DeviceKey> = events
            .iter()
            .filter_map(|event| DeviceKey::for_lookup(&event.public_key))
            .filter(|key| !self.by_key.contains_key(key))
            .collect();
        missing.dedup();
        if missing.is_empty() {
            return Ok(());
        }
        let mut read = self.core.store.read().await?;
        for key in missing {
            let device = devices::find_by_key(read.sql(), key).await?;
            let ours = device.filter(|device| device.location_id == self.location);
            let names = ours.map(|device| (device.name, device.user));
            self.by_key.insert(key, names);
        }
        read.end().await
    }
}
