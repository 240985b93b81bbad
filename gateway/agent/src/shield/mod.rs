//! Keeps the shield on the network card: attached, told of the port and of the machine's own addresses,
//! and forgetting the peers that are gone. The gate does not depend on it: what fails here is told,
//! tried again, and leaves WireGuard's packets to WireGuard.

mod config;
mod cut;
mod events;
mod figures;
mod flood;

use std::net::IpAddr;
use std::time::Instant;

use portcullis_proto::v1;

pub use config::ShieldConfig;
pub(crate) use cut::Cut;
pub(crate) use figures::ShieldFigures;

use crate::config::AgentConfig;
use crate::datapath::{DatapathError, SHIELD_REPORTED_AS, Shield, ShieldKept, ShieldWanted};
use crate::engine::Engine;
use crate::link::{Link, LinkError};
use events::Events;
use flood::{Change, Flood};

/// What stands in the shield's way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShieldError {
    #[error("the shield's interface {0} is not there")]
    NoInterface(String),
    #[error("the shield's interface {0} is no Ethernet interface")]
    NotEthernet(String),
    #[error("the shield: {0}")]
    Link(#[from] LinkError),
    #[error("the shield: {0}; is there another XDP program on the interface?")]
    Busy(DatapathError),
    #[error("the shield: {0}")]
    Datapath(#[from] DatapathError),
}

/// The shield, if the configuration wants one.
pub(crate) struct Keeper(Option<Active>);

struct Active {
    config: ShieldConfig,
    link: Link,
    shield: Shield,
    events: Events,
    flood: Flood,
    /// Told last, so that the same is not told every few seconds.
    told: Option<String>,
}

impl Keeper {
    /// Loads the shield, or takes away what an earlier run with another configuration left. Must be called within
    /// a Tokio runtime.
    pub(crate) fn open(config: &AgentConfig, engine: &mut Engine) -> Self {
        let Some(shield) = config.shield.clone() else {
            if let Err(error) = Shield::teardown(&config.datapath()) {
                engine.note(format!(
                    "the shield is off, but cannot be taken away: {error}"
                ));
            }
            return Self(None);
        };
        match Active::open(config, shield) {
            Ok(active) => {
                engine.watch_cut(active.config.forget_locked);
                Self(Some(active))
            }
            Err(error) => {
                engine.note(format!("there is no shield: {error}"));
                Self(None)
            }
        }
    }

    /// Brings the shield to what the location and the machine's addresses ask for.
    pub(crate) async fn keep(&mut self, engine: &mut Engine) {
        let Some(active) = &mut self.0 else { return };
        match active.keep(engine).await {
            Ok(ShieldKept::Sound) => active.told = None,
            Ok(ShieldKept::Attached { native }) => {
                let mode = if native { "native" } else { "generic" };
                tracing::info!(interface = active.config.interface, mode, "shield attached");
                active.told = None;
            }
            Err(error) => {
                let error = error.to_string();
                if active.told.as_ref() != Some(&error) {
                    engine.note(error.clone());
                    active.told = Some(error);
                }
            }
        }
        if let Some(note) = active.observe() {
            engine.note(note);
        }
    }

    /// Forgets the peers that were removed or locked since.
    pub(crate) fn forget(&mut self, engine: &mut Engine) {
        let Some(active) = &mut self.0 else { return };
        let endpoints = engine.take_cut();
        if !endpoints.is_empty() {
            let indexes = active.shield.forget(&endpoints);
            tracing::debug!(
                peers = endpoints.len(),
                indexes,
                "shield forgot peers that were cut off"
            );
        }
    }

    /// Logs samples of what was dropped.
    pub(crate) fn log(&mut self) {
        if let Some(active) = &mut self.0 {
            active.events.log();
        }
    }

    /// For Prometheus, where there is a shield.
    pub(crate) fn figures(&self) -> Option<ShieldFigures> {
        self.0
            .as_ref()
            .map(|active| ShieldFigures::read(&active.shield))
    }

    /// What was counted, for control.
    pub(crate) fn counts(&self) -> Vec<v1::ReasonCount> {
        let Some(active) = &self.0 else {
            return Vec::new();
        };
        let counters = active.shield.counters().unwrap_or_else(|error| {
            tracing::warn!("no figures of the shield: {error}");
            Vec::new()
        });
        counters
            .into_iter()
            .map(|(reason, packets)| v1::ReasonCount {
                reason: reason as u32,
                direction: SHIELD_REPORTED_AS,
                packets,
            })
            .collect()
    }
}

impl Active {
    fn open(config: &AgentConfig, shield: ShieldConfig) -> Result<Self, ShieldError> {
        let link = Link::new(&shield.interface)?;
        let mut kernel = Shield::open(&config.datapath())?;
        Ok(Self {
            events: Events::new(kernel.take_events()),
            flood: Flood::default(),
            config: shield,
            link,
            shield: kernel,
            told: None,
        })
    }

    async fn keep(&mut self, engine: &Engine) -> Result<ShieldKept, ShieldError> {
        // Without a location there is no WireGuard port, and nothing to shield.
        let Some(port) = engine.location().map(|location| location.listen_port) else {
            return Ok(ShieldKept::Sound);
        };
        let found = self.link.find().await?;
        let found = found.ok_or_else(|| ShieldError::NoInterface(self.config.interface.clone()))?;
        if !found.is_ethernet {
            return Err(ShieldError::NotEthernet(self.config.interface.clone()));
        }
        let wanted = ShieldWanted {
            ifindex: found.index,
            mode: self.config.mode,
            port,
            local: self.local(found.index).await?,
            budgets: self.config.budgets(shares(found.receive_queues)),
        };
        self.shield.keep(&wanted).map_err(|error| {
            if error.is_busy() {
                ShieldError::Busy(error)
            } else {
                error.into()
            }
        })
    }

    /// What an admin should hear about floods.
    fn observe(&mut self) -> Option<String> {
        let counters = self.shield.counters().ok()?;
        let card = &self.config.interface;
        Some(match self.flood.observe(&counters, Instant::now())? {
            Change::Begun { per_second, mostly } => {
                let source = self
                    .events
                    .last_source()
                    .map_or_else(String::new, |source| {
                        format!("; one is from {source}, or says so")
                    });
                format!(
                    "the shield drops {per_second} messages a second on {card}, mostly {mostly}{source}"
                )
            }
            Change::Over { after, dropped } => format!(
                "the flood on {card} is over after {} s: the shield dropped {dropped} messages",
                after.as_secs()
            ),
        })
    }

    /// The machine's own addresses, the card's first: the programs know a few of each family only.
    async fn local(&self, card: u32) -> Result<Vec<IpAddr>, LinkError> {
        let mut all = self.link.all_addresses().await?;
        all.retain(|(_, address)| !address.is_loopback());
        all.sort_by_key(|&(index, address)| (index != card, address));
        Ok(all.into_iter().map(|(_, address)| address).collect())
    }
}

/// CPUs that may receive from the card at the same time.
fn shares(receive_queues: u32) -> u32 {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    receive_queues.clamp(1, u32::try_from(cpus).unwrap_or(u32::MAX))
}
