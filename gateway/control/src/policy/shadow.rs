//! What a candidate would make of a packet that gateways have judged by the live policy.

use std::net::IpAddr;

use gateway_common::abi::{Direction, Level};
use gateway_common::packet::protocol;
use gateway_common::verdict::{Reason, Verdict};
use portcullis_proto::v1;

use super::RuleOutcome;
use super::compile::CompiledPolicy;

/// A packet that opened a flow, or tried to, as far as rules look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Opening {
    pub(crate) direction: Direction,
    pub(crate) remote: IpAddr,
    pub(crate) protocol: u8,
    /// The destination's; 0 where there is none.
    pub(crate) port: u16,
}

/// The peer's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) level: v1::Level,
    pub(crate) authenticated_at_ms: i64,
}

/// The live policy and the candidate disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Difference {
    /// And would be dropped; otherwise it is dropped and would pass.
    pub(crate) passes_now: bool,
    /// Of the one that drops.
    pub(crate) reason: Reason,
    /// The candidate's, if one decides.
    pub(crate) rule: Option<u32>,
}

/// It passed under a session of which nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnknownSession;

impl Opening {
    /// `None` for packets that no policy decides about.
    pub(crate) fn of(event: &v1::TraceEvent) -> Option<Self> {
        let reason = Reason::from_number(u8::try_from(event.reason).ok()?)?;
        match reason {
            Reason::Session
            | Reason::OpenRule
            | Reason::Locked
            | Reason::Expired
            | Reason::Idle
            | Reason::LevelTooLow
            | Reason::NotFresh
            | Reason::NoRule
            | Reason::Denied
            | Reason::Unsolicited => {}
            _ => return None,
        }
        let (direction, remote) = match event.direction {
            0 => (Direction::FromPeer, &event.destination),
            1 => (Direction::ToPeer, &event.source),
            _ => return None,
        };
        let protocol = u8::try_from(event.protocol).ok()?;
        let port = u16::try_from(event.destination_port).ok()?;
        if matches!(protocol, protocol::ICMP | protocol::ICMPV6) && port != 0 {
            // An echo reply, which opens nothing under any policy.
            return None;
        }
        Some(Self {
            direction,
            remote: remote.parse().ok()?,
            protocol,
            port,
        })
    }

    pub(crate) fn to_peer(self) -> bool {
        self.direction == Direction::ToPeer
    }
}

/// Where the candidate, which has this class for the peer, comes to another verdict than the one that
/// was reported with this reason.
pub(crate) fn judge(
    candidate: &CompiledPolicy,
    class: u32,
    opening: &Opening,
    reason: u32,
    session: Option<&Session>,
    now_ms: i64,
) -> Result<Option<Difference>, UnknownSession> {
    let Some(now) = u8::try_from(reason).ok().and_then(Reason::from_number) else {
        return Ok(None);
    };
    let outcome = candidate.lookup(
        class,
        opening.direction,
        opening.remote,
        opening.protocol,
        opening.port,
    );
    let (then, rule) = match outcome {
        RuleOutcome::NoRule => match opening.direction {
            Direction::FromPeer => (Reason::NoRule, None),
            Direction::ToPeer => (Reason::Unsolicited, None),
        },
        RuleOutcome::Deny { rule } => (Reason::Denied, Some(rule)),
        RuleOutcome::Allow {
            rule,
            level: Level::None,
            ..
        } => (Reason::OpenRule, Some(rule)),
        RuleOutcome::Allow {
            rule,
            level,
            max_age,
        } => {
            let then = match (now, session) {
                // What no session permits now, none permits then.
                (Reason::Locked | Reason::Expired | Reason::Idle, _) => now,
                (_, Some(session)) => with_session(session, level, max_age, now_ms),
                // Passed without needing a session, or dropped before one was looked at.
                (
                    Reason::OpenRule | Reason::NoRule | Reason::Denied | Reason::Unsolicited,
                    None,
                ) => Reason::Locked,
                (_, None) => return Err(UnknownSession),
            };
            (then, Some(rule))
        }
    };
    let passes = |reason: Reason| reason.verdict() == Verdict::Pass;
    Ok(match (passes(now), passes(then)) {
        (true, false) => Some(Difference {
            passes_now: true,
            reason: then,
            rule,
        }),
        (false, true) => Some(Difference {
            passes_now: false,
            reason: now,
            rule,
        }),
        _ => None,
    })
}

