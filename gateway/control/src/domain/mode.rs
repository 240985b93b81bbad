//! How the sessions of a location begin.

use super::Invalid;

/// Chosen when a location is added, for good: what its devices were set up with depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The tunnel comes up with the device's key, and reaches the portal alone until a login.
    #[default]
    Gate,
    /// No gateway knows the device until it has a session, which comes with a pre-shared key of its own.
    SessionKey,
}

impl Mode {
    /// The word in the store, on the wire and on the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::SessionKey => "session-key",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "gate" => Ok(Self::Gate),
            "session-key" => Ok(Self::SessionKey),
            _ => Err(Invalid(format!(
                "{text:?} is no mode: there are gate and session-key"
            ))),
        }
    }

    /// As [`parse`](Self::parse), where nothing means the default.
    pub(crate) fn parse_or_default(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_two_and_nothing_else_is_one() {
        for mode in [Mode::Gate, Mode::SessionKey] {
            assert_eq!(Mode::parse(mode.as_str()).unwrap(), mode);
        }
        assert_eq!(Mode::parse_or_default("").unwrap(), Mode::Gate);
        for bad in ["", "Gate", "session_key", "session-key "] {
            assert!(Mode::parse(bad).is_err(), "{bad}");
        }
    }
}
