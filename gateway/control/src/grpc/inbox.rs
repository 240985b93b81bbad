//! Reports of one gateway that wait to be written down. Only the latest word on each thing waits, and
//! only so many things: a store that is slow, or a gateway that talks much, costs memory up to a
//! limit and never holds up the stream.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gateway_common::shield::ShieldReason;
use gateway_common::verdict;
use portcullis_proto::v1;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use crate::store::gateways::Reason;
use crate::text;

/// Peers, and ended sessions, that may wait; what is beyond is left out.
const MOST: usize = 65_536;
/// Events in one report.
const EVENTS: usize = 32;
/// Events in one [`EVENT_WINDOW`].
const EVENTS_IN_WINDOW: u32 = 64;
const EVENT_WINDOW: Duration = Duration::from_secs(60);
/// What a gateway may say in one event, in characters.
const LONGEST_EVENT: usize = 1024;

/// What waits, each key and number checked.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) peers: Vec<v1::PeerReport>,
    pub(super) reasons: Vec<Reason>,
    pub(super) ended: Vec<v1::SessionEnded>,
    pub(super) events: Vec<String>,
}

/// Where the stream puts reports; dropped with it.
#[derive(Debug)]
pub(super) struct Inbox {
    waiting: Arc<Mutex<Waiting>>,
    filled: watch::Sender<()>,
}

/// Where the recorder takes them.
#[derive(Debug)]
pub(super) struct Outlet {
    waiting: Arc<Mutex<Waiting>>,
    filled: watch::Receiver<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    peers: HashMap<Vec<u8>, v1::PeerReport>,
    reasons: HashMap<(u32, u32), u64>,
    ended: HashMap<Vec<u8>, v1::SessionEnded>,
    events: Vec<String>,
    /// Events since the window began, and those of them that were left out.
    window: Option<Instant>,
    events_in_window: u32,
    left_out: u32,
}

impl Inbox {
    pub(super) fn new() -> (Self, Outlet) {
        let waiting = Arc::<Mutex<Waiting>>::default();
        let (sender, receiver) = watch::channel(());
        let outlet = Outlet {
            waiting: waiting.clone(),
            filled: receiver,
        };
        let inbox = Self {
            waiting,
            filled: sender,
        };
        (inbox, outlet)
    }

    /// Takes a report in, and returns at once.
    pub(super) fn take(&self, report: v1::Report) {
        lock(&self.waiting).merge(report, Instant::now());
        self.filled.send_replace(());
    }
}

impl Outlet {
    /// What has come since the last call, as soon as there is something. `None` when there is nothing
    /// more to come.
    pub(super) async fn next(&mut self) -> Option<Pending> {
        let open = self.filled.changed().await.is_ok();
        let pending = lock(&self.waiting).drain();
        (open || !pending.is_empty()).then_some(pending)
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.peers.is_empty()
            && self.reasons.is_empty()
            && self.ended.is_empty()
            && self.events.is_empty()
    }
}

impl Waiting {
    fn merge(&mut self, report: v1::Report, now: Instant) {
        for mut peer in report.peers {
            if peer.public_key.len() != 32 {
                continue;
            }
            // Shown to administrators: an address or nothing.
            peer.endpoint = match peer.endpoint.parse::<SocketAddr>() {
                Ok(endpoint) => endpoint.to_string(),
                Err(_) => String::new(),
            };
            peer.drops.retain(|drops| is_verdict(drops.reason));
            peer.drops.truncate(verdict::Reason::ALL.len());
            peer.drops.shrink_to_fit();
            put(&mut self.peers, peer.public_key.clone(), peer);
        }
        for count in report.reasons {
            if is_known(&count) {
                let key = (count.reason, count.direction);
                self.reasons.insert(key, count.packets);
            }
        }
        for ended in report.ended {
            if ended.id.len() == 16 {
                put(&mut self.ended, ended.id.clone(), ended);
            }
        }
        self.take_events(report.events, now);
    }

