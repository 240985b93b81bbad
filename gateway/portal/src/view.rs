//! A session as the portal shows it, in JSON and on the page.

use jiff::{SignedDuration, Timestamp};
use portcullis_control::{Level, ResetNotice, SessionView, level_name};
use serde::Serialize;
use utoipa::ToSchema;

/// The JSON of a session; the command line reads it.
#[derive(Serialize, ToSchema)]
pub(crate) struct SessionJson {
    id: String,
    user: String,
    device: String,
    location: String,
    level: &'static str,
    authenticated_at: String,
    deadline: String,
    idle_timeout_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<ResetJson>,
}

/// An administrator has voided factors of the account since the login before this one.
#[derive(Serialize, ToSchema)]
pub(crate) struct ResetJson {
    at: String,
    /// In the administrator's words.
    reason: String,
}

impl From<&ResetNotice> for ResetJson {
    fn from(reset: &ResetNotice) -> Self {
        Self {
            at: rfc3339(reset.at_ms),
            reason: reset.reason.clone(),
        }
    }
}

impl From<SessionView> for SessionJson {
    fn from(session: SessionView) -> Self {
        Self {
            level: level_name(session.level),
            authenticated_at: rfc3339(session.authenticated_at_ms),
            deadline: rfc3339(session.deadline_ms),
            idle_timeout_ms: session.idle_timeout_ms,
            reset: session.reset.as_ref().map(ResetJson::from),
            id: session.id,
            user: session.user,
            device: session.device,
            location: session.location,
        }
    }
}

/// A level in the words of a person; [`level_name`] has those of policies and programs.
pub(crate) fn level_in_words(level: Level) -> &'static str {
    match level {
        Level::None => "less than two factors",
        Level::Mfa => "two factors",
        Level::PhishingResistant => "a passkey, or as strong",
    }
}

/// A refusal as a sentence of a page. Programs are told the same words as they are.
pub(crate) fn sentence(text: &str) -> String {
    let mut rest = text.chars();
    let Some(first) = rest.next() else {
        return String::new();
    };
    let stop = if text.ends_with(['.', '!', '?']) {
        ""
    } else {
        "."
    };
    format!("{}{}{stop}", first.to_uppercase(), rest.as_str())
}

/// RFC 3339 in UTC. A time outside of what the format holds is not in any store.
pub(crate) fn rfc3339(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms)
        .map_or_else(|_| unix_ms.to_string(), |time| time.to_string())
}

/// The day of a time, in UTC.
fn day(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms).map_or_else(
        |_| unix_ms.to_string(),
        |time| time.strftime("%-d %B %Y").to_string(),
    )
}

/// A time for programs and for people.
pub(crate) struct Moment {
    pub(crate) iso: String,
    /// In UTC.
    pub(crate) day: String,
    /// In UTC; the script says it in the browser's own zone.
    pub(crate) text: String,
}

impl From<i64> for Moment {
    fn from(unix_ms: i64) -> Self {
        let text = Timestamp::from_millisecond(unix_ms).map_or_else(
            |_| unix_ms.to_string(),
            |time| time.strftime("%-d %B %Y, %H:%M UTC").to_string(),
        );
        Self {
            iso: rfc3339(unix_ms),
            day: day(unix_ms),
            text,
        }
    }
}

/// What is left of a session, in the words of a person: `11 h 58 min`.
pub(crate) fn time_left(deadline_ms: i64, now: Timestamp) -> String {
    let left = SignedDuration::from_millis(deadline_ms.saturating_sub(now.as_millisecond()).max(0));
    match (left.as_hours(), left.as_mins() % 60) {
        (0, 0) => "less than a minute".to_owned(),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// The same for the script that counts it down.
pub(crate) fn seconds_left(deadline_ms: i64, now: Timestamp) -> u64 {
    let left_ms = deadline_ms.saturating_sub(now.as_millisecond());
    u64::try_from(left_ms).unwrap_or(0) / 1000
}

/// Time in words, rounded up to a whole second or minute.
pub(crate) fn wait(seconds: u64) -> String {
    match seconds {
        0..=1 => "1 second".to_owned(),
        2..=90 => format!("{seconds} seconds"),
        _ => format!("{} minutes", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_sentences() {
        for (text, said) in [
            ("the code is wrong", "The code is wrong."),
            ("Too late. Begin again.", "Too late. Begin again."),
            ("was that you?", "Was that you?"),
            ("öffnen", "Öffnen."),
            ("", ""),
        ] {
            assert_eq!(sentence(text), said);
        }
    }

    #[test]
    fn times_in_words() {
        let now = Timestamp::from_millisecond(1_000_000).unwrap();
        let left = |ms: i64| time_left(1_000_000 + ms, now);
        assert_eq!(left(-5), "less than a minute");
        assert_eq!(left(60_000), "1 min");
        assert_eq!(left(11 * 3_600_000 + 58 * 60_000), "11 h 58 min");
        assert_eq!(wait(0), "1 second");
        assert_eq!(wait(30), "30 seconds");
        assert_eq!(wait(91), "2 minutes");
    }
}
