//! One agent for each interface: two would undo each other's work.
//!
//! The claim is an abstract Unix socket of the interface's name. Such names belong to the network
//! namespace, as interfaces do, need no directory that two agents would have to agree on, and go
//! with the process, however it ends.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

/// The interface could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Somebody has.
    #[error(
        "an agent for interface {0} runs already in this network namespace: stop it first, or name another interface \
         in agent.interface (`ss -xlp | grep portcullis-agent` shows who it is)"
    )]
    Running(String),
    /// The claim itself failed.
    #[error("cannot claim interface {interface} for this agent: {source}")]
    Socket {
        /// The interface.
        interface: String,
        /// Why.
        source: io::Error,
    },
}

/// Holds the interface for this process until it is dropped.
#[derive(Debug)]
pub(crate) struct Instance {
    _claim: UnixListener,
}

impl Instance {
    pub(crate) fn claim(interface: &str) -> Result<Self, InstanceError> {
        let name = format!("portcullis-agent-{interface}");
        SocketAddr::from_abstract_name(name)
            .and_then(|address| UnixListener::bind_addr(&address))
            .map(|claim| Self { _claim: claim })
            .map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => InstanceError::Running(interface.to_owned()),
                _ => InstanceError::Socket {
                    interface: interface.to_owned(),
                    source,
                },
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_claimed_once_until_it_is_let_go() {
        let first = Instance::claim("claimtest0").expect("free");
        let refused = Instance::claim("claimtest0").expect_err("taken");
        assert!(refused.to_string().contains("claimtest0 runs already"));
        Instance::claim("claimtest1").expect("another interface");
        drop(first);
        Instance::claim("claimtest0").expect("free again");
    }
}
