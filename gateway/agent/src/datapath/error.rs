//! What can go wrong between the agent and the kernel.

use std::{io, path::PathBuf};

use ipnet::IpNet;
use thiserror::Error;

/// A failed operation on the datapath. None of them leaves anything open that was closed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DatapathError {
    /// The directory for pins could not be made or read.
    #[error("pin directory {path}: {source}; is a BPF file system mounted there?")]
    PinDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A pinned map is not of the shape this version and configuration ask for.
    #[error(
        "pinned map {map} is of another shape ({found}; wanted {wanted}): set max_peers and max_flows back, or run \
         `portcullis agent teardown` and start again, which ends every session"
    )]
    PinnedMapOfAnotherShape {
        /// The map's name.
        map: &'static str,
        /// What is pinned.
        found: String,
        /// What was expected.
        wanted: String,
    },
    /// The pin directory lacks a map: something else removed it.
    #[error(
        "pinned map {map} is missing from {path}: run `portcullis agent teardown` and start again, which ends every \
         session"
    )]
    PinnedMapMissing {
        /// The map's name.
        map: &'static str,
        /// The directory.
        path: PathBuf,
    },
    /// The object that the agent carries has no such map or program, or one of another type.
    #[error("the eBPF object has no usable {0}")]
    Object(&'static str),
    /// The kernel refused the object or a map in it.
    #[error("loading the eBPF object: {0}")]
    Load(#[from] aya::EbpfError),
    /// The kernel refused a program, or to attach it.
    #[error("{action} program {program}: {source}")]
    Program {
        /// What was done.
        action: &'static str,
        /// With which program.
        program: &'static str,
        /// Why it failed.
        source: aya::programs::ProgramError,
    },
    /// A map could not be used.
    #[error("map {map}: {source}")]
    Map {
        /// The map's name.
        map: &'static str,
        /// Why.
        source: aya::maps::MapError,
    },
    /// A system call failed.
    #[error("{call} on {target}: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// What it was made on.
        target: String,
        /// Why.
        source: io::Error,
    },
    /// Programs of ours, over the same maps, are attached to another interface that is alive.
    #[error(
        "{program} is still attached to {holder}, which {interface} was before it was renamed or moved: remove that \
         interface, or give it its name back; until then it stays enforced, and {interface} is not brought up"
    )]
    AttachedElsewhere {
        /// The program.
        program: &'static str,
        /// The interface that has it.
        holder: String,
        /// The interface that should have it.
        interface: String,
    },
    /// Another program runs before ours, and could let a packet past it.
    #[error("{program} is not the first program on {interface}: detach what is before it")]
    NotFirst {
        /// The program.
        program: &'static str,
        /// The interface.
        interface: String,
    },
    /// The ingress hook of the interface belongs to a qdisc that has no egress hook.
    #[error(
        "{interface} has the queueing discipline `{kind}` where `clsact` has to be: remove it \
         (`tc qdisc del dev {interface} {kind}`)"
    )]
    Qdisc {
        /// The interface.
        interface: String,
        /// What is there.
        kind: String,
    },
    /// Every slot of the peer maps is taken.
    #[error("no room for another peer: max_peers is {0}")]
    Full(u32),
    /// A helping thread ended early.
    #[error("loading addresses was interrupted")]
    Interrupted,
    /// No such peer.
    #[error("the datapath holds no such peer")]
    UnknownPeer,
    /// The all-zero key marks a free slot and is no valid public key.
    #[error("the all-zero public key is not a peer")]
    InvalidKey,
    /// A session that permits nothing, or has no name, is not a grant.
    #[error("a session needs a tag and a deadline other than 0")]
    InvalidSession,
    /// Programs could not be asked about a packet.
    #[error("program test-run: {0}")]
    Trial(&'static str),
    /// Addresses of a peer are networks: no host bits.
    #[error("{0} has host bits set")]
    HostBits(IpNet),
}

impl DatapathError {
    /// Whether somebody else's program is where ours should be.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::Program { source, .. } if super::hooks::errno(source) == Some(libc::EBUSY))
    }
}
