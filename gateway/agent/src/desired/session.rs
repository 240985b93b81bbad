//! A session as control grants it.

use std::fmt;

use gateway_common::abi::Level;
use portcullis_proto::digest::session_tag;
use portcullis_proto::v1;

use super::Moment;
use crate::datapath::SessionGrant;

/// A session that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SessionError {
    #[error("its session's id has {0} bytes, not 16")]
    Id(usize),
    #[error("its session's level {0} is not known")]
    Level(i32),
    #[error("its session was not authenticated at any level")]
    Unauthenticated,
}

/// Names a session in reports to control.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// As it travels.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A granted session, its times on the clock of the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The same through all extensions.
    pub id: SessionId,
    /// Names this grant of it, see [`session_tag`].
    pub tag: u64,
    /// Assurance of the login.
    pub level: Level,
    /// Nanoseconds; 0 where that was before this machine's start, which is fresh for no rule.
    pub authenticated_at: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds; 0 for none.
    pub idle_timeout: u64,
    /// Nanoseconds, as far as control knows.
    pub last_activity: u64,
    /// Whether the peer had been silent for too long when control said so. An activity from
    /// before this machine's start cannot be told by `last_activity`.
    idle: bool,
}

impl Session {
    pub(super) fn parse(wire: &v1::Session, moment: Moment) -> Result<Self, SessionError> {
        let id = wire
            .id
            .as_slice()
            .try_into()
            .map_err(|_| SessionError::Id(wire.id.len()))?;
        let level = match v1::Level::try_from(wire.level) {
            Ok(v1::Level::Mfa) => Level::Mfa,
            Ok(v1::Level::PhishingResistant) => Level::PhishingResistant,
            Ok(v1::Level::None) => return Err(SessionError::Unauthenticated),
            Err(_) => return Err(SessionError::Level(wire.level)),
        };
        let silent_ms = moment.control_ms.saturating_sub(wire.last_activity_ms);
        let idle = wire.idle_timeout_ms != 0
            && u64::try_from(silent_ms).is_ok_and(|silent| silent >= wire.idle_timeout_ms);
        Ok(Self {
            id: SessionId(id),
            tag: session_tag(wire),
            level,
            authenticated_at: moment.since(wire.authenticated_at_ms),
            deadline: moment.to_map(wire.deadline_ms),
            idle_timeout: wire.idle_timeout_ms.saturating_mul(1_000_000),
            // An activity from the future would prolong the session.
            last_activity: moment.to_map(wire.last_activity_ms).min(moment.map),
            idle,
        })
    }

    /// What to write to the kernel at `now`. `seen` is the peer's last activity that the kernel
    /// knows of: an idle timer never runs backwards.
    ///
    /// A session that is over is written with a deadline long past: it permits nothing, and the
    /// kernel still holds what control asked for, so that their digests agree.
    pub fn grant(&self, now: u64, seen: Option<u64>) -> SessionGrant {
        let last_activity = self.last_activity.max(seen.unwrap_or(0));
        let idle_at = last_activity.saturating_add(self.idle_timeout);
        let idle = self.idle_timeout != 0
            && (now >= idle_at
                || (self.idle && seen.is_none_or(|seen| seen <= self.last_activity)));
        SessionGrant {
            tag: self.tag,
            level: self.level,
            authenticated_at: self.authenticated_at,
            deadline: if idle { 1 } else { self.deadline },
            idle_timeout: self.idle_timeout,
            last_activity,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MOMENT: Moment = Moment {
        control_ms: 1_000_000,
        map: 500 * SECOND,
    };

    fn wire() -> v1::Session {
        v1::Session {
            id: vec![1; 16],
            level: v1::Level::Mfa.into(),
            authenticated_at_ms: 990_000,
            deadline_ms: 1_060_000,
            idle_timeout_ms: 30_000,
            last_activity_ms: 995_000,
        }
    }

    #[test]
    fn times_are_carried_over_to_the_maps_clock() {
        let session = Session::parse(&wire(), MOMENT).expect("valid");
        let grant = session.grant(MOMENT.map, None);
        assert_eq!(grant.authenticated_at, 490 * SECOND);
        assert_eq!(grant.deadline, 560 * SECOND);
        assert_eq!(grant.idle_timeout, 30 * SECOND);
        assert_eq!(grant.last_activity, 495 * SECOND);
        assert_eq!(grant.tag, session_tag(&wire()));
    }

    #[test]
    fn inv2_a_session_that_idled_out_is_written_as_ended() {
        let old = v1::Session {
            last_activity_ms: 970_000,
            ..wire()
        };
        let session = Session::parse(&old, MOMENT).expect("valid");
        assert_eq!(session.grant(MOMENT.map, None).deadline, 1);
        // The machine started 10 s ago: the activity lies before the clock's beginning.
        let restarted = Moment {
            map: 10 * SECOND,
            ..MOMENT
        };
        let session = Session::parse(&old, restarted).expect("valid");
        assert_eq!(session.grant(restarted.map, None).deadline, 1);
        // The kernel has seen the peer since: it is right, control is behind.
        let session = Session::parse(&old, MOMENT).expect("valid");
        let grant = session.grant(MOMENT.map, Some(499 * SECOND));
        assert_eq!(
            (grant.deadline, grant.last_activity),
            (560 * SECOND, 499 * SECOND)
        );
    }

    #[test]
    fn inv2_a_login_from_before_this_machines_start_is_not_fresh() {
        // It was 10 s old when the machine had been up for 5 s.
        let restarted = Moment {
            map: 5 * SECOND,
            ..MOMENT
        };
        let session = Session::parse(&wire(), restarted).expect("valid");
        let grant = session.grant(restarted.map, None);
        assert_eq!(grant.authenticated_at, 0);
        assert_eq!(grant.deadline, 65 * SECOND);
    }

    #[test]
    fn inv2_an_activity_from_the_future_does_not_prolong_a_session() {
        let odd = v1::Session {
            last_activity_ms: 2_000_000,
            ..wire()
        };
        let session = Session::parse(&odd, MOMENT).expect("valid");
        assert_eq!(session.last_activity, MOMENT.map);
    }

    #[test]
    fn unusable_sessions_are_refused() {
        let parse = |session: v1::Session| Session::parse(&session, MOMENT);
        assert_eq!(
            parse(v1::Session {
                id: vec![1; 15],
                ..wire()
            }),
            Err(SessionError::Id(15))
        );
        assert_eq!(
            parse(v1::Session { level: 9, ..wire() }),
            Err(SessionError::Level(9))
        );
        assert_eq!(
            parse(v1::Session { level: 0, ..wire() }),
            Err(SessionError::Unauthenticated)
        );
    }
}
