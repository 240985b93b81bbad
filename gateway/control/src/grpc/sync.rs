//! What one gateway was sent, what it must hold, and what to send next. No I/O but the store's.

use std::collections::VecDeque;
use std::sync::Arc;

use portcullis_proto::v1::{self, control_message::Message};

use super::desired::{self, Expected};
use crate::core::Core;
use crate::domain::DeviceKey;
use crate::error::OperationError;
use crate::live::Live;
use crate::store::changes::{self, Changes};
use crate::store::gateways::GatewayRow;

/// A message to the gateway, or the news that it is none of ours any more.
pub(super) enum Next {
    Send(Box<Message>),
    /// There is nothing newer than what was sent.
    Nothing,
    Removed,
}

/// How an acknowledgement compares with what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledgement {
    AsExpected,
    /// The kernel holds something else.
    Deviates,
    /// Of a revision that was not sent on this stream, or is acknowledged already.
    Stale,
}

/// What devices that changed are to a gateway.
struct Put {
    present: Vec<v1::Peer>,
    /// It may hold these from before.
    absent: Vec<DeviceKey>,
}

/// One gateway's stream, as far as state goes.
pub(super) struct Progress {
    core: Arc<Core>,
    gateway: String,
    /// Hash of the certificate that the stream came with.
    certificate: Option<String>,
    /// The last revision sent; 0 before the first message.
    sent: u64,
    expected: Expected,
    /// Digests expected for revisions that were sent and not acknowledged.
    awaited: VecDeque<(u64, [u8; 32])>,
    snapshot_next: bool,
    /// The gateway has been told to hold no peer, because it is being removed.
    told_to_let_go: bool,
}

impl Progress {
    pub(super) fn new(core: Arc<Core>, gateway: &GatewayRow) -> Self {
        Self {
            core,
            gateway: gateway.id.clone(),
            certificate: gateway.certificate.clone(),
            sent: 0,
            expected: Expected::default(),
            awaited: VecDeque::new(),
            snapshot_next: true,
            told_to_let_go: false,
        }
    }

    /// The first message: a delta where the gateway can resume, else a snapshot.
    pub(super) async fn first(&mut self, hello: &v1::Hello) -> Result<Next, OperationError> {
        let store = &self.core.store;
        let resumed = hello.resume_from;
        let resumes = store.can_resume(&hello.store_id, resumed).await?;
        // The digest covers everything, so everything is read either way.
        let Some((changes, live)) = self.read(0).await? else {
            return Ok(Next::Removed);
        };
        // Tombstones of before are nothing to a snapshot; a delta needs those since. It tells no
        // policy: the gateway has applied the one that has held since before its revision.
        let since = if resumes && live.revision() <= resumed {
            self.read(resumed).await?
        } else {
            None
        };
        match since {
            Some((since, _)) if !since.whole && since.revision == changes.revision => {
                self.take_in(&changes, &live)?;
                self.delta(resumed, &since, &live).map(Next::Send)
            }
            _ => self.snapshot(&changes, &live).map(Next::Send),
        }
    }

    /// What is newer than what was sent.
    pub(super) async fn next(&mut self) -> Result<Next, OperationError> {
        let since = if self.snapshot_next { 0 } else { self.sent };
        let Some((mut changes, mut live)) = self.read(since).await? else {
            return Ok(Next::Removed);
        };
        let restored = changes.revision < since;
        // Whatever else changes is none of its business any more.
        if changes.removing && self.told_to_let_go && !self.snapshot_next && !restored {
            return Ok(Next::Nothing);
        }
        if restored {
            // The store was restored from a backup: its revisions mean something else now.
            self.core.policies.forget();
        }
        // A delta tells no policy.
        if restored || (!changes.whole && live.id() != self.expected.policy()) {
            self.snapshot_next = true;
            (changes, live) = match self.read(0).await? {
                Some(everything) => everything,
                None => return Ok(Next::Removed),
            };
        }
        self.snapshot_next |= changes.whole;
        if self.snapshot_next {
            return self.snapshot(&changes, &live).map(Next::Send);
        }
        if changes.revision == self.sent {
            return Ok(Next::Nothing);
        }
        for key in &changes.removed {
            self.expected.remove(key);
        }
        self.delta(self.sent, &changes, &live).map(Next::Send)
    }