    fn take_events(&mut self, events: Vec<String>, now: Instant) {
        if self.window.is_none_or(|began| now >= began + EVENT_WINDOW) {
            self.window = Some(now);
            self.events_in_window = 0;
            if self.left_out > 0 {
                self.events
                    .push(format!("{} events were left out", self.left_out));
                self.left_out = 0;
            }
        }
        for (index, mut event) in events.into_iter().enumerate() {
            if index >= EVENTS || self.events_in_window >= EVENTS_IN_WINDOW {
                self.left_out = self.left_out.saturating_add(1);
                continue;
            }
            self.events_in_window += 1;
            text::tidy(&mut event, LONGEST_EVENT);
            self.events.push(event);
        }
    }

    fn drain(&mut self) -> Pending {
        let reason = |((reason, direction), packets)| Reason {
            reason,
            direction,
            packets,
        };
        Pending {
            peers: self.peers.drain().map(|(_, peer)| peer).collect(),
            reasons: self.reasons.drain().map(reason).collect(),
            ended: self.ended.drain().map(|(_, ended)| ended).collect(),
            events: std::mem::take(&mut self.events),
        }
    }
}

/// Whether there is such a reason: the shield's are numbered apart.
fn is_known(count: &v1::ReasonCount) -> bool {
    match count.direction {
        0 | 1 => is_verdict(count.reason),
        2 => u8::try_from(count.reason).is_ok_and(|n| ShieldReason::from_number(n).is_some()),
        _ => false,
    }
}

fn is_verdict(number: u32) -> bool {
    u8::try_from(number).is_ok_and(|n| verdict::Reason::from_number(n).is_some())
}

/// Keeps the latest word, of as many as there is room for.
fn put<T>(map: &mut HashMap<Vec<u8>, T>, key: Vec<u8>, value: T) {
    if map.len() < MOST || map.contains_key(&key) {
        map.insert(key, value);
    }
}

/// Valid after every single step, also of a thread that panicked.
fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(key: u32, endpoint: &str, rx_bytes: u64) -> v1::PeerReport {
        let mut public_key = vec![0; 32];
        public_key[..4].copy_from_slice(&key.to_le_bytes());
        v1::PeerReport {
            public_key,
            endpoint: endpoint.into(),
            rx_bytes,
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn only_the_latest_word_waits_and_only_what_makes_sense() {
        let (inbox, mut outlet) = Inbox::new();
        let reason = |reason, direction| v1::ReasonCount {
            reason,
            direction,
            packets: 1,
        };
        for rx_bytes in 0..1000 {
            inbox.take(v1::Report {
                peers: vec![
                    peer(1, "192.0.2.1:7", rx_bytes),
                    peer(2, &"x".repeat(9999), 1),
                ],
                reasons: [(8, 0), (8, 2), (8, 7), (255, 2), (9_999, 0)]
                    .map(|(number, direction)| reason(number, direction))
                    .into(),
                ..Default::default()
            });
        }
        let mut pending = outlet.next().await.unwrap();
        pending.peers.sort_by_key(|peer| peer.rx_bytes);
        assert_eq!(pending.peers, [peer(2, "", 1), peer(1, "192.0.2.1:7", 999)]);
        pending.reasons.sort_by_key(|reason| reason.direction);
        let kept = pending.reasons.iter().map(|r| (r.reason, r.direction));
        assert_eq!(kept.collect::<Vec<_>>(), [(8, 0), (8, 2)]);
        let many = (0..70_000).map(|key| peer(key, "", 0)).collect();
        inbox.take(v1::Report {
            peers: many,
            ..Default::default()
        });
        drop(inbox);
        assert_eq!(outlet.next().await.unwrap().peers.len(), MOST);
        assert!(outlet.next().await.is_none());
    }

    #[test]
    fn events_are_limited_and_the_rest_is_counted() {
        let mut waiting = Waiting::default();
        let start = Instant::now();
        let report = || v1::Report {
            events: vec!["repaired".into(); 40],
            ..Default::default()
        };
        for _ in 0..10 {
            waiting.merge(report(), start);
        }
        assert_eq!(waiting.drain().events.len(), 64);
        waiting.merge(report(), start + EVENT_WINDOW);
        assert_eq!(waiting.drain().events[0], "336 events were left out");
    }
}
