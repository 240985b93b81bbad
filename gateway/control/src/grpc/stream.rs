//! One stream per gateway. It is level-triggered: whenever the store's revision is beyond what was
//! sent, the difference is read from the store and sent. A wake-up that is lost, doubled or late
//! changes nothing but the time.

use std::sync::Arc;
use std::time::Duration;

use portcullis_proto::PROTOCOL;
use portcullis_proto::v1::control_message::Message;
use portcullis_proto::v1::gateway_control_server::GatewayControl;
use portcullis_proto::v1::gateway_message::Message as FromGateway;
use portcullis_proto::v1::{
    Applied, ControlMessage, GatewayMessage, Hello, Refused, Report, SetTrace,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::sync::{Acknowledgement, Next, Progress};
use super::{identity, report, trace};
use crate::core::Core;
use crate::domain::DeviceKey;
use crate::error::OperationError;
use crate::fleet::Member;
use crate::store::gateways::{self, GatewayRow};
use crate::store::{Engine, Store};

const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// Messages that may wait for a slow gateway; after that, changes are coalesced.
const WAITING: usize = 16;
const STORE_RETRY: Duration = Duration::from_secs(1);
/// A gateway whose kernel keeps deviating gets a snapshot this often at most.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(5);

type Outbound = mpsc::Sender<Result<ControlMessage, Status>>;

/// The service that gateways stream with.
pub(super) struct GatewayStreams {
    core: Arc<Core>,
    /// Closed when streams are to end.
    stopping: watch::Receiver<()>,
}

impl GatewayStreams {
    pub(super) fn new(core: Arc<Core>, stopping: watch::Receiver<()>) -> Self {
        Self { core, stopping }
    }
}

#[tonic::async_trait]
impl GatewayControl for GatewayStreams {
    type SyncStream = ReceiverStream<Result<ControlMessage, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<GatewayMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let gateway = identity::gateway(&self.core, &request).await?;
        let (outbound, stream) = mpsc::channel(WAITING);
        let core = self.core.clone();
        let mut stopping = self.stopping.clone();
        let inbound = request.into_inner();
        tokio::spawn(async move {
            let name = gateway.name.clone();
            let conversation = tokio::select! {
                over = converse(core, gateway, inbound, &outbound) => over,
                // Nothing is ever sent: this is the other end being dropped.
                _ = stopping.changed() => Err(End::Stopped),
            };
            match conversation {
                Ok(()) => tracing::info!(gateway = name, "gateway disconnected"),
                Err(End::Refused(reason)) => {
                    tracing::warn!(gateway = name, reason, "gateway refused");
                    let refused = Message::Refused(Refused { reason });
                    let _ = outbound
                        .send(Ok(ControlMessage {
                            message: Some(refused),
                        }))
                        .await;
                }
                Err(End::Broken(status)) => {
                    tracing::info!(gateway = name, %status, "gateway's stream broke");
                }
                Err(End::Stopped) => {
                    let status = Status::unavailable("the control service is shutting down");
                    let _ = outbound.try_send(Err(status));
                }
                Err(End::Store(error)) => {
                    tracing::warn!(gateway = name, %error, "gateway's stream ended");
                    let _ = outbound.send(Err(error.into())).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Why a stream is over.
enum End {
    Refused(String),
    Broken(Status),
    Stopped,
    Store(OperationError),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Broken(status)
    }
}

impl From<OperationError> for End {
    fn from(error: OperationError) -> Self {
        Self::Store(error)
    }
}

async fn converse(
    core: Arc<Core>,
    gateway: GatewayRow,
    mut inbound: Streaming<GatewayMessage>,
    outbound: &Outbound,
) -> Result<(), End> {
    let hello = timeout(HELLO_WITHIN, inbound.message())
        .await
        .map_err(|_| End::Refused("no hello in time".into()))??;
    let Some(FromGateway::Hello(hello)) = hello.and_then(|message| message.message) else {
        return Err(End::Refused("the first message must be a hello".into()));
    };
    let key = check(&hello)?;
    match core.note_gateway_key(&gateway, key).await {
        Err(OperationError::Precondition(reason)) => return Err(End::Refused(reason)),
        noted => noted?,
    }
    tracing::info!(
        gateway = gateway.name,
        version = hello.agent_version,
        resume_from = hello.resume_from,
        "gateway connected"
    );
    let (member, commands) = core.fleet.join(&gateway.id);
    let session = Session {
        revisions: core.store.revisions(),
        guard: core.store.revisions(),
        member,
        commands,
        progress: Progress::new(core.clone(), &gateway),
        noted: notes(&core, &gateway),
        reports: report::recorder(core.clone(), gateway.clone()),
        trace: core.trace.wanted(),
        traced: trace::Recorder::start(core.clone(), &gateway),
        core,
        gateway,
        snapshot_after: None,
        let_go: false,
    };
    session.run(&hello, inbound, outbound).await
}

fn check(hello: &Hello) -> Result<DeviceKey, End> {
    if hello.protocol != PROTOCOL {
        return Err(End::Refused(format!(
            "this control service speaks protocol {PROTOCOL}, the gateway {}: upgrade the older one",
            hello.protocol
        )));
    }
    DeviceKey::parse(&hello.public_key)
        .map_err(|error| End::Refused(format!("the gateway's public key: {error}")))
}

struct Session {
    core: Arc<Core>,
    gateway: GatewayRow,
    revisions: watch::Receiver<u64>,
    /// The same, for looking whether the gateway may still stream while nothing can be sent.
    guard: watch::Receiver<u64>,
    member: Member,
    /// What others want the gateway to be sent, beside its state.
    commands: mpsc::Receiver<Message>,
    progress: Progress,
    /// The newest revision applied, on its way to the store.
    noted: watch::Sender<u64>,
    reports: report::Inbox,
    /// What gateways are to trace.
    trace: watch::Receiver<SetTrace>,
    traced: trace::Recorder,
    /// When the next snapshot that a deviation asks for may be sent.
    snapshot_after: Option<Instant>,
    /// The gateway is being removed and has acknowledged that it holds no peer.
    let_go: bool,
}

impl Session {
    async fn run(
        mut self,
        hello: &Hello,
        mut inbound: Streaming<GatewayMessage>,
        outbound: &Outbound,
    ) -> Result<(), End> {
        // Subscribed before the store is read: no change falls between (invariant 5).
        self.revisions.mark_unchanged();
        let first = self.progress.first(hello).await?;
        if let Next::Send(message) = first {
            let message = ControlMessage {
                message: Some(*message),
            };
            outbound.send(Ok(message)).await.map_err(|_| closed())?;
        } else {
            return Err(removed());
        }
        let mut behind = false;
        // A new stream starts without a trace.
        let mut trace_due = self.trace.borrow_and_update().on;
        let mut not_before = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = self.member.replaced() => {
                    return Err(End::Refused("the gateway has connected again".into()));
                }
                // Room first, then the read: what is sent is as new as it can be.
                permit = outbound.reserve(), if behind && Instant::now() >= not_before => {
                    let permit = permit.map_err(|_| closed())?;
                    self.revisions.mark_unchanged();
                    self.guard.mark_unchanged();
                    match self.progress.next().await {
                        Ok(Next::Send(message)) => {
                            permit.send(Ok(ControlMessage { message: Some(*message) }));
                            behind = false;
                        }
                        Ok(Next::Nothing) => behind = false,
                        Ok(Next::Removed) => return Err(removed()),
                        Err(error) => {
                            tracing::warn!(%error, "the store could not be read for a gateway");
                            not_before = Instant::now() + STORE_RETRY;
                        }
                    }
                }
                permit = outbound.reserve(), if trace_due => {
                    let permit = permit.map_err(|_| closed())?;
                    let wanted = self.trace.borrow_and_update().clone();
                    permit.send(Ok(ControlMessage { message: Some(Message::SetTrace(wanted)) }));
                    trace_due = false;
                }
                // The hub lives as long as the core.
                Ok(()) = self.trace.changed(), if !trace_due => trace_due = true,
                // Whoever asked waits only so long: what does not fit is not worth queueing.
                Some(message) = self.commands.recv() => {
                    let _ = outbound.try_send(Ok(ControlMessage { message: Some(message) }));
                }
                () = sleep_until(not_before), if behind && Instant::now() < not_before => {}
                // A gateway that reads nothing is not heard for longer than one that does.
                Ok(()) = self.guard.changed(), if behind => {
                    if !self.may_stream().await? {
                        return Err(removed());
                    }
                }
                changed = self.revisions.changed(), if !behind => {
                    // Closed with the store, at shutdown.
                    if changed.is_err() {
                        return Ok(());
                    }
                    behind = true;
                }
                message = inbound.message() => {
                    match message?.map(|message| message.message) {
                        None => return Ok(()),
                        Some(Some(FromGateway::Applied(applied))) => {
                            if let Some(at) = self.acknowledge(&applied) {
                                behind = true;
                                not_before = at;
                            }
                            if self.let_go {
                                self.core.gateway_let_go(&self.gateway).await?;
                                return Err(removed());
                            }
                        }
                        Some(Some(FromGateway::Report(report))) => self.reports.take(report),
                        Some(Some(FromGateway::Trace(events))) => self.traced.take(events),
                        Some(Some(FromGateway::Explained(answer))) => {
                            self.core.questions.answer(&self.gateway.id, answer);
                        }
                        Some(Some(FromGateway::Hello(_)) | None) => {
                            return Err(End::Refused("an unexpected message".into()));
                        }
                    }
                }
            }
        }
    }

    /// Whether the store still knows the gateway, by the certificate of this stream.
    async fn may_stream(&self) -> Result<bool, OperationError> {
        let mut read = self.core.store.read().await?;
        let certificate = self.gateway.certificate.as_deref();
        let enrolled = gateways::is_enrolled(read.sql(), &self.gateway.id, certificate).await?;
        read.end().await?;
        Ok(enrolled)
    }

    /// Answers when to send a snapshot, where the gateway's kernel deviates.
    fn acknowledge(&mut self, applied: &Applied) -> Option<Instant> {
        match self.progress.acknowledge(applied) {
            Acknowledgement::AsExpected => {
                self.member.applied(applied.revision);
                self.noted.send_replace(applied.revision);
                self.let_go = self.progress.lets_go_at(applied.revision);
                None
            }
            Acknowledgement::Stale => None,
            Acknowledgement::Deviates => {
                // Written to the log and the audit with the gateway's own events.
                let event = format!(
                    "the kernel does not hold what was asked for at revision {}: sending everything",
                    applied.revision
                );
                let report = Report {
                    events: vec![event],
                    ..Report::default()
                };
                self.reports.take(report);
                self.member.deviates();
                self.progress.start_over();
                let now = Instant::now();
                let at = self.snapshot_after.map_or(now, |after| after.max(now));
                self.snapshot_after = Some(at + SNAPSHOT_EVERY);
                Some(at)
            }
        }
    }
}

/// Writes a gateway's progress to the store: soon where other control processes may wait for it,
/// seldom on SQLite, where only this one does and each write costs a sync of the disk.
fn notes(core: &Arc<Core>, gateway: &GatewayRow) -> watch::Sender<u64> {
    let (sender, mut applied) = watch::channel(0_u64);
    let store: Store = core.store.clone();
    let clock = core.clock.clone();
    let (gateway, certificate) = (gateway.id.clone(), gateway.certificate.clone());
    let pause = match store.engine() {
        Engine::Sqlite => Duration::from_secs(5),
        Engine::Postgres => Duration::from_millis(10),
    };
    tokio::spawn(async move {
        while applied.changed().await.is_ok() {
            let revision = *applied.borrow_and_update();
            let certificate = certificate.as_deref();
            let noted =
                gateways::note(&store, &gateway, certificate, revision, clock.now_ms()).await;
            if let Err(error) = noted {
                tracing::warn!(%error, "a gateway's progress was not recorded");
            }
            tokio::time::sleep(pause).await;
        }
    });
    sender
}

fn closed() -> End {
    End::Broken(Status::cancelled("the gateway went away"))
}

fn removed() -> End {
    End::Refused("this gateway has been removed, or has enrolled again".into())
}
