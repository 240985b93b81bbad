//! Rules as their author means them, their text, and what the specification says about a packet that
//! opens a flow. Slow, and shares nothing with the parser, the compiler and the look-up under test.

use std::{fmt::Write as _, net::IpAddr};

use anyhow::Context as _;
use gateway_common::{
    abi::{Direction, Level},
    clock::SECOND,
    policy::Tables,
    verdict::Reason,
};
use ipnet::IpNet;
use portcullis_agent::{datapath::SessionGrant, desired};
use portcullis_control::policy::{self, Subject};

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Entries of `who`, as they are written.
    pub who: Vec<String>,
    /// [`Direction::FromPeer`] for `to`, [`Direction::ToPeer`] for `from`.
    pub direction: Direction,
    /// Entries of `to` or `from`.
    pub prefixes: Vec<IpNet>,
    /// Entries of `ports`; empty where they are left out.
    pub ports: Vec<Ports>,
    /// What it does.
    pub action: Action,
}

/// One entry of `ports`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// A protocol by number.
    Protocol(u8),
    /// Ports of TCP (6) or UDP (17), first and last.
    Range(u8, u16, u16),
}

/// What a matching rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Drops.
    Deny,
    /// Permits.
    Allow {
        /// Least level.
        level: Level,
        /// Most seconds since the login.
        max_age: Option<u64>,
    },
}

/// What opens a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opener {
    /// Whether the peer sends it, or gets it.
    pub direction: Direction,
    /// The other end.
    pub remote: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The destination's port, where the protocol has ports.
    pub port: u16,
}

/// The policy file; the rule of number `n` is called `r<n>`.
pub fn text(rules: &[Rule]) -> String {
    let mut text = String::new();
    for (number, rule) in rules.iter().enumerate() {
        let key = match rule.direction {
            Direction::FromPeer => "to",
            Direction::ToPeer => "from",
        };
        let prefixes: Vec<String> = rule.prefixes.iter().map(IpNet::to_string).collect();
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "[[rule]]\nname = \"r{number}\"\nwho = {:?}\n{key} = {prefixes:?}\n",
            rule.who
        );
        if !rule.ports.is_empty() {
            let ports: Vec<String> = rule.ports.iter().map(Ports::written).collect();
            let _ = writeln!(text, "ports = {ports:?}");
        }
        text += match rule.action {
            Action::Deny => "action = \"deny\"\n",
            Action::Allow { level, .. } => match level {
                Level::None => "require = \"none\"\n",
                // What holds where nothing is said.
                Level::Mfa => "",
                Level::PhishingResistant => "require = \"phishing-resistant\"\n",
            },
        };
        if let Action::Allow {
            max_age: Some(seconds),
            ..
        } = rule.action
        {
            let _ = writeln!(text, "max_age = \"{seconds}s\"");
        }
    }
    text
}

impl Ports {
    /// As it is written.
    fn written(&self) -> String {
        match *self {
            Self::Protocol(1) => "icmp".into(),
            Self::Protocol(6) => "tcp".into(),
            Self::Protocol(17) => "udp".into(),
            Self::Protocol(58) => "icmp6".into(),
            Self::Protocol(number) => number.to_string(),
            Self::Range(protocol, first, last) => {
                let name = if protocol == 6 { "tcp" } else { "udp" };
                if first == last {
                    format!("{name}/{first}")
                } else {
                    format!("{name}/{first}-{last}")
                }
            }
        }
    }

    fn concern(&self, opener: &Opener) -> bool {
        match *self {
            Self::Protocol(number) => number == opener.protocol,
            Self::Range(protocol, first, last) => {
                protocol == opener.protocol && (first..=last).contains(&opener.port)
            }
        }
    }
}

impl Rule {
    /// Length of the longest prefix by which it matches.
    fn matches(&self, subject: &Subject, opener: &Opener) -> Option<u8> {
        let meant = self.who.iter().any(|who| {
            let group = |name: &str| subject.groups.iter().any(|group| group == name);
            who == "*"
                || who.strip_prefix("user:") == Some(&subject.user)
                || who.strip_prefix("group:").is_some_and(group)
        });
        let ports = self.ports.is_empty() || self.ports.iter().any(|ports| ports.concern(opener));
        if !meant || !ports || self.direction != opener.direction {
            return None;
        }
        let around = self
            .prefixes
            .iter()
            .filter(|net| net.contains(&opener.remote));
        around.map(IpNet::prefix_len).max()
    }
}

