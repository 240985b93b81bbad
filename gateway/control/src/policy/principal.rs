//! Whom a rule is about.

use std::fmt;

use super::problem::Fault;
use crate::domain::Name;

/// One entry of `who`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Principal {
    /// `*`
    Everyone,
    /// `user:NAME`
    User(String),
    /// `group:NAME`
    Group(String),
}

impl Principal {
    /// Reads an entry of `who`.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let bad = |reason: String| Fault::Principal {
            text: text.to_owned(),
            reason,
        };
        let name = |what, name| match Name::parse(what, name) {
            Ok(name) => Ok(name.as_str().to_owned()),
            Err(invalid) => Err(bad(invalid.to_string())),
        };
        match text.split_once(':') {
            Some(("user", rest)) => Ok(Self::User(name("user", rest)?)),
            Some(("group", rest)) => Ok(Self::Group(name("group", rest)?)),
            None if text == "*" => Ok(Self::Everyone),
            _ => Err(bad(
                "write \"*\", \"user:NAME\" or \"group:NAME\"".to_owned()
            )),
        }
    }

    /// Whether the subject is meant.
    pub fn includes(&self, subject: &Subject) -> bool {
        match self {
            Self::Everyone => true,
            Self::User(name) => *name == subject.user,
            Self::Group(name) => subject.groups.contains(name),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("*"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

/// A user, as far as rules can tell users apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    /// The user's name.
    pub user: String,
    /// Names of the user's groups, in any order.
    pub groups: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_read_and_print_alike() {
        for text in ["*", "user:ops1", "group:sre", "user:a.b@example.org"] {
            assert_eq!(Principal::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "ops1",
            "user:",
            "group: sre",
            "users:ops1",
            "User:ops1",
            "user:a:b",
            "* ",
            "**",
            "role:x",
            ":x",
        ] {
            assert!(
                matches!(Principal::parse(text), Err(Fault::Principal { .. })),
                "{text:?}"
            );
        }
    }
}
