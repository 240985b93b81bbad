//! Policies in the kernel: what the specification says, what the decision in memory says and what the
//! programs do must be one and the same (invariant 8).
#![allow(
    clippy::unwrap_used,
    reason = "a fixture that cannot be made is a failed test"
)]

mod agreement;
mod generate;
mod limits;
mod sentences;
