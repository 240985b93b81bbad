//! A candidate beside the live policy: what gateways report is judged by it as well, and nothing
//! but the count of differences comes of that.
//!
//! Only packets that open a flow are reported. A flow that was open before, and stays open, is not
//! seen until it is opened again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_proto::v1;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Result, subjects, view};
use crate::core::Core;
use crate::error::OperationError;
use crate::live::{self, Compiled};
use crate::observe::trace::{Heard, Listener, Observed};
use crate::policy::shadow::{Difference, Opening, Session, judge};
use crate::store::{policies, sessions};

/// How long a packet may wait to be judged, so that users and sessions are read seldom.
const JUDGE_EVERY: Duration = Duration::from_millis(250);
/// Between two messages to whoever watches, in judgements.
const TELL_EVERY: u32 = 4;
/// Packets that may wait; what comes on top is lost, and counted.
const WAITING: usize = 65_536;
/// Differences told apart.
const ROWS: usize = 10_000;
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

pub(crate) type ShadowStream = ReceiverStream<std::result::Result<v1::PolicyShadow, Status>>;

impl Core {
    /// Runs the candidate for a while. The stream ends with an item that says that it is done.
    pub(crate) async fn shadow_policy(
        self: &Arc<Self>,
        request: v1::ShadowPolicyRequest,
    ) -> Result<ShadowStream> {
        let length = Duration::from_millis(request.for_ms);
        if length.is_zero() || length > LONGEST {
            return Err(OperationError::invalid(
                "a policy runs in the shadow for up to a week",
            ));
        }
        let (sender, stream) = mpsc::channel(4);
        let refused = |refusal| v1::PolicyShadow {
            problems: view::problems(refusal),
            done: true,
            ..v1::PolicyShadow::default()
        };
        let mut read = self.store.read().await?;
        let users = subjects(policies::subjects(read.sql()).await?);
        read.end().await?;
        let candidate = match live::load(request.text).await? {
            Ok(candidate) => candidate,
            Err(refusal) => {
                let _ = sender.try_send(Ok(refused(refusal)));
                return Ok(ReceiverStream::new(stream));
            }
        };
        if let Err(refusal) = candidate.classes(&users) {
            let _ = sender.try_send(Ok(refused(refusal)));
            return Ok(ReceiverStream::new(stream));
        }
        let shadow = Shadow {
            core: self.clone(),
            candidate,
            classes: HashMap::new(),
            sessions: HashMap::new(),
            revision: None,
            observed: 0,
            heard: Intake::default(),
            unlisted: 0,
            rows: HashMap::new(),
        };
        let listener = self.trace.listen(None);
        tokio::spawn(shadow.run(listener, length, sender));
        Ok(ReceiverStream::new(stream))
    }
}

struct Shadow {
    core: Arc<Core>,
    candidate: Compiled,
    /// By name of the user.
    classes: HashMap<String, u32>,
    /// By name of the device: the last session known, also after its end, which packets that passed
    /// before it may still be on their way from.
    sessions: HashMap<String, Session>,
    /// Of the store, when it was read for these.
    revision: Option<u64>,
    observed: u64,
    heard: Intake,
    unlisted: u64,
    rows: HashMap<Row, u64>,
}

/// What was heard and has not been judged.
#[derive(Default)]
struct Intake {
    waiting: Vec<Arc<Observed>>,
    lost: u64,
}

impl Intake {
    fn take(&mut self, heard: Heard) {
        match heard {
            Heard::Lost(count) => self.lose(count),
            Heard::Event(_) if self.waiting.len() >= WAITING => self.lose(1),
            Heard::Event(event) => self.waiting.push(event),
        }
    }

    /// Any number: gateways say how many.
    fn lose(&mut self, count: u64) {
        self.lost = self.lost.saturating_add(count);
    }
}

/// A difference, for one user.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Row {
    user: String,
    opening: Opening,
    difference: Difference,
}

