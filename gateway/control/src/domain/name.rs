//! Names of users, groups, devices, locations and gateways.

use super::Invalid;

const MAX: usize = 64;

/// A name: letters, digits, `.`, `_`, `-`, `@` and `+`, starting with a letter or digit. Nothing
/// in it needs quoting in a shell, a URI or a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn parse(what: &str, text: &str) -> Result<Self, Invalid> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if text.len() <= MAX && starts_well && text.chars().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid(format!(
            "{text:?} is no name for a {what}: up to {MAX} letters, digits and ._-@+, starting with a letter or digit"
        )))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["alice", "a.b@example.org", "7", "ops_1-x"] {
            assert!(Name::parse("user", good).is_ok());
        }
        for bad in [
            "",
            ".",
            "-rf",
            "a b",
            "a:b",
            "a\n",
            "é",
            "a/b",
            &"a".repeat(65),
        ] {
            assert!(Name::parse("user", bad).is_err(), "{bad:?}");
        }
    }
}
