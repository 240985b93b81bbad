//! The gateways connected to this process, and what each of them has acknowledged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use portcullis_proto::v1::control_message::Message;
use tokio::sync::{mpsc, watch};

/// Messages for a gateway that may wait beside its state.
const COMMANDS: usize = 64;

/// Knows the connected gateways; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Fleet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    gateways: Mutex<Gateways>,
    /// Counts the changes of `gateways`, for those who wait for one.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Gateways {
    connections: u64,
    by_id: HashMap<String, Live>,
}

#[derive(Debug)]
struct Live {
    connection: u64,
    /// Dropped to end the connection.
    _alive: watch::Sender<()>,
    commands: mpsc::Sender<Message>,
    status: Status,
}

/// What a connected gateway has acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Status {
    /// The newest revision that it read back from its kernel as it should be.
    pub(crate) applied: u64,
    pub(crate) applied_at: Instant,
    /// Whether its latest acknowledgement was as it should be.
    pub(crate) as_expected: bool,
}

/// A gateway's place in the fleet while its stream lives.
#[derive(Debug)]
pub(crate) struct Member {
    fleet: Fleet,
    gateway: String,
    connection: u64,
    replaced: watch::Receiver<()>,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            gateways: Mutex::default(),
            changed: watch::Sender::new(0),
        }))
    }

    /// Adds a connection of a gateway. An older one of the same gateway is ended. Also answers what
    /// others want the gateway to be sent.
    pub(crate) fn join(&self, gateway: &str) -> (Member, mpsc::Receiver<Message>) {
        let (alive, replaced) = watch::channel(());
        let (sender, commands) = mpsc::channel(COMMANDS);
        let mut gateways = self.lock();
        gateways.connections += 1;
        let connection = gateways.connections;
        let status = Status {
            applied: 0,
            applied_at: Instant::now(),
            as_expected: false,
        };
        gateways.by_id.insert(
            gateway.to_owned(),
            Live {
                connection,
                _alive: alive,
                commands: sender,
                status,
            },
        );
        drop(gateways);
        self.notify();
        let member = Member {
            fleet: self.clone(),
            gateway: gateway.to_owned(),
            connection,
            replaced,
        };
        (member, commands)
    }

    /// `None` when the gateway is not connected to this process.
    pub(crate) fn status(&self, gateway: &str) -> Option<Status> {
        self.lock().by_id.get(gateway).map(|live| live.status)
    }

    /// Hands the gateway's stream a message to send. False when the gateway is not connected to this
    /// process, or too busy.
    pub(crate) fn send(&self, gateway: &str, message: Message) -> bool {
        self.lock()
            .by_id
            .get(gateway)
            .is_some_and(|live| live.commands.try_send(message).is_ok())
    }

    /// Follows every change of any gateway's status.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    fn notify(&self) {
        self.0.changed.send_modify(|changes| *changes += 1);
    }

    /// The table is valid after every single step, also of a thread that panicked.
    fn lock(&self) -> MutexGuard<'_, Gateways> {
        self.0
            .gateways
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Notes an acknowledgement of what was asked for.
    pub(crate) fn applied(&self, revision: u64) {
        self.update(|status| {
            status.applied = revision;
            status.applied_at = Instant::now();
            status.as_expected = true;
        });
    }

    /// Notes that the gateway's kernel holds something else.
    pub(crate) fn deviates(&self) {
        self.update(|status| status.as_expected = false);
    }

    /// Resolves when a newer connection of the same gateway has taken this place.
    pub(crate) async fn replaced(&mut self) {
        while self.replaced.changed().await.is_ok() {}
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        if let Some(live) = self.fleet.lock().by_id.get_mut(&self.gateway)
            && live.connection == self.connection
        {
            change(&mut live.status);
        }
        self.fleet.notify();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut gateways = self.fleet.lock();
        let ours = gateways
            .by_id
            .get(&self.gateway)
            .is_some_and(|l| l.connection == self.connection);
        if ours {
            gateways.by_id.remove(&self.gateway);
        }
        drop(gateways);
        self.fleet.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newer_connection_takes_the_place_of_an_older_one() {
        let fleet = Fleet::new();
        let (mut first, _commands) = fleet.join("gw");
        first.applied(3);
        let (second, _commands) = fleet.join("gw");
        first.replaced().await;
        first.applied(9);
        drop(first);
        assert_eq!(fleet.status("gw").unwrap().applied, 0);
        second.applied(4);
        assert_eq!(fleet.status("gw").unwrap().applied, 4);
        drop(second);
        assert!(fleet.status("gw").is_none());
    }
}
