//! What gateways tell beside their state: packets as they happen, traffic, and figures about both.

pub(crate) mod metrics;
pub(crate) mod trace;
pub(crate) mod traffic;
