//! What a gateway traces, named and passed on beside the stream, so that no revocation waits for it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_proto::v1::{TraceEvent, TraceEvents};
use tokio::sync::mpsc;

use crate::core::Core;
use crate::domain::DeviceKey;
use crate::observe::trace::{Heard, Observed};
use crate::store::gateways::GatewayRow;
use crate::store::{StoreError, devices};
use crate::text;

/// Messages that may wait; what comes on top is lost, and counted.
const WAITING: usize = 64;
/// Events in one message: what gateways put there. Further ones are lost, and counted.
const MOST_EVENTS: usize = 1024;
/// Names looked up in one [`WINDOW`]: no gateway keeps the store busy, whatever keys it makes up. Events
/// of peers beyond that are lost, and counted.
const LOOK_UPS: usize = 500;
const WINDOW: Duration = Duration::from_secs(1);
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
            window: Instant::now(),
            looked_up: 0,
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
    pub(super) fn take(&mut self, mut message: TraceEvents) {
        let mut lost = newly_lost(self.lost, &message);
        self.lost = message.lost;
        message.events.truncate(MOST_EVENTS);
        message.events.shrink_to_fit();
        message.events.iter_mut().for_each(tidy);
        if let Err(error) = self.sender.try_send(message) {
            lost = lost.saturating_add(error.into_inner().events.len() as u64);
        }
        if lost > 0 {
            self.core.trace.tell(Heard::Lost(lost));
        }
    }
}

/// Events that are lost with this message, where the gateway had lost `before`: any number at all, for
/// it is the gateway's.
fn newly_lost(before: u64, message: &TraceEvents) -> u64 {
    let beyond = message.events.len().saturating_sub(MOST_EVENTS) as u64;
    // Less than before means that the trace was off in between.
    let told = message.lost.checked_sub(before);
    told.unwrap_or(message.lost).saturating_add(beyond)
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
    /// When the present window began, and look-ups since.
    window: Instant,
    looked_up: usize,
}

impl Names {
    async fn pass_on(&mut self, events: Vec<TraceEvent>) -> Result<(), StoreError> {
        let count = events.len() as u64;
        let result = self.look_up(&events).await;
        if result.is_err() {
            self.core.trace.tell(Heard::Lost(count));
            return result;
        }
        let mut lost = 0;
        for event in events {
            let names = match DeviceKey::for_lookup(&event.public_key) {
                None => None,
                Some(key) => match self.by_key.get(&key) {
                    Some(names) => names.clone(),
                    None => {
                        lost += 1;
                        continue;
                    }
                },
            };
            let (device, user) = names.unwrap_or_default();
            self.core.trace.tell(Heard::Event(Arc::new(Observed {
                gateway: self.gateway.clone(),
                device,
                user,
                event,
            })));
        }
        if lost > 0 {
            self.core.trace.tell(Heard::Lost(lost));
        }
        Ok(())
    }

    async fn look_up(&mut self, events: &[TraceEvent]) -> Result<(), StoreError> {
        let revision = self.core.store.revision();
        if revision != self.revision || self.by_key.len() > MOST_NAMES {
            self.by_key.clear();
            self.revision = revision;
        }
        let missing: HashSet<DeviceKey> = events
            .iter()
            .filter_map(|event| DeviceKey::for_lookup(&event.public_key))
            .filter(|key| !self.by_key.contains_key(key))
            .collect();
        if self.window.elapsed() >= WINDOW {
            self.window = Instant::now();
            self.looked_up = 0;
        }
        let room = LOOK_UPS.saturating_sub(self.looked_up);
        if missing.is_empty() || room == 0 {
            return Ok(());
        }
        let mut read = self.core.store.read().await?;
        for key in missing.into_iter().take(room) {
            self.looked_up += 1;
            let device = devices::find_by_key(read.sql(), key).await?;
            let ours = device.filter(|device| device.location_id == self.location);
            let names = ours.map(|device| (device.name, device.user));
            self.by_key.insert(key, names);
        }
        read.end().await
    }
}

/// Leaves what administrators can be shown: addresses that are some, and names of some length.
fn tidy(event: &mut TraceEvent) {
    for address in [&mut event.source, &mut event.destination] {
        if address.parse::<IpAddr>().is_err() {
            *address = String::new();
        }
    }
    text::tidy(&mut event.rule, text::LONGEST);
    event.public_key.shrink_to_fit();
    if event.public_key.len() != 32 {
        event.public_key = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gateway_says_of_a_packet_is_no_longer_than_it_need_be() {
        let mut event = TraceEvent {
            public_key: vec![1; 1 << 20],
            source: "x".repeat(1 << 20),
            destination: "fd00::1".into(),
            rule: "éé\u{1b}\u{202e}".repeat(1 << 20),
            ..TraceEvent::default()
        };
        tidy(&mut event);
        assert!(event.public_key.is_empty() && event.source.is_empty());
        assert_eq!(event.destination, "fd00::1");
        assert_eq!(event.rule, "é".repeat(text::LONGEST / 2));
    }

    #[test]
    fn a_gateway_may_claim_to_have_lost_any_number() {
        let message = |lost, events| TraceEvents {
            lost,
            events: vec![TraceEvent::default(); events],
        };
        assert_eq!(newly_lost(0, &message(u64::MAX, MOST_EVENTS + 1)), u64::MAX);
        assert_eq!(newly_lost(5, &message(7, MOST_EVENTS + 1)), 3);
        assert_eq!(newly_lost(7, &message(5, 1)), 5);
    }
}
