//! Policies in the terms of the wire.

use gateway_common::abi::{Direction, Level};
use portcullis_proto::v1;
use portcullis_proto::v1::policy_outcome_view::Kind;
use sha2::{Digest as _, Sha256};

use crate::policy::{Change, CompiledPolicy, Effect, PortSpan, Reach, Refusal, RuleOutcome};
use crate::store::policies::PolicyRow;
use crate::store::to_u64;

const NS_PER_MS: u64 = 1_000_000;

/// Counts are limited far below 2^32.
pub(super) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// SHA-256, hexadecimal.
pub(super) fn digest(text: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(text).into();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn problems(refusal: Refusal) -> Vec<v1::PolicyProblem> {
    let problem = |finding: crate::policy::Finding| v1::PolicyProblem {
        line: count(finding.line.unwrap_or(0)),
        rule: finding.rule.unwrap_or_default(),
        text: finding.text,
    };
    refusal.0.into_iter().map(problem).collect()
}

pub(super) fn version(row: PolicyRow, text: String, live: bool) -> v1::PolicyVersion {
    v1::PolicyVersion {
        number: to_u64(row.number),
        text,
        applied_ms: row.applied_ms,
        applied_by: row.applied_by,
        revision: to_u64(row.revision),
        rules: u32::try_from(row.rules).unwrap_or(u32::MAX),
        sha256: row.digest,
        live,
    }
}

pub(super) fn line(tables: &CompiledPolicy, line: &Reach) -> v1::PolicyReachLine {
    v1::PolicyReachLine {
        to_peer: line.direction == Direction::ToPeer,
        remote: line.remote.to_string(),
        except: line.except.iter().map(ToString::to_string).collect(),
        ports: ports(&line.ports),
        outcome: Some(outcome(tables, line.outcome)),
    }
}

pub(super) fn change(
    old: &CompiledPolicy,
    new: &CompiledPolicy,
    change: Change,
) -> v1::PolicyChange {
    let effect = match change.effect() {
        Effect::Loses => "loses",
        Effect::Gains => "gains",
        Effect::Stricter => "stricter",
        Effect::Looser => "looser",
        Effect::Different => "different",
    };
    v1::PolicyChange {
        effect: effect.into(),
        to_peer: change.direction == Direction::ToPeer,
        remote: change.remote.to_string(),
        except: change.except.iter().map(ToString::to_string).collect(),
        ports: ports(&change.ports),
        before: Some(outcome(old, change.before)),
        after: Some(outcome(new, change.after)),
        users: change.users,
    }
}

fn ports(spans: &[PortSpan]) -> Vec<String> {
    spans.iter().map(ToString::to_string).collect()
}

fn outcome(tables: &CompiledPolicy, outcome: RuleOutcome) -> v1::PolicyOutcomeView {
    let name = |rule| tables.rule_name(rule).unwrap_or_default().to_owned();
    let none = v1::PolicyOutcomeView::default();
    match outcome {
        RuleOutcome::NoRule => none,
        RuleOutcome::Deny { rule } => v1::PolicyOutcomeView {
            kind: Kind::Deny.into(),
            rule: name(rule),
            ..none
        },
        RuleOutcome::Allow {
            rule,
            level,
            max_age,
        } => v1::PolicyOutcomeView {
            kind: Kind::Allow.into(),
            rule: name(rule),
            level: wire_level(level).into(),
            max_age_ms: max_age.map_or(0, |age| age / NS_PER_MS),
        },
    }
}

fn wire_level(level: Level) -> v1::Level {
    match level {
        Level::None => v1::Level::None,
        Level::Mfa => v1::Level::Mfa,
        Level::PhishingResistant => v1::Level::PhishingResistant,
    }
}
