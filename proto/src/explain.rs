//! An explanation on the wire.

use gateway_common::abi::PeerState;
use gateway_common::explain::Explained;

use crate::v1;

const MS: u64 = 1_000_000;

impl v1::Explanation {
    /// What was explained at `now`, with the name of the rule that decided.
    pub fn new(explained: &Explained, rule: Option<&str>, now: u64) -> Self {
        let mut explanation = Self {
            reason: explained.decision.reason as u32,
            rule: rule.unwrap_or_default().to_owned(),
            ..Self::default()
        };
        if let Some((level, max_age)) = explained.required {
            explanation.required = level as i32;
            explanation.max_age_ms = max_age.map_or(0, |age| (age / MS).max(1));
        }
        if let Some(peer) = explained.peer.filter(|peer| peer.deadline != 0) {
            explanation.describe(&peer, now);
        }
        if let Some((at, ends)) = explained.ends {
            explanation.ends_in_ms = (at.saturating_sub(now) / MS).max(1);
            explanation.ends_by = ends.name().to_owned();
        }
        explanation
    }

    fn describe(&mut self, peer: &PeerState, now: u64) {
        self.has_session = true;
        self.level = peer.level.into();
        self.age_ms = now.saturating_sub(peer.authenticated_at) / MS;
        self.deadline_in_ms = peer.deadline.saturating_sub(now) / MS;
        self.idle_limited = peer.idle_timeout != 0;
        if self.idle_limited {
            let idle_at = peer.last_activity.saturating_add(peer.idle_timeout);
            self.idle_in_ms = idle_at.saturating_sub(now) / MS;
        }
    }
}
