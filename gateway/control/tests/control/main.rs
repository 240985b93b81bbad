//! The control service against real databases: SQLite files, and a PostgreSQL server that the
//! tests start for themselves. Gateways are played over real mutual TLS.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accounts;
mod admin;
mod approvals;
mod authenticator;
mod connect;
mod connect_passkey;
mod connect_sso;
mod enrol;
mod factors;
mod fixture;
mod gateway;
mod invites;
mod limits;
mod login;
mod mfa;
mod newcomer;
mod outside;
mod outside_passkeys;
mod own_devices;
mod own_factors;
mod own_sessions;
mod passkeys;
mod policy;
mod postgres;
mod recovery;
mod renewal;
mod roaming;
mod rogue;
mod secrets;
mod seeing;
mod session_key;
mod ssh;
mod sso;
mod sso_bounds;
mod sso_logout;
mod store;
mod successors;
mod sync;
mod temporary;
