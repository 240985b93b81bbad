//! The agent: start-up, and the loop in which control's messages and the kernel's own affairs meet.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_proto::v1::control_message::Message;
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::blocking::blocking;
use crate::chores::{Chore, Chores};
use crate::config::{AgentConfig, ConfigError};
use crate::datapath::{Datapath, DatapathError};
use crate::debug_log::DebugLog;
use crate::desired::DesiredError;
use crate::engine::{Engine, EngineError, Outcome};
use crate::explain::explain;
use crate::figures::{Asker, Figures, FlowFigures};
use crate::identity::{self, Enrolment, IdentityError};
use crate::instance::Instance;
use crate::interface::{Inspected, Interface, InterfaceError, reattached_event};
use crate::keys::PublicKey;
use crate::link::LinkMode;
use crate::report::Reporter;
use crate::shield::Keeper;
use crate::stream::{Received, Stream, StreamError};
use crate::trace::Trace;
use crate::wireguard::{Kernel, WireGuard};

/// A stream that lasted this long shows that control works: the next attempt comes soon.
const STABLE: Duration = Duration::from_secs(10);
/// Between two attempts to configure an interface that cannot be.
const RETRY: Duration = Duration::from_secs(2);

/// Why the agent cannot start. Once it runs, it goes on whatever happens.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot load the datapath: {0}")]
    Datapath(#[from] DatapathError),
    #[error(transparent)]
    Interface(#[from] InterfaceError),
}

/// A gateway's agent, before it runs.
pub struct Agent {
    config: AgentConfig,
    link: LinkMode,
    wireguard: Arc<dyn WireGuard>,
    figures: Figures,
    scrapes: mpsc::Receiver<Asker>,
}

impl Agent {
    /// An agent for kernel WireGuard on the interface that the configuration names.
    pub fn new(config: AgentConfig) -> Self {
        let wireguard = Box::new(Kernel::new(&config.interface));
        Self::with_parts(config, LinkMode::Managed, wireguard)
    }

    /// An agent for another interface, or another WireGuard.
    pub fn with_parts(config: AgentConfig, link: LinkMode, wireguard: Box<dyn WireGuard>) -> Self {
        let (figures, scrapes) = Figures::channel();
        Self {
            config,
            link,
            wireguard: wireguard.into(),
            figures,
            scrapes,
        }
    }

    /// Figures of the running agent, for Prometheus.
    pub fn figures(&self) -> Figures {
        self.figures.clone()
    }

    /// Runs until `shutdown` completes, or fails to start.
    ///
    /// When it returns, and when it is killed, everything in the kernel stays as it is: sessions
    /// go on until their deadlines, and nothing opens. [`crate::teardown`] takes it away.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
        tokio::select! {
            () = shutdown => {
                tracing::info!("stopping; what is in the kernel goes on being enforced");
                Ok(())
            }
            result = self.start() => match result? {},
        }
    }

    async fn start(self) -> Result<Infallible, AgentError> {
        self.config.validate()?;
        let enrolment = Enrolment::load(&self.config.state_dir)?;
        let private_key = identity::load_or_generate(&self.config.state_dir)?;
        let public_key = private_key.public_key();
        // Held as long as this runs.
        let _instance = Instance::claim(&self.config.interface).map_err(InterfaceError::from)?;
        Interface::check(self.link, &self.config.interface).await?;
        let datapath = Datapath::open(&self.config.datapath())?;
        tracing::info!(
            interface = self.config.interface,
            adopted = datapath.adopted(),
            gateway = enrolment.gateway,
            "datapath loaded"
        );
        let mut engine = Engine::new(datapath, Arc::clone(&self.wireguard));
        let interface = Interface::open(
            self.link,
            &self.config.interface,
            Arc::clone(&self.wireguard),
            private_key,
            &mut engine,
        )
        .await?;
        let shield = Keeper::open(&self.config, &mut engine);
        let events = engine.datapath_mut().take_events();
        let watched = interface
            .is_managed()
            .then_some(self.config.interface.as_str());
        let chores = Chores::new(
            self.config.reconcile_period,
            watched,
            self.wireguard,
            self.scrapes,
            DebugLog::open(engine.datapath_mut().object()),
        )
        .map_err(InterfaceError::from)?;
        let runner = Runner {
            name: self.config.interface,
            engine,
            interface,
            shield,
            trace: Trace::new(events),
            chores,
            reporter: Reporter::default(),
            flows: FlowFigures::default(),
            connected: false,
            from_scratch: false,
            trouble: None,
        };
        Ok(runner.run(&enrolment, public_key).await)
    }
}

