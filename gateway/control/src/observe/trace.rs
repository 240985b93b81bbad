//! Live traces: gateways report first packets of flows only while somebody listens here.
//!
//! What is wanted of gateways is a level, not a message: each stream follows it and sends it anew
//! whenever it changes, so that a gateway that connects later is traced as well. A gateway that is
//! connected to another control process is not seen.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_proto::v1::{SetTrace, TraceEvent};
use tokio::sync::{broadcast, watch};

/// Events that a listener may be behind by; older ones are lost to it, and counted.
const BEHIND: usize = 16_384;

/// One packet, with the names of what it is about.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Observed {
    pub(crate) gateway: String,
    /// Empty when the packet is no device's.
    pub(crate) device: String,
    /// Empty likewise.
    pub(crate) user: String,
    pub(crate) event: TraceEvent,
}

/// What a listener hears.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    Event(Arc<Observed>),
    /// So many events more did not come this far.
    Lost(u64),
}

/// Who listens, and what gateways have told them; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct TraceHub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    listeners: Mutex<Listeners>,
    wanted: watch::Sender<SetTrace>,
    heard: broadcast::Sender<Heard>,
}

#[derive(Debug, Default)]
struct Listeners {
    last: u64,
    /// Public keys of the peers each of them wants; `None` for everything.
    by_id: HashMap<u64, Option<Vec<Vec<u8>>>>,
}

impl TraceHub {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            listeners: Mutex::default(),
            wanted: watch::Sender::new(SetTrace::default()),
            heard: broadcast::Sender::new(BEHIND),
        }))
    }

    /// Listens to packets of these peers, or to all. Others' packets may come along.
    pub(crate) fn listen(&self, peers: Option<Vec<Vec<u8>>>) -> Listener {
        let heard = self.0.heard.subscribe();
        let mut listeners = self.lock();
        listeners.last += 1;
        let id = listeners.last;
        listeners.by_id.insert(id, peers);
        self.publish(&listeners);
        Listener {
            hub: self.clone(),
            id,
            heard,
        }
    }

    /// Follows what gateways are to trace.
    pub(crate) fn wanted(&self) -> watch::Receiver<SetTrace> {
        self.0.wanted.subscribe()
    }

    /// Tells the listeners, if there are any.
    pub(crate) fn tell(&self, heard: Heard) {
        let _ = self.0.heard.send(heard);
    }

    fn publish(&self, listeners: &Listeners) {
        let all = listeners.by_id.values().any(Option::is_none);
        let mut peers: Vec<Vec<u8>> = match all {
            true => Vec::new(),
            false => listeners
                .by_id
                .values()
                .flatten()
                .flatten()
                .cloned()
                .collect(),
        };
        peers.sort_unstable();
        peers.dedup();
        // Listeners to no peer at all hear nothing: an empty list would mean everything.
        let on = all || !peers.is_empty();
        let wanted = SetTrace { on, peers };
        self.0.wanted.send_if_modified(|now| {
            let changed = *now != wanted;
            *now = wanted;
            changed
        });
    }

    /// The table is valid after every single step, also of a thread that panicked.
    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.0
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place at the hub; gateways stop tracing when the last one is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    hub: TraceHub,
    id: u64,
    heard: broadcast::Receiver<Heard>,
}

impl Listener {
    /// The next thing heard. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Heard {
        match self.heard.recv().await {
            Ok(heard) => heard,
            Err(broadcast::error::RecvError::Lagged(lost)) => Heard::Lost(lost),
            // The hub keeps its own sender for as long as this lives.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut listeners = self.hub.lock();
        listeners.by_id.remove(&self.id);
        self.hub.publish(&listeners);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gateways_trace_what_somebody_listens_to_and_nothing_else() {
        let hub = TraceHub::new();
        let wanted = hub.wanted();
        let now = || wanted.borrow().clone();
        assert!(!now().on);
        let one = hub.listen(Some(vec![vec![1; 32]]));
        let other = hub.listen(Some(vec![vec![2; 32], vec![1; 32]]));
        assert_eq!(now().peers, [vec![1; 32], vec![2; 32]]);
        let all = hub.listen(None);
        assert!(now().on && now().peers.is_empty());
        drop((all, other));
        assert_eq!(now().peers, [vec![1; 32]]);
        drop(one);
        assert!(!now().on);
        let _none = hub.listen(Some(Vec::new()));
        assert!(!now().on, "a list of nobody is not everybody");
    }

    #[tokio::test]
    async fn a_listener_that_is_too_slow_hears_how_much_it_lost() {
        let hub = TraceHub::new();
        let mut listener = hub.listen(None);
        for _ in 0..BEHIND + 10 {
            hub.tell(Heard::Lost(0));
        }
        assert!(matches!(listener.next().await, Heard::Lost(lost) if lost >= 10));
    }
}
