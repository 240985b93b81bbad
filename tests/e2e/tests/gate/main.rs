//! End to end: real kernel WireGuard, stock clients, the real binary. Runs as root in a VM, one test at a time.
//!
//! Names cite the invariants of ARCHITECTURE.md that a test holds to.

mod answers;
mod bad_input;
mod before_login;
mod browser;
mod captive;
mod connect;
mod deadlines;
mod engines;
mod explain;
mod full_disk;
mod full_tunnel;
mod login;
mod metrics;
mod mfa_policy;
mod partition;
mod policy;
mod racing;
mod reconcile;
mod renewal;
mod repair;
mod restart;
mod revocation;
mod roaming;
mod seeing;
mod session_key;
mod shield;
mod ssh;
mod sso;
mod temporary;
mod traffic;
mod world;

use std::net::SocketAddr;
use std::time::Duration;

use e2e_tests::flows::ECHO_PORT;
use e2e_tests::{SERVER_V4, SERVER_V6};

/// The server's echo service.
fn echo_v4() -> SocketAddr {
    (SERVER_V4, ECHO_PORT).into()
}

/// The same over IPv6.
fn echo_v6() -> SocketAddr {
    (SERVER_V6, ECHO_PORT).into()
}

/// Between two datagrams of a probe.
const INTERVAL: Duration = Duration::from_millis(25);
/// Silence of this length means that a flow is cut: many times a probe's interval, with room for a busy machine.
const SILENCE: Duration = Duration::from_secs(3);
/// For what should happen soon, on a slow machine.
const SOON: Duration = Duration::from_secs(30);