    /// What is newer than `since` and what policy holds, as of one state of the store. `None` when the
    /// gateway is gone, or has enrolled again since this stream began.
    async fn read(&self, since: u64) -> Result<Option<(Changes, Arc<Live>)>, OperationError> {
        let mut read = self.core.store.read().await?;
        let changes = changes::changes(read.sql(), &self.gateway, since).await?;
        let ours = changes.filter(|changes| changes.certificate == self.certificate);
        let Some(changes) = ours else {
            return Ok(None);
        };
        let live = self.core.policies.live(read.sql()).await?;
        read.end().await?;
        Ok(Some((changes, live)))
    }

    /// Whether an acknowledgement of this revision says that the gateway holds no peer, as it was told
    /// because it is being removed.
    pub(super) fn lets_go_at(&self, revision: u64) -> bool {
        self.told_to_let_go && self.sent == revision
    }

    /// Makes the next message a snapshot.
    pub(super) fn start_over(&mut self) {
        self.snapshot_next = true;
    }

    pub(super) fn acknowledge(&mut self, applied: &v1::Applied) -> Acknowledgement {
        while let Some((revision, digest)) = self.awaited.front().copied() {
            if revision > applied.revision {
                break;
            }
            self.awaited.pop_front();
            if revision == applied.revision {
                return if applied.digest == digest {
                    Acknowledgement::AsExpected
                } else {
                    Acknowledgement::Deviates
                };
            }
        }
        // Unasked, again: what the kernel holds has drifted where the digest is another one now.
        if applied.revision == self.sent && applied.digest != self.expected.digest() {
            return Acknowledgement::Deviates;
        }
        Acknowledgement::Stale
    }

    fn snapshot(&mut self, changes: &Changes, live: &Live) -> Result<Box<Message>, OperationError> {
        let peers = self.take_in(changes, live)?.present;
        self.told_to_let_go = changes.removing;
        let location = changes
            .location
            .as_ref()
            .map(desired::location)
            .transpose()?;
        self.note_sent(changes.revision);
        Ok(Box::new(Message::Snapshot(v1::Snapshot {
            revision: changes.revision,
            store_id: self.core.store.store_id().into(),
            control_now_ms: self.core.now_ms(),
            location,
            peers,
            policy: live.to_wire(),
        })))
    }

    fn delta(
        &mut self,
        from: u64,
        changes: &Changes,
        live: &Live,
    ) -> Result<Box<Message>, OperationError> {
        let Put { present, absent } = self.put(changes, live)?;
        let location = changes
            .location
            .as_ref()
            .map(desired::location)
            .transpose()?;
        self.note_sent(changes.revision);
        Ok(Box::new(Message::Delta(v1::Delta {
            from_revision: from,
            revision: changes.revision,
            control_now_ms: self.core.now_ms(),
            location,
            peers: present,
            removed: changes
                .removed
                .iter()
                .chain(&absent)
                .map(|key| key.as_bytes().to_vec())
                .collect(),
        })))
    }

    /// Forgets what was expected and expects exactly these peers under this policy.
    fn take_in(&mut self, everything: &Changes, live: &Live) -> Result<Put, OperationError> {
        self.expected.clear();
        self.awaited.clear();
        self.expected.set_policy(live.id());
        self.put(everything, live)
    }

    fn put(&mut self, changes: &Changes, live: &Live) -> Result<Put, OperationError> {
        let now_ms = self.core.now_ms();
        let mut put = Put {
            present: Vec::with_capacity(changes.peers.len()),
            absent: Vec::new(),
        };
        for row in &changes.peers {
            // Its time is over and it is about to be removed, also where control was down meanwhile.
            if row.ends_ms != 0 && row.ends_ms <= now_ms {
                continue;
            }
            let key: DeviceKey = row.public_key;
            let class = live.class_of(&row.user_id);
            match desired::peer(&self.core, row, changes.mode, class, now_ms)? {
                Some((peer, allowed_ips)) => {
                    self.expected.put(key, &peer, allowed_ips);
                    put.present.push(peer);
                }
                None => {
                    self.expected.remove(&key);
                    put.absent.push(key);
                }
            }
        }
        Ok(put)
    }

    fn note_sent(&mut self, revision: u64) {
        self.sent = revision;
        self.snapshot_next = false;
        self.awaited.push_back((revision, self.expected.digest()));
    }
}
