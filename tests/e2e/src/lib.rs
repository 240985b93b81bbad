//! What the end-to-end tests and the demo are made of: network namespaces joined into a small internet, a gateway in
//! it, stock WireGuard clients, and traffic whose every packet is accounted for.
//!
//! Everything needs root and a kernel with WireGuard; `cargo xtask test` provides both in a VM.
#![forbid(unsafe_code)]

mod command;
pub mod flows;
mod gate;
mod namespace;
mod openmetrics;
mod peer;
mod user;
mod wait;
mod world;

pub use command::{Output, Running, run, try_run};
pub use gate::{Gate, Mode, Options, with_gate, with_gate_prepared};
pub use namespace::Namespace;
pub use openmetrics::{Exposition, Labels};
pub use peer::Peer;
pub use user::User;
pub use wait::{eventually, for_a_while};
pub use world::{SERVER_V4, SERVER_V6, World};