/// What becomes of the packet at `now`, and the number of the rule that says so.
pub fn judge(
    rules: &[Rule],
    subject: &Subject,
    session: Option<&SessionGrant>,
    now: u64,
    opener: &Opener,
) -> (Reason, Option<u32>) {
    let matching: Vec<(u32, Action, u8)> = (0..)
        .zip(rules)
        .filter_map(|(number, rule)| Some((number, rule.action, rule.matches(subject, opener)?)))
        .collect();
    // "Any matching deny drops it."
    if let Some((number, ..)) = matching
        .iter()
        .find(|(_, action, _)| *action == Action::Deny)
    {
        return (Reason::Denied, Some(*number));
    }
    // "Otherwise the matching allow with the longest prefix decides what is required; where several
    // tie, the requirements of all of them must be met."
    let longest = matching.iter().map(|(.., length)| *length).max();
    let deciding: Vec<_> = matching
        .iter()
        .filter(|(.., length)| Some(*length) == longest)
        .collect();
    let Some((number, ..)) = deciding.first() else {
        // "No matching allow: drop."
        let reason = match opener.direction {
            Direction::FromPeer => Reason::NoRule,
            Direction::ToPeer => Reason::Unsolicited,
        };
        return (reason, None);
    };
    let requirements: Vec<(Level, Option<u64>)> = deciding
        .iter()
        .filter_map(|(_, action, _)| match action {
            Action::Deny => None,
            Action::Allow { level, max_age } => Some((*level, *max_age)),
        })
        .collect();
    (required(&requirements, session, now), Some(*number))
}

/// "`require = "none"` needs no session. Otherwise: a session must exist, be younger than its lifetime,
/// idle for less than its idle timeout, at the required level or above, and no older than `max_age`."
fn required(
    requirements: &[(Level, Option<u64>)],
    session: Option<&SessionGrant>,
    now: u64,
) -> Reason {
    let level = requirements.iter().map(|(level, _)| *level).max();
    if level.is_none_or(|level| level == Level::None) {
        return Reason::OpenRule;
    }
    let Some(session) = session else {
        return Reason::Locked;
    };
    if now >= session.deadline {
        return Reason::Expired;
    }
    if session.idle_timeout != 0 && now - session.last_activity >= session.idle_timeout {
        return Reason::Idle;
    }
    if Some(session.level) < level {
        return Reason::LevelTooLow;
    }
    let too_old = |age: &Option<u64>| {
        age.is_some_and(|seconds| now - session.authenticated_at > seconds * SECOND)
    };
    if requirements.iter().any(|(_, age)| too_old(age)) {
        return Reason::NotFresh;
    }
    Reason::Session
}

/// A policy file as the gateway gets it, with the number of each subject's effective policy: read and
/// compiled by control, put on the wire and taken off it by the agent.
///
/// # Errors
///
/// When one of them refuses it.
pub fn compile(
    text: &str,
    subjects: &[Subject],
    id: u64,
) -> anyhow::Result<(desired::Policy, Vec<u32>)> {
    let (_, compiled) = policy::load(text)?;
    let classes = compiled.classes(subjects)?;
    let wire = compiled.to_wire(id, classes.policies());
    let policy = desired::Policy::try_from(wire).context("the agent refuses the policy")?;
    Ok((policy, classes.numbers().to_vec()))
}

/// As [`compile`], only the tables.
///
/// # Errors
///
/// Likewise.
pub fn tables(text: &str, subjects: &[Subject]) -> anyhow::Result<(Tables, Vec<u32>)> {
    let (policy, classes) = compile(text, subjects, 1)?;
    Ok((policy.tables, classes))
}

/// A user and groups.
pub fn subject(user: &str, groups: &[&str]) -> Subject {
    Subject {
        user: user.to_owned(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
    }
}
