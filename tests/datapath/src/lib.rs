//! What the tests and measurements of the datapath share: packet builders, a gate of one's own on the
//! kernel, and the same gate in memory.
#![forbid(unsafe_code)]

pub mod bench;
pub mod bench_shield;
pub mod figure;
pub mod fuzz;
pub mod kernel;
pub mod memory;
pub mod observer;
pub mod packets;
pub mod rules;
pub mod scene;
pub mod shield;
pub mod switch;
pub mod wireguard;
