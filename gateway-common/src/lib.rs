//! What the eBPF programs and userspace must agree on: map types, the packet model and its parser,
//! the clock, reasons, and the one decision function.
//!
//! Nothing here allocates, blocks, reads a clock or touches a map by itself, so the same code runs
//! in the kernel, in `policy eval`, in property tests and under a fuzzer.
#![no_std]

pub mod abi;
pub mod answer;
pub mod clock;
pub mod decide;
pub mod explain;
pub mod packet;
pub mod parse;
pub mod policy;
pub mod shield;
pub mod verdict;