struct Runner {
    name: String,
    engine: Engine,
    interface: Interface,
    shield: Keeper,
    trace: Trace,
    chores: Chores,
    reporter: Reporter,
    flows: FlowFigures,
    connected: bool,
    /// The next hello asks for a snapshot.
    from_scratch: bool,
    /// What is wrong with the interface, until it is not.
    trouble: Option<Trouble>,
}

/// A failure that is tried again, and told once.
struct Trouble {
    text: String,
    retry_at: Instant,
}

impl Runner {
    async fn run(mut self, enrolment: &Enrolment, public_key: PublicKey) -> Infallible {
        let mut backoff = Backoff::new();
        let mut told = false;
        // An agent that was killed may have left its trace on.
        self.end_trace();
        loop {
            let resume = self.engine.resume(self.from_scratch);
            let opening = Stream::open(enrolment, public_key, resume);
            let error = match self.meanwhile(opening).await {
                Ok(stream) => {
                    tracing::info!(control = enrolment.control, "connected to control");
                    let opened = Instant::now();
                    self.connected = true;
                    let error = self.talk(stream).await;
                    self.connected = false;
                    // Nobody listens any more; a new stream starts without a trace.
                    self.end_trace();
                    if opened.elapsed() >= STABLE {
                        backoff.reset();
                    }
                    told = false;
                    error
                }
                Err(error) => error.into(),
            };
            // Once at full voice: control may be away for hours.
            if told {
                tracing::debug!(control = enrolment.control, "{error}");
            } else {
                tracing::warn!(
                    control = enrolment.control,
                    "{error}; sessions in the kernel go on until their deadlines"
                );
                told = true;
            }
            self.meanwhile(tokio::time::sleep(backoff.delay())).await;
        }
    }

