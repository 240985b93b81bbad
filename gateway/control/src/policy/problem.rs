//! What is wrong with a policy file, and where.

use std::fmt;

use ipnet::IpNet;

use super::limits;

/// Everything that is wrong with a file, by line. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line of the file, from 1.
    pub line: usize,
    /// Name of the rule, where it is in one that has a name.
    pub rule: Option<String>,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(rule) = &self.rule {
            write!(f, ", rule {rule:?}")?;
        }
        write!(f, ": {}", self.fault)
    }
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each variant is its own message, its fields are what that quotes"
)]
pub enum Fault {
    #[error("the file is larger than {} bytes", limits::FILE_BYTES)]
    TooLarge,
    #[error("not TOML: {0}")]
    Syntax(String),
    #[error("unknown key `{key}`: {expected}")]
    UnknownKey { key: String, expected: &'static str },
    #[error("`{key}` is missing")]
    Missing { key: &'static str },
    #[error("`{key}` must be {expected}, not {found}")]
    WrongType {
        key: &'static str,
        expected: &'static str,
        found: &'static str,
    },
    #[error("`{key}` is empty: {advice}")]
    Empty {
        key: &'static str,
        advice: &'static str,
    },
    #[error(
        "{0:?} is no name for a rule: 1 to 64 printable ASCII characters, no space at either end"
    )]
    Name(String),
    #[error("the name is taken by the rule on line {first}")]
    DuplicateName { first: usize },
    #[error("a rule has `to` or `from`, not both: make it two rules")]
    BothDirections,
    #[error("`to` is missing (or `from`, for unsolicited traffic towards the peer)")]
    NoDirection,
    #[error("{text:?} in `who`: {reason}")]
    Principal { text: String, reason: String },
    #[error("{text:?} is neither an address nor a CIDR (names are not resolved in rules)")]
    Prefix { text: String },
    #[error("{text:?} has host bits set; the network is {network}")]
    HostBits { text: String, network: IpNet },
    #[error("{text:?} is an IPv4-mapped address, which is never on the wire: write it as IPv4")]
    MappedPrefix { text: String },
    #[error(
        "{text:?} in `ports`: the protocol is tcp, udp, icmp, icmp6 or a number from 0 to 255, as in \"tcp/22\""
    )]
    Protocol { text: String },
    #[error(
        "{text:?} in `ports`: a port is a number from 1 to 65535, a range two of them, as in \"tcp/8000-8999\""
    )]
    Port { text: String },
    #[error("{text:?} in `ports`: only tcp and udp, by these names, have ports")]
    PortOfPortless { text: String },
    #[error("{text:?} in `ports`: the range ends before it starts")]
    ReversedPorts { text: String },
    #[error("action {0:?} is neither \"allow\" nor \"deny\"")]
    Action(String),
    #[error("require {0:?} is none of \"none\", \"mfa\" and \"phishing-resistant\"")]
    Require(String),
    #[error("max_age {text:?}: {reason}")]
    MaxAge { text: String, reason: String },
    #[error("`{key}` means nothing on a rule that denies")]
    OnDeny { key: &'static str },
    #[error("`max_age` needs a login, and `require = \"none\"` asks for none")]
    MaxAgeWithoutLogin,
    #[error("more than {} rules", limits::RULES)]
    TooManyRules,
    #[error("more than {} distinct prefixes", limits::PREFIXES)]
    TooManyPrefixes,
}