impl Shadow {
    async fn run(
        mut self,
        mut listener: Listener,
        length: Duration,
        told: mpsc::Sender<std::result::Result<v1::PolicyShadow, Status>>,
    ) {
        let begun = Instant::now();
        let mut ticks = interval(JUDGE_EVERY);
        let mut tick = 0_u32;
        loop {
            tokio::select! {
                heard = listener.next() => self.heard.take(heard),
                _ = ticks.tick() => {
                    if let Err(error) = self.judge_all().await {
                        let _ = told.send(Err(error.into())).await;
                        return;
                    }
                    tick = tick.wrapping_add(1);
                    if tick.is_multiple_of(TELL_EVERY) {
                        match told.try_send(Ok(self.report(begun, false))) {
                            Err(mpsc::error::TrySendError::Closed(_)) => return,
                            // Whoever reads slowly sees fewer of them.
                            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => {}
                        }
                    }
                }
                () = sleep_until(begun + length) => {
                    let last = match self.judge_all().await {
                        Ok(()) => Ok(self.report(begun, true)),
                        Err(error) => Err(error.into()),
                    };
                    let _ = told.send(last).await;
                    return;
                }
            }
        }
    }

    /// Judges what waits by users and sessions that are at least as new as the packets.
    async fn judge_all(&mut self) -> Result<()> {
        let revision = self.core.store.revision();
        if self.revision != Some(revision) {
            self.read().await?;
            self.revision = Some(revision);
        }
        let now_ms = self.core.now_ms();
        for observed in std::mem::take(&mut self.heard.waiting) {
            let Some(opening) = Opening::of(&observed.event) else {
                continue;
            };
            self.observed += 1;
            let class = self.classes.get(&observed.user).copied().unwrap_or(0);
            let session = self.sessions.get(&observed.device);
            let judged = judge(
                &self.candidate.tables,
                class,
                &opening,
                observed.event.reason,
                session,
                now_ms,
            );
            match judged {
                Ok(None) => {}
                Ok(Some(difference)) => self.count(Row {
                    user: observed.user.clone(),
                    opening,
                    difference,
                }),
                Err(_) => self.heard.lose(1),
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<()> {
        let mut read = self.core.store.read().await?;
        let users = subjects(policies::subjects(read.sql()).await?);
        let live = sessions::list(read.sql(), "", "", false).await?;
        read.end().await?;
        self.classes.clear();
        for user in users {
            // One that came too late for the candidate's limits is nobody to it.
            let class = self.candidate.tables.assign(&user).unwrap_or(0);
            self.classes.insert(user.user, class);
        }
        for session in live {
            let known = Session {
                level: session.level,
                authenticated_at_ms: session.authenticated_at_ms,
            };
            self.sessions.insert(session.device, known);
        }
        Ok(())
    }

    fn count(&mut self, row: Row) {
        if let Some(count) = self.rows.get_mut(&row) {
            *count += 1;
        } else if self.rows.len() < ROWS {
            self.rows.insert(row, 1);
        } else {
            self.unlisted += 1;
        }
    }

    fn report(&self, begun: Instant, done: bool) -> v1::PolicyShadow {
        let mut rows: Vec<v1::PolicyShadowRow> = self
            .rows
            .iter()
            .map(|(row, count)| self.row(row, *count))
            .collect();
        rows.sort_by(|a, b| {
            let place = |row: &v1::PolicyShadowRow| {
                let what = (row.to_peer, row.remote.clone(), row.protocol, row.port);
                (
                    !row.passes_now,
                    row.user.clone(),
                    std::cmp::Reverse(row.count),
                    what,
                )
            };
            place(a).cmp(&place(b))
        });
        v1::PolicyShadow {
            problems: Vec::new(),
            elapsed_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            done,
            observed: self.observed,
            lost: self.heard.lost,
            unlisted: self.unlisted,
            rows,
        }
    }

    fn row(&self, row: &Row, count: u64) -> v1::PolicyShadowRow {
        let rule = row.difference.rule;
        let rule = rule.and_then(|rule| self.candidate.tables.rule_name(rule));
        v1::PolicyShadowRow {
            user: row.user.clone(),
            to_peer: row.opening.to_peer(),
            remote: row.opening.remote.to_string(),
            protocol: row.opening.protocol.into(),
            port: row.opening.port.into(),
            passes_now: row.difference.passes_now,
            reason: row.difference.reason.name().into(),
            rule: rule.unwrap_or_default().into(),
            count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_may_claim_to_have_lost_any_number() {
        let mut intake = Intake::default();
        for count in [1, u64::MAX, u64::MAX] {
            intake.take(Heard::Lost(count));
        }
        assert_eq!(intake.lost, u64::MAX);
    }
}