    /// Does chores until the future completes.
    async fn meanwhile<F: Future>(&mut self, future: F) -> F::Output {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return output,
                chore = self.chores.next() => {
                    // There is no stream that could break.
                    let _ = self.attend(chore, None).await;
                }
            }
        }
    }

    /// Serves one stream until it breaks.
    async fn talk(&mut self, mut stream: Stream) -> TalkError {
        self.reporter.forget();
        self.engine.ended.clear();
        self.chores.report_soon();
        loop {
            let result = tokio::select! {
                message = stream.next() => match message {
                    Ok(message) => {
                        let result = self.receive(message, &stream).await;
                        // Whatever became of it, and after what was done has been acknowledged.
                        blocking(|| self.shield.forget(&mut self.engine));
                        result
                    }
                    Err(error) => Err(error.into()),
                },
                chore = self.chores.next() => self.attend(chore, Some(&stream)).await,
            };
            if let Err(error) = result {
                return error;
            }
        }
    }

    async fn receive(&mut self, received: Received, stream: &Stream) -> Result<(), TalkError> {
        let at = received.at;
        let result = match received.message.message {
            Some(Message::Snapshot(snapshot)) => {
                blocking(|| self.engine.snapshot_received(snapshot, at))
            }
            Some(Message::Delta(delta)) => blocking(|| self.engine.delta_received(delta, at)),
            Some(Message::SetTrace(wanted)) => {
                if let Err(error) = self.trace.set(&mut self.engine, wanted) {
                    self.engine.note(format!("no trace: {error}"));
                }
                return Ok(());
            }
            Some(Message::Explain(question)) => {
                stream.explained(explain(&self.engine, question))?;
                return Ok(());
            }
            Some(Message::Refused(refused)) => return Err(TalkError::Refused(refused.reason)),
            None => return Err(TalkError::Empty),
        };
        match result {
            Ok(outcome) => {
                self.from_scratch = false;
                self.follow(&outcome).await;
                stream.applied(outcome.applied)?;
                Ok(())
            }
            // Nothing is acknowledged: control goes on reporting it as pending.
            Err(
                error @ (EngineError::Datapath(_)
                | EngineError::WireGuard(_)
                | EngineError::Policy(_)),
            ) => {
                self.engine.note(error.to_string());
                Ok(())
            }
            Err(error) => {
                // A gap is no fault; everything else is worth an admin's attention.
                if !matches!(error, EngineError::Desired(DesiredError::Gap { .. })) {
                    self.engine.note(error.to_string());
                }
                self.from_scratch = true;
                Err(TalkError::OutOfStep(error))
            }
        }
    }

    /// What the interface needs after peers or the location changed.
    async fn follow(&mut self, outcome: &Outcome) {
        if outcome.location_changed {
            self.shield.keep(&mut self.engine).await;
            self.configure().await;
        } else if outcome.peers_changed {
            let result = self.interface.route(&self.engine).await;
            self.tell_trouble(result);
        }
    }

    async fn attend(&mut self, chore: Chore, stream: Option<&Stream>) -> Result<(), TalkError> {
        match chore {
            Chore::Inspect => {
                self.chores.log();
                self.shield.forget(&mut self.engine);
                self.shield.log();
                self.tell_trace(stream)?;
                self.inspect(stream).await
            }
            Chore::Reconcile => {
                self.configure().await;
                self.reconcile(stream).await
            }
            Chore::Report => {
                self.shield.keep(&mut self.engine).await;
                if stream.is_some() {
                    self.chores.read_device();
                }
                Ok(())
            }
            Chore::Scrape(asker) => {
                let mut figures = self
                    .flows
                    .read(&self.engine, &self.interface, self.connected);
                figures.shield = self.shield.figures();
                asker.answer(figures);
                Ok(())
            }
            Chore::DeviceRead(device) => {
                let Some(stream) = stream else { return Ok(()) };
                let device = device.unwrap_or_else(|error| {
                    tracing::debug!("no traffic figures: {error}");
                    Default::default()
                });
                match self
                    .reporter
                    .report(&mut self.engine, &device, self.shield.counts())
                {
                    Ok(Some(report)) => stream.report(report)?,
                    Ok(None) => {}
                    Err(error) => tracing::warn!("no report: {error}"),
                }
                Ok(())
            }
        }
    }

    fn end_trace(&mut self) {
        if let Err(error) = self.trace.stop(&mut self.engine) {
            tracing::warn!("the trace is still on: {error}");
        }
    }

    fn tell_trace(&mut self, stream: Option<&Stream>) -> Result<(), TalkError> {
        self.trace.read(self.engine.datapath());
        let Some(stream) = stream else { return Ok(()) };
        match self.trace.messages(&self.engine) {
            Ok(messages) => {
                let lost = stream.trace(messages)?;
                self.trace.lost(lost);
            }
            Err(error) => tracing::debug!("no trace: {error}"),
        }
        Ok(())
    }

    async fn inspect(&mut self, stream: Option<&Stream>) -> Result<(), TalkError> {
        match self.interface.inspect(&mut self.engine).await {
            Ok(Inspected::Sound) => {}
            Ok(Inspected::Reattached) => self.engine.note(reattached_event(&self.name)),
            Ok(Inspected::Remade) => {
                self.engine.note(format!(
                    "interface {} was removed: made again, closed",
                    self.name
                ));
                let outcome = blocking(|| self.engine.reconcile());
                self.configure().await;
                return self.acknowledge(outcome, stream);
            }
            Ok(Inspected::Unconfigured) => {
                let wait = self
                    .trouble
                    .as_ref()
                    .is_some_and(|t| Instant::now() < t.retry_at);
                if !wait {
                    self.configure().await;
                }
            }
            Err(error) => self.tell_trouble(Err(error)),
        }
        Ok(())
    }

    async fn configure(&mut self) {
        let result = self.interface.configure(&mut self.engine).await;
        self.tell_trouble(result);
    }

    fn tell_trouble(&mut self, result: Result<(), InterfaceError>) {
        let Err(error) = result else {
            self.trouble = None;
            return;
        };
        let trouble = Trouble {
            text: error.to_string(),
            retry_at: Instant::now() + RETRY,
        };
        if self
            .trouble
            .as_ref()
            .is_none_or(|known| known.text != trouble.text)
        {
            self.engine.note(trouble.text.clone());
        }
        self.trouble = Some(trouble);
    }

    /// Compares everything with the kernel.
    async fn reconcile(&mut self, stream: Option<&Stream>) -> Result<(), TalkError> {
        let outcome = blocking(|| self.engine.reconcile());
        if let Ok(outcome) = &outcome
            && outcome.peers_changed
        {
            self.engine
                .note("peers had drifted from what control wants: repaired".into());
            self.follow(outcome).await;
        }
        self.acknowledge(outcome, stream)
    }

    /// Tells control what the kernel holds, unasked: it notices drift by the digest.
    fn acknowledge(
        &mut self,
        outcome: Result<Outcome, EngineError>,
        stream: Option<&Stream>,
    ) -> Result<(), TalkError> {
        match outcome {
            Ok(outcome) => {
                if let Some(stream) = stream.filter(|_| outcome.applied.revision != 0) {
                    stream.applied(outcome.applied)?;
                }
            }
            Err(error) => self.engine.note(error.to_string()),
        }
        Ok(())
    }
}

/// Why a stream is given up.
#[derive(Debug, thiserror::Error)]
enum TalkError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("control refuses this gateway: {0}")]
    Refused(String),
    #[error("control sent a message of a kind that this version does not know")]
    Empty,
    #[error("{0}; asking for a snapshot")]
    OutOfStep(EngineError),
}
