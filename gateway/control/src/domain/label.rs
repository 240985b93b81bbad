//! Names that people give to their own things.

use super::Invalid;

const MAX_CHARS: usize = 64;

/// A text for people to read: up to 64 characters of any script, on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label(String);

impl Label {
    pub(crate) fn parse(what: &str, text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        if text.is_empty() || text.chars().count() > MAX_CHARS || text.chars().any(is_trickery) {
            return Err(Invalid(format!(
                "a name for {what} has 1 to {MAX_CHARS} characters on one line"
            )));
        }
        Ok(Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Control characters, line separators, and those that turn the direction of what is around them.
fn is_trickery(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_one_line_of_text() {
        let label = |text: &str| Label::parse("a passkey", text);
        assert_eq!(label("  Zoë's key №2 ").unwrap().as_str(), "Zoë's key №2");
        assert!(label(&"ö".repeat(64)).is_ok());
        for bad in ["", "  ", "a\nb", "a\u{202e}b", "a\u{0}", &"ö".repeat(65)] {
            assert!(label(bad).is_err(), "{bad:?}");
        }
    }
}
