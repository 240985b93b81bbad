//! What becomes of the first packet of a flow, without a kernel: the decision itself, over tables in
//! memory.

mod memory;
mod packet;
mod vector;

pub use vector::{Direction, Packet, Peer, SECONDS, Session, Vector, VectorError};

use gateway_common::abi::NO_RULE;
use gateway_common::decide::Decision;
use gateway_common::verdict::{Reason, Verdict};
use serde::Serialize;

use self::memory::Memory;
use super::compile::CompiledPolicy;

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// `pass` or `drop`.
    pub verdict: &'static str,
    /// Name of the reason.
    pub reason: &'static str,
    /// Name of the rule that decided; `None` where none did.
    pub rule: Option<String>,
}

impl Answer {
    /// From a reason and the number of the rule.
    pub fn new(compiled: &CompiledPolicy, reason: Reason, rule: u32) -> Self {
        let verdict = match reason.verdict() {
            Verdict::Pass => "pass",
            Verdict::Drop => "drop",
        };
        let rule = (rule != NO_RULE)
            .then(|| compiled.rule_name(rule))
            .flatten();
        Self {
            verdict,
            reason: reason.name(),
            rule: rule.map(str::to_owned),
        }
    }
}

/// Decides about the vector's packet for a peer of this class.
pub fn evaluate(compiled: &CompiledPolicy, class: u32, vector: &Vector) -> Answer {
    let bytes = vector.packet_bytes();
    let Decision { reason, rule, .. } = Memory::new(compiled, class, vector).decide(&bytes);
    Answer::new(compiled, reason, rule)
}

#[cfg(test)]
mod tests;
