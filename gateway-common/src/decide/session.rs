//! What a peer's session permits.

use super::tables::Tables;
use crate::{
    abi::{Direction, Level, NO_RULE, PeerState, RuleOutcome},
    clock,
    verdict::Reason,
};

/// Why, and by which rule.
#[derive(Clone, Copy)]
pub(super) struct Ruling {
    pub(super) reason: Reason,
    pub(super) rule: u32,
}

impl From<Reason> for Ruling {
    /// By no rule.
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            rule: NO_RULE,
        }
    }
}

/// What permits a packet.
#[derive(Clone, Copy)]
pub(super) struct Grant {
    pub(super) no_session: bool,
    pub(super) level: Level,
    pub(super) fresh_until: u64,
    pub(super) rule: u32,
}

impl Grant {
    #[inline(always)]
    pub(super) const fn reason(self) -> Reason {
        if self.no_session {
            without_session(self.rule)
        } else {
            Reason::Session
        }
    }
}

/// Why something passes that needs no session.
#[inline(always)]
pub(super) const fn without_session(rule: u32) -> Reason {
    if rule == NO_RULE {
        Reason::OpenService
    } else {
        Reason::OpenRule
    }
}

/// Why the peer's session permits nothing at `now`; `None` while it is live.
#[inline(always)]
pub(super) fn blocks(peer: &PeerState, now: u64) -> Option<Reason> {
    if peer.deadline == 0 {
        return Some(Reason::Locked);
    }
    if now >= peer.deadline {
        return Some(Reason::Expired);
    }
    if peer.idle_timeout != 0 && now.saturating_sub(peer.last_activity) >= peer.idle_timeout {
        return Some(Reason::Idle);
    }
    None
}

/// Whether a flow opened in this direction is permitted under the peer's present session.
#[inline(always)]
pub(super) fn authorise(
    outcome: RuleOutcome,
    opener: Direction,
    peer: &PeerState,
    now: u64,
) -> Result<Grant, Ruling> {
    let (rule, level, max_age) = match outcome {
        RuleOutcome::Allow {
            rule,
            level,
            max_age,
        } => (rule, level, max_age),
        RuleOutcome::Deny { rule } => {
            return Err(Ruling {
                reason: Reason::Denied,
                rule,
            });
        }
        RuleOutcome::NoRule => {
            return Err(match opener {
                Direction::FromPeer => Reason::NoRule.into(),
                Direction::ToPeer => Reason::Unsolicited.into(),
            });
        }
    };
    if matches!(level, Level::None) {
        return Ok(Grant {
            no_session: true,
            level,
            fresh_until: u64::MAX,
            rule,
        });
    }
    let refused = |reason| Err(Ruling { reason, rule });
    if let Some(reason) = blocks(peer, now) {
        return refused(reason);
    }
    if peer.level < level as u8 {
        return refused(Reason::LevelTooLow);
    }
    let fresh_until = match max_age {
        // From before the clock began: nobody knows how long ago.
        Some(_) if peer.authenticated_at == 0 => 0,
        // Just as old as it may be is not too old.
        Some(age) => peer.authenticated_at.saturating_add(age).saturating_add(1),
        None => u64::MAX,
    };
    if now >= fresh_until {
        return refused(Reason::NotFresh);
    }
    Ok(Grant {
        no_session: false,
        level,
        fresh_until,
        rule,
    })
}

/// Notes a passed packet from the peer as activity (invariant 2). A session that is over stays
/// over: what passes without one must not wake it.
#[inline(always)]
pub(super) fn touch<A, T: Tables<A>>(
    tables: &mut T,
    direction: Direction,
    index: u32,
    peer: &PeerState,
    now: u64,
) {
    if matches!(direction, Direction::FromPeer)
        && clock::activity_due(peer.last_activity, now)
        && blocks(peer, now).is_none()
    {
        tables.touch(index, now);
    }
}
