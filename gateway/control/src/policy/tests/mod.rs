//! Whole policies: what the compiled tables say against what the specification says.

mod evaluation;
mod generate;
mod oracle;
mod property;
mod refusals;
mod reports;
mod scale;
mod semantics;

use super::{CompiledPolicy, Policy, Subject};

/// A subject of this name and these groups.
fn subject(user: &str, groups: &[&str]) -> Subject {
    Subject {
        user: user.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    }
}

/// A policy file's tables.
fn compiled(text: &str) -> CompiledPolicy {
    CompiledPolicy::compile(&Policy::parse(text).unwrap()).unwrap()
}
