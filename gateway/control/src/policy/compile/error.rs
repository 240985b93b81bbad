//! Why a policy without a fault in it cannot be loaded.

use ipnet::IpNet;

use crate::policy::limits;

/// The policy is larger than the tables may become. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each variant is its own message, its fields are what that quotes"
)]
pub enum CompileError {
    #[error(
        "more than {} distinct effective policies: user {user:?} would need one more; give rules to groups rather than \
         to single users",
        limits::EFFECTIVE_POLICIES
    )]
    TooManyPolicies { user: String },
    #[error(
        "user {user:?} gets rules by {found} different ways (`*`, the user's name, groups), {} are possible",
        limits::PRINCIPALS_PER_POLICY
    )]
    TooManyPrincipals { user: String, found: usize },
    #[error(
        "at {prefix}, rule {rule:?}: more than {} pairs of a prefix and one of `who`",
        limits::GRANTS
    )]
    TooManyGrants { prefix: IpNet, rule: String },
    #[error(
        "at {prefix}, rule {rule:?}: more than {} intervals of ports for one of `who`; join neighbouring ports to ranges",
        limits::INTERVALS_PER_LIST
    )]
    ListTooLong { prefix: IpNet, rule: String },
    #[error(
        "at {prefix}, rule {rule:?}: more than {} different intervals of ports in all; use fewer ports on wide prefixes \
         that have many narrow ones within them",
        limits::INTERVALS
    )]
    TooManyIntervals { prefix: IpNet, rule: String },
    #[error(
        "at {prefix}, rule {rule:?}: the rules overlap too much to be compiled in reasonable time"
    )]
    TooIntricate { prefix: IpNet, rule: String },
}

impl CompileError {
    /// Name of the rule that goes over the limit, where it is one rule that does.
    pub fn rule(&self) -> Option<&str> {
        match self {
            Self::TooManyGrants { rule, .. }
            | Self::ListTooLong { rule, .. }
            | Self::TooManyIntervals { rule, .. }
            | Self::TooIntricate { rule, .. } => Some(rule),
            Self::TooManyPolicies { .. } | Self::TooManyPrincipals { .. } => None,
        }
    }
}
