//! Keeps the interface there, enforced and configured: the programs come before anything else.

use std::sync::Arc;

use crate::blocking::blocking;
use crate::datapath::DatapathError;
use crate::desired::Location;
use crate::engine::Engine;
use crate::instance::InstanceError;
use crate::keys::PrivateKey;
use crate::link::{Link, LinkError, LinkMode};
use crate::sysctl::{self, SysctlError};
use crate::wireguard::{DeviceSettings, WireGuard, WireGuardError};

/// What stands in the way of a working interface. Whatever it is, the interface is down or
/// enforced.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    #[error(transparent)]
    Instance(#[from] InstanceError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("cannot attach to the interface: {0}")]
    Datapath(#[from] DatapathError),
    #[error(transparent)]
    WireGuard(#[from] WireGuardError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

/// The interface that the programs are attached to.
pub(crate) struct Interface {
    index: u32,
    /// `None` where somebody else owns it.
    managed: Option<Managed>,
}

struct Managed {
    link: Link,
    wireguard: Arc<dyn WireGuard>,
    private_key: PrivateKey,
}

/// What [`Interface::inspect`] found, and repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inspected {
    Sound,
    /// A program had been taken from a hook, and is back.
    Reattached,
    /// The interface had been removed: there is a new one, down and without peers.
    Remade,
    /// Configuration is missing: the interface is down, or was not configured yet.
    Unconfigured,
}

impl Interface {
    /// Refuses an interface that the agent must not touch, before anything is loaded or pinned.
    pub(crate) async fn check(mode: LinkMode, name: &str) -> Result<(), InterfaceError> {
        if mode == LinkMode::Managed
            && let Some(found) = Link::new(name)?.find().await?
            && !found.is_wireguard
        {
            return Err(LinkError::NotWireGuard(name.to_owned()).into());
        }
        Ok(())
    }

    /// Finds or makes the interface, and attaches the programs before anything else. An interface
    /// that carries pinned programs is left as it is, but for the programs being replaced in
    /// place; any other one is down before they are attached.
    pub(crate) async fn open(
        mode: LinkMode,
        name: &str,
        wireguard: Arc<dyn WireGuard>,
        private_key: PrivateKey,
        engine: &mut Engine,
    ) -> Result<Self, InterfaceError> {
        if let LinkMode::Existing { index } = mode {
            engine.attach(index)?;
            return Ok(Self {
                index,
                managed: None,
            });
        }
        let managed = Managed {
            link: Link::new(name)?,
            wireguard,
            private_key,
        };
        let index = managed.open(engine).await?;
        Ok(Self {
            index,
            managed: Some(managed),
        })
    }

    /// Whether both programs are where they belong, and puts them back.
    ///
    /// While a program is missing the interface is open, so this comes first and asks nobody. If
    /// the program cannot be attached, the interface is taken down.
    pub(crate) async fn inspect(
        &mut self,
        engine: &mut Engine,
    ) -> Result<Inspected, InterfaceError> {
        let Some(managed) = &self.managed else {
            return Ok(reattach(engine, self.index)?);
        };
        let found = managed.link.find().await?;
        let Some(found) = found.filter(|found| found.index == self.index) else {
            self.index = managed.open(engine).await?;
            return Ok(Inspected::Remade);
        };
        match reattach(engine, self.index) {
            Ok(Inspected::Sound) if !found.is_up => Ok(Inspected::Unconfigured),
            Ok(inspected) => Ok(inspected),
            Err(error) => {
                managed.link.set_down(self.index).await?;
                Err(error.into())
            }
        }
    }

    /// Brings the interface to what the location says, and up. Peers are the engine's.
    pub(crate) async fn configure(&self, engine: &mut Engine) -> Result<(), InterfaceError> {
        let (Some(managed), Some(location)) = (&self.managed, engine.location().cloned()) else {
            return Ok(());
        };
        match reattach(engine, self.index) {
            Ok(Inspected::Reattached) => engine.note(reattached_event(managed.link.name())),
            Ok(_) => {}
            Err(error) => {
                managed.link.set_down(self.index).await?;
                return Err(error.into());
            }
        }
        managed.configure(self.index, &location).await?;
        self.route(engine).await
    }

    /// Routes what the interface's own networks do not cover.
    pub(crate) async fn route(&self, engine: &Engine) -> Result<(), InterfaceError> {
        if let Some(managed) = &self.managed {
            managed
                .link
                .set_routes(self.index, &engine.routes())
                .await?;
        }
        Ok(())
    }

    /// Index of the interface as it was found last.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    pub(crate) fn is_managed(&self) -> bool {
        self.managed.is_some()
    }
}

impl Managed {
    async fn open(&self, engine: &mut Engine) -> Result<u32, InterfaceError> {
        let index = match self.link.find().await? {
            Some(found) if !found.is_wireguard => {
                return Err(LinkError::NotWireGuard(self.link.name().to_owned()).into());
            }
            Some(found) => {
                // Where the kernel runs an earlier run's programs on it they are replaced in place,
                // and nothing is interrupted. Anything else has been open, maps or no maps.
                let enforced = engine.datapath().holds(found.index).unwrap_or(false);
                if found.is_up && !enforced {
                    let interface = self.link.name();
                    tracing::info!(interface, "taking it down until it is enforced");
                    self.link.set_down(found.index).await?;
                }
                found.index
            }
            None => self.link.create().await?,
        };
        match engine.attach(index) {
            Ok(attached) => {
                tracing::info!(interface = self.link.name(), index, ?attached, "enforced");
                Ok(index)
            }
            Err(error) => {
                self.link.set_down(index).await?;
                Err(error.into())
            }
        }
    }

    async fn configure(&self, index: u32, location: &Location) -> Result<(), InterfaceError> {
        let device = blocking(|| self.wireguard.read())?;
        if device.public_key != Some(self.private_key.public_key())
            || device.listen_port != location.listen_port
        {
            self.wireguard.configure(&DeviceSettings {
                private_key: self.private_key.clone(),
                listen_port: location.listen_port,
            })?;
        }
        let found = self.link.find().await?.filter(|found| found.index == index);
        let found = found.ok_or_else(|| LinkError::Gone(self.link.name().to_owned()))?;
        if found.mtu != location.mtu {
            self.link.set_mtu(index, location.mtu).await?;
        }
        self.link.set_addresses(index, &location.addresses).await?;
        if !found.is_up {
            self.link.set_up(index).await?;
        }
        // Last: the machine forwards for nobody on our account before the interface is enforced.
        sysctl::enable_forwarding(self.link.name(), &location.addresses)?;
        Ok(())
    }
}

pub(crate) fn reattached_event(interface: &str) -> String {
    format!("a program had been detached from {interface}: attached again")
}

fn reattach(engine: &mut Engine, index: u32) -> Result<Inspected, DatapathError> {
    if engine.is_attached(index)? {
        return Ok(Inspected::Sound);
    }
    engine.attach(index)?;
    Ok(Inspected::Reattached)
}
