//! The gateway's side: keeps kernel WireGuard, the eBPF datapath and the interface as control wants
//! them, and enforced whatever happens to control, to the network or to the agent itself.
//!
//! `unsafe` is confined to [`datapath`].
#![deny(unsafe_code)]

pub mod config;
pub mod datapath;
pub mod desired;
pub mod doctor;
pub mod engine;
pub mod enroll;
pub mod held;
pub mod identity;
pub mod interface;
pub mod keys;
pub mod link;
pub mod reconcile;
pub mod shield;
pub mod sysctl;
pub mod wireguard;

mod agent;
mod backoff;
mod blocking;
mod chores;
mod debug_log;
mod explain;
mod figures;
mod instance;
mod pem;
mod report;
mod stream;
mod teardown;
mod trace;
mod transport;
mod watch;

pub use agent::{Agent, AgentError};
pub use config::AgentConfig;
pub use figures::Figures;
pub use instance::InstanceError;
pub use link::LinkMode;
pub use teardown::teardown;
