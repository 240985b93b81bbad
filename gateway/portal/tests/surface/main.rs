//! What every route of the portal answers to those who mean it harm. The routes are asked of the routers
//! themselves: a new one without a case fails here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bodies;
mod names;
#[path = "../../../control/tests/control/postgres.rs"]
#[expect(dead_code, reason = "control's tests use more of it")]
mod postgres;
mod redirects;
mod routes;
mod sites;
mod world;
