//! The rules: their language, and the tables that a gateway's kernel decides from.
//!
//! [`Policy::parse`] reads a file and refuses it whole where anything in it is wrong.
//! [`CompiledPolicy::compile`] makes the tables, [`CompiledPolicy::assign`] says which of them hold
//! for a user, and [`CompiledPolicy::lookup`] reads them as the kernel does. [`reach`] and
//! [`changes`] tell people what a policy means.
//!
//! Everything here is pure: no clock, no store, no kernel.

mod compile;
pub mod eval;
pub mod limits;
mod load;
mod lookup;
mod outcome;
mod parse;
mod ports;
mod prefix;
mod principal;
mod problem;
mod report;
mod rule;
pub(crate) mod shadow;
mod span;
mod tables;
mod wire;

pub use compile::{Classes, CompileError, CompiledPolicy};
pub use load::{Finding, Refusal, load, refused};
pub use outcome::{Outcome, RuleOutcome};
pub use ports::PortSpec;
pub use principal::{Principal, Subject};
pub use problem::{Fault, Problem, Problems};
pub use report::{Change, Effect, Reach, changes, reach};
pub use rule::{Action, Policy, Rule};
pub use span::PortSpan;
pub use tables::{
    EffectivePolicy, Family, GrantKey, IntervalList, NO_REGION, PortInterval, PrefixEntry, Region,
    Tables,
};

#[cfg(test)]
mod tests;
