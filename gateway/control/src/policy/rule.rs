//! A policy as its author wrote it, checked.

use std::time::Duration;

use gateway_common::abi::{Direction, Level};
use ipnet::IpNet;

use super::ports::PortSpec;
use super::principal::Principal;

/// All rules, in the order of the file. Made by [`Policy::parse`], and thus within the limits and
/// free of contradictions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub(super) rules: Vec<Rule>,
}

impl Policy {
    /// The rules; a rule's number is its place here.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Unique in its file.
    pub name: String,
    /// Line of the file on which it starts.
    pub line: usize,
    /// Whom it is about; never empty.
    pub who: Vec<Principal>,
    /// [`Direction::FromPeer`] for `to`, [`Direction::ToPeer`] for `from`.
    pub direction: Direction,
    /// The remote addresses; never empty, no host bits.
    pub prefixes: Vec<IpNet>,
    /// Destination ports and protocols; never empty.
    pub ports: Vec<PortSpec>,
    /// What it does.
    pub action: Action,
}

/// What a matching rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Drops, whatever other rules say.
    Deny,
    /// Permits, under conditions.
    Allow {
        /// Least level of the session; [`Level::None`] needs no session.
        level: Level,
        /// How long ago the login may be at most.
        max_age: Option<Duration>,
    },
}