fn with_session(session: &Session, level: Level, max_age: Option<u64>, now_ms: i64) -> Reason {
    if i32::from(session.level) < i32::from(level as u8) {
        return Reason::LevelTooLow;
    }
    let age_ms = now_ms.saturating_sub(session.authenticated_at_ms).max(0);
    let age = u64::try_from(age_ms).unwrap_or(0).saturating_mul(1_000_000);
    match max_age {
        Some(most) if age > most => Reason::NotFresh,
        _ => Reason::Session,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Policy, Subject};

    const CANDIDATE: &str = r#"
[[rule]]
name = "web"
who = ["group:staff"]
to = ["10.0.0.0/8"]
ports = ["tcp/443"]

[[rule]]
name = "fresh"
who = ["group:staff"]
to = ["10.1.0.0/16"]
ports = ["tcp/22"]
max_age = "15m"

[[rule]]
name = "no-vault"
who = ["*"]
to = ["10.9.9.9"]
action = "deny"

[[rule]]
name = "push"
who = ["*"]
from = ["10.2.0.0/16"]
require = "none"
"#;

    fn event(direction: u32, remote: &str, port: u32, reason: Reason) -> v1::TraceEvent {
        let (source, destination) = match direction {
            0 => ("10.77.0.2", remote),
            _ => (remote, "10.77.0.2"),
        };
        v1::TraceEvent {
            direction,
            source: source.into(),
            destination: destination.into(),
            destination_port: port,
            protocol: 6,
            reason: reason as u32,
            ..v1::TraceEvent::default()
        }
    }

    /// Reason and rule of the difference, for a login of so many minutes ago.
    fn told(
        event: &v1::TraceEvent,
        minutes: Option<i64>,
    ) -> Option<(bool, Reason, Option<String>)> {
        let policy = Policy::parse(CANDIDATE).unwrap();
        let mut tables = CompiledPolicy::compile(&policy).unwrap();
        let staff = Subject {
            user: "ann".into(),
            groups: vec!["staff".into()],
        };
        let class = tables.assign(&staff).unwrap();
        let session = minutes.map(|minutes| Session {
            level: v1::Level::Mfa,
            authenticated_at_ms: -minutes * 60_000,
        });
        let opening = Opening::of(event).unwrap();
        let judged = judge(&tables, class, &opening, event.reason, session.as_ref(), 0);
        judged.unwrap().map(|difference| {
            let rule = difference.rule.and_then(|rule| tables.rule_name(rule));
            (
                difference.passes_now,
                difference.reason,
                rule.map(str::to_owned),
            )
        })
    }

    #[test]
    fn what_the_candidate_would_drop_is_told_with_its_reason_and_rule() {
        let passed = |remote, port| event(0, remote, port, Reason::Session);
        assert_eq!(told(&passed("10.5.5.5", 443), Some(1)), None);
        assert_eq!(
            told(&passed("10.5.5.5", 80), Some(1)),
            Some((true, Reason::NoRule, None))
        );
        assert_eq!(
            told(&passed("10.9.9.9", 443), Some(1)),
            Some((true, Reason::Denied, Some("no-vault".into())))
        );
        assert_eq!(told(&passed("10.1.0.1", 22), Some(15)), None);
        assert_eq!(
            told(&passed("10.1.0.1", 22), Some(16)),
            Some((true, Reason::NotFresh, Some("fresh".into())))
        );
        let without = event(0, "10.5.5.5", 443, Reason::OpenRule);
        assert_eq!(
            told(&without, None),
            Some((true, Reason::Locked, Some("web".into())))
        );
    }

    #[test]
    fn what_the_candidate_would_permit_is_told_too() {
        let dropped = event(1, "10.2.0.1", 5985, Reason::Unsolicited);
        assert_eq!(
            told(&dropped, None),
            Some((false, Reason::Unsolicited, Some("push".into())))
        );
        let denied = event(0, "10.5.5.5", 443, Reason::NoRule);
        assert_eq!(
            told(&denied, Some(1)),
            Some((false, Reason::NoRule, Some("web".into())))
        );
        // A login is missing under either policy.
        assert_eq!(told(&event(0, "10.5.5.5", 443, Reason::Locked), None), None);
    }

    #[test]
    fn packets_that_no_policy_decides_about_are_left_out() {
        for reason in [Reason::OpenService, Reason::Martian, Reason::UnknownPeer] {
            assert_eq!(Opening::of(&event(0, "10.5.5.5", 443, reason)), None);
        }
        let mut reply = event(1, "10.2.0.1", 77, Reason::Unsolicited);
        reply.protocol = 1;
        assert_eq!(Opening::of(&reply), None);
    }

    #[test]
    fn a_passed_packet_of_an_unknown_session_is_not_guessed_about() {
        let policy = Policy::parse(CANDIDATE).unwrap();
        let mut tables = CompiledPolicy::compile(&policy).unwrap();
        let staff = Subject {
            user: "ann".into(),
            groups: vec!["staff".into()],
        };
        let class = tables.assign(&staff).unwrap();
        let event = event(0, "10.5.5.5", 443, Reason::Session);
        let opening = Opening::of(&event).unwrap();
        let judged = judge(&tables, class, &opening, event.reason, None, 0);
        assert_eq!(judged, Err(UnknownSession));
    }
}
