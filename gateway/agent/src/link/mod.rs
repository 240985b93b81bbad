//! The WireGuard interface as a network device: made, addressed, routed, brought up; all over
//! rtnetlink.

mod addresses;
mod detour;
mod routes;

use std::future::Future;
use std::io;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::{Handle, LinkUnspec, LinkWireguard};
use tokio::task::JoinHandle;

/// The kernel answers at once, unless somebody holds its configuration lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the agent's interface comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkMode {
    /// The agent makes the WireGuard interface where there is none, and configures it.
    Managed,
    /// Somebody else owns the interface of this index: only the programs are attached to it.
    Existing {
        /// Of the interface.
        index: u32,
    },
}

/// A request that the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("cannot open a route netlink socket: {0}")]
    Socket(io::Error),
    #[error(
        "there is an interface {0} that is not WireGuard's: name another one in agent.interface, or remove it"
    )]
    NotWireGuard(String),
    #[error(
        "this kernel cannot make a WireGuard interface: install or load its module (`modprobe wireguard`)"
    )]
    NoWireGuard,
    #[error("not permitted to {action} {interface}: CAP_NET_ADMIN is needed")]
    NotPermitted {
        action: &'static str,
        interface: String,
    },
    #[error("cannot {action} {interface}: {reason}")]
    Netlink {
        action: &'static str,
        interface: String,
        reason: String,
    },
    #[error("cannot bring up {0}: its UDP port is taken by another program or interface")]
    PortTaken(String),
    #[error("interface {0} is gone")]
    Gone(String),
}

/// A network device as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The kernel's number for it; another interface of the same name has another one.
    pub index: u32,
    /// Whether it is of WireGuard's kind.
    pub is_wireguard: bool,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Bytes.
    pub mtu: u32,
    pub is_ethernet: bool,
    pub receive_queues: u32,
}

/// The interface of this name, whether or not it exists.
#[derive(Debug)]
pub struct Link {
    name: String,
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Link {
    /// Opens the socket; must be called within a Tokio runtime.
    pub fn new(name: impl Into<String>) -> Result<Self, LinkError> {
        // With strict checking the kernel filters routes, of which there may be a million.
        let (connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().map_err(LinkError::Socket)?;
        Ok(Self {
            name: name.into(),
            handle,
            connection: tokio::spawn(connection),
        })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface, if there is one of this name.
    pub async fn find(&self) -> Result<Option<Found>, LinkError> {
        let request = self.handle.link().get().match_name(self.name.clone());
        match answer(request.execute().try_next()).await {
            Ok(message) => Ok(message.as_ref().map(found)),
            Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(self.failed("look at", error)),
        }
    }

    /// Makes the interface, down, and answers with its index.
    pub async fn create(&self) -> Result<u32, LinkError> {
        let message = LinkWireguard::new(&self.name).build();
        answer(self.handle.link().add(message).execute())
            .await
            .map_err(|error| match errno(&error) {
                Some(libc::EOPNOTSUPP) => LinkError::NoWireGuard,
                _ => self.failed("make", error),
            })?;
        let found = self
            .find()
            .await?
            .ok_or_else(|| LinkError::Gone(self.name.clone()))?;
        if found.is_wireguard {
            Ok(found.index)
        } else {
            Err(LinkError::NotWireGuard(self.name.clone()))
        }
    }

    /// From here on packets pass; IPv6 addresses must have been set before.
    pub async fn set_up(&self, index: u32) -> Result<(), LinkError> {
        self.set("bring up", LinkUnspec::new_with_index(index).up().build())
            .await
    }

    /// Takes the interface's routes and IPv6 addresses along.
    pub async fn set_down(&self, index: u32) -> Result<(), LinkError> {
        self.set(
            "take down",
            LinkUnspec::new_with_index(index).down().build(),
        )
        .await
    }

    /// In bytes.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), LinkError> {
        self.set(
            "set the MTU of",
            LinkUnspec::new_with_index(index).mtu(mtu).build(),
        )
        .await
    }

    /// Removes the interface, and with it its peers, addresses and routes.
    pub async fn delete(&self, index: u32) -> Result<(), LinkError> {
        let result = answer(self.handle.link().del(index).execute()).await;
        result.map_err(|error| self.failed("remove", error))
    }

    async fn set(&self, action: &'static str, message: LinkMessage) -> Result<(), LinkError> {
        let result = answer(self.handle.link().set(message).execute()).await;
        result.map_err(|error| self.failed(action, error))
    }

    fn failed(&self, action: &'static str, error: rtnetlink::Error) -> LinkError {
        let interface = self.name.clone();
        match &error {
            rtnetlink::Error::NetlinkError(message) => match -message.raw_code() {
                libc::EPERM => LinkError::NotPermitted { action, interface },
                libc::ENODEV => LinkError::Gone(interface),
                libc::EADDRINUSE => LinkError::PortTaken(interface),
                _ => LinkError::Netlink {
                    action,
                    interface,
                    reason: message.to_io().to_string(),
                },
            },
            rtnetlink::Error::RequestFailed => LinkError::Netlink {
                action,
                interface,
                reason: "the kernel does not answer".into(),
            },
            other => LinkError::Netlink {
                action,
                interface,
                reason: other.to_string(),
            },
        }
    }
}

/// Waits for the kernel's answer, but not for ever: the agent has programs to watch.
async fn answer<T>(
    request: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, rtnetlink::Error> {
    tokio::time::timeout(PATIENCE, request)
        .await
        .unwrap_or(Err(rtnetlink::Error::RequestFailed))
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}

fn found(message: &LinkMessage) -> Found {
    let mut mtu = 0;
    let mut receive_queues = 1;
    let mut is_wireguard = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::NumRxQueues(queues) => receive_queues = *queues,
            LinkAttribute::LinkInfo(infos) => {
                is_wireguard |= infos.contains(&LinkInfo::Kind(InfoKind::Wireguard));
            }
            _ => {}
        }
    }
    Found {
        index: message.header.index,
        is_wireguard,
        is_up: message.header.flags.contains(LinkFlags::Up),
        mtu,
        // The loopback interface has an Ethernet header, too.
        is_ethernet: matches!(
            message.header.link_layer_type,
            LinkLayerType::Ether | LinkLayerType::Loopback
        ),
        receive_queues,
    }
}
