//! Times and durations, between people and the wire's milliseconds.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

/// A duration on the command line: `12h`, `1h 30m`, `90s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let duration = humantime::parse_duration(text)
            .map_err(|error| format!("{error}; durations look like 12h, 90m or 30s"))?;
        // The wire counts milliseconds; a century fits by far.
        if duration > Duration::from_secs(100 * 365 * 24 * 3600) {
            return Err("longer than a century".to_owned());
        }
        Ok(Self(duration))
    }
}

impl Span {
    pub(crate) fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

/// RFC 3339, or null for a time that has not come.
pub(crate) fn json(unix_ms: i64) -> Value {
    timestamp(unix_ms).map_or(Value::Null, |time| Value::from(time.to_string()))
}

/// To the second, in UTC; a dash for a time that has not come.
pub(crate) fn text(unix_ms: i64) -> String {
    timestamp(unix_ms).map_or_else(
        || "-".to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
    )
}

/// The same to the millisecond.
pub(crate) fn text_with_millis(unix_ms: i64) -> String {
    timestamp(unix_ms).map_or_else(
        || "-".to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M:%S.%3fZ").to_string(),
    )
}

/// This machine's time.
pub(crate) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

fn timestamp(unix_ms: i64) -> Option<Timestamp> {
    (unix_ms != 0)
        .then(|| Timestamp::from_millisecond(unix_ms).ok())
        .flatten()
}

/// `12h`, or a dash for none.
pub(crate) fn duration_text(ms: u64) -> String {
    if ms == 0 {
        return "-".to_owned();
    }
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_for_programs_and_people() {
        assert_eq!(json(0), Value::Null);
        assert_eq!(
            json(1_700_000_000_123),
            Value::from("2023-11-14T22:13:20.123Z")
        );
        assert_eq!(text(1_700_000_000_123), "2023-11-14 22:13:20Z");
        assert_eq!(text(0), "-");
    }

    #[test]
    fn durations_are_read_strictly() {
        assert_eq!("12h".parse::<Span>().map(Span::as_millis), Ok(43_200_000));
        assert_eq!("1h 30m".parse::<Span>().map(Span::as_millis), Ok(5_400_000));
        for bad in ["", "12", "-1h", "h", "200y"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
