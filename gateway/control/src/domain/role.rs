//! What an account is for.

use super::Invalid;

/// An account's role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// Logs in.
    #[default]
    User,
    /// The same, and marked as one of those who run this. Rights go with it in the portal alone: on
    /// the admin socket it is the operating system that says who is an administrator.
    Admin,
}

impl Role {
    /// The word in the store, on the wire and on the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "user" => Ok(Self::User),
            "admin" => Ok(Self::Admin),
            _ => Err(Invalid(format!(
                "{text:?} is no role: there are user and admin"
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
        for role in [Role::User, Role::Admin] {
            assert_eq!(Role::parse(role.as_str()).unwrap(), role);
        }
        assert_eq!(Role::parse_or_default("").unwrap(), Role::User);
        for bad in ["", "Admin", "root", "admin "] {
            assert!(Role::parse(bad).is_err(), "{bad}");
        }
    }
}
