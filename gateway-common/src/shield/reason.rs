//! What the shield did with a message for WireGuard, and why: one numbered list for counters, events,
//! logs and documents, apart from [`crate::verdict::Reason`] because these messages are nobody's yet.

use crate::verdict::Verdict;

/// Slots in the counters: room for reasons to come without another ABI.
pub const SHIELD_REASON_SLOTS: usize = 16;

/// Why a message passed or was dropped. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ShieldReason {
    /// Addressed to a live index.
    Live = 0,
    /// Unknown index, but not every live one is known yet.
    Learning = 1,
    /// Unknown index, but its bucket has overflowed.
    Crowded = 2,
    /// An initiation within the budgets.
    Initiation = 3,
    /// An initiation beyond the overall budget, from where one was answered before.
    KnownSource = 4,
    /// The message itself is not in the frame's readable part.
    OutOfSight = 5,
    /// No WireGuard message.
    Malformed = 8,
    /// Data for no live session.
    DeadIndex = 9,
    /// Answer to nothing.
    Unexpected = 10,
    /// Too many initiations of one source.
    SourceBudget = 11,
    /// Too many initiations of all sources.
    OverallBudget = 12,
}

use ShieldReason::{
    Crowded, DeadIndex, Initiation, KnownSource, Learning, Live, Malformed, OutOfSight,
    OverallBudget, SourceBudget, Unexpected,
};

const TABLE: &[(ShieldReason, Verdict, &str, &str)] = &[
    (
        Live,
        Verdict::Pass,
        "live",
        "The message is addressed to a live index of the gateway's.",
    ),
    (
        Learning,
        Verdict::Pass,
        "learning",
        "The index is unknown, but the shield has not watched for long enough to know every live one.",
    ),
    (
        Crowded,
        Verdict::Pass,
        "crowded",
        "The index is unknown, but its part of the table has had more live ones than it has room for.",
    ),
    (
        Initiation,
        Verdict::Pass,
        "initiation",
        "A handshake initiation within the budgets.",
    ),
    (
        KnownSource,
        Verdict::Pass,
        "known_source",
        "A handshake initiation beyond the overall budget, from a source that the gateway has answered before.",
    ),
    (
        OutOfSight,
        Verdict::Pass,
        "out_of_sight",
        "Too little of the message can be read to judge it: a short first fragment, or a card that splits frames.",
    ),
    (
        Malformed,
        Verdict::Drop,
        "malformed",
        "Not a WireGuard message: another type or length, or a reserved byte that is not zero.",
    ),
    (
        DeadIndex,
        Verdict::Drop,
        "dead_index",
        "The data message belongs to no live session.",
    ),
    (
        Unexpected,
        Verdict::Drop,
        "unexpected",
        "The handshake response or cookie answers no handshake message of the gateway's.",
    ),
    (
        SourceBudget,
        Verdict::Drop,
        "source_budget",
        "The source (an IPv4 address or IPv6 /64) has sent more handshake initiations than one source may.",
    ),
    (
        OverallBudget,
        Verdict::Drop,
        "overall_budget",
        "All sources together have sent more handshake initiations than the gateway takes.",
    ),
];

impl ShieldReason {
    /// Every reason, by number.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// The reason of this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::all().find(|reason| *reason as u8 == number)
    }

    /// What it does to the message.
    #[inline(always)]
    pub const fn verdict(self) -> Verdict {
        if (self as u8) < Malformed as u8 {
            Verdict::Pass
        } else {
            Verdict::Drop
        }
    }

    /// The name in counters, logs and the command line.
    pub fn name(self) -> &'static str {
        self.row().map_or("", |row| row.2)
    }

    /// A sentence for a person.
    pub fn explanation(self) -> &'static str {
        self.row().map_or("", |row| row.3)
    }

    fn row(self) -> Option<&'static (Self, Verdict, &'static str, &'static str)> {
        TABLE.iter().find(|row| row.0 == self)
    }
}

impl core::fmt::Display for ShieldReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{fmt::Write as _, fs, string::String};

    use super::*;

    #[test]
    fn inv9_shield_reasons_are_numbered_named_and_explained() {
        for (i, &(reason, verdict, name, explanation)) in TABLE.iter().enumerate() {
            assert!((reason as usize) < SHIELD_REASON_SLOTS);
            assert_eq!(ShieldReason::from_number(reason as u8), Some(reason));
            assert_eq!(reason.verdict(), verdict, "{name}");
            assert!(!name.is_empty() && !explanation.is_empty());
            assert!(
                TABLE[..i]
                    .iter()
                    .all(|row| row.2 != name && (row.0 as u8) < reason as u8)
            );
        }
    }

    #[test]
    fn inv9_the_document_lists_every_shield_reason() {
        let mut wanted = String::from(
            "# What the shield did with a message for WireGuard\n\n\
             Made from `gateway-common/src/shield/reason.rs`; its tests compare the two (`UPDATE_DOCS=1 cargo test -p \
             gateway-common` writes it anew).\n\
             The kernel counts every message for WireGuard's port under one of these. See [shield.md](shield.md).\n\n\
             | number | name | verdict | meaning |\n|---|---|---|---|\n",
        );
        for (reason, verdict, name, explanation) in TABLE {
            let verdict = match verdict {
                Verdict::Pass => "pass",
                Verdict::Drop => "drop",
            };
            writeln!(
                wanted,
                "| {} | `{name}` | {verdict} | {explanation} |",
                *reason as u8
            )
            .unwrap();
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/shield-reasons.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(path, &wanted).unwrap();
        }
        assert_eq!(fs::read_to_string(path).unwrap_or_default(), wanted);
    }
}
