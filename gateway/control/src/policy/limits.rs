//! How large a policy may be. Over any of these, a file is refused and nothing changes.

use gateway_common::abi;

/// Bytes of a policy file.
pub const FILE_BYTES: usize = 16 << 20;
/// Rules in a file.
pub const RULES: usize = 10_000;
/// Distinct prefixes in a file, counted apart for `to` and `from`.
pub const PREFIXES: usize = 100_000;
/// Distinct effective policies: sets of rules that hold together for some user.
pub const EFFECTIVE_POLICIES: usize = 4_096;
/// Principals (of `who`) that take part in one user's effective policy.
pub const PRINCIPALS_PER_POLICY: usize = abi::PRINCIPALS_PER_POLICY;
/// Pairs of a prefix and a principal that has rules there.
pub const GRANTS: usize = 1 << 20;
/// Intervals of ports in one list: what a binary search of [`SEARCH_STEPS`] steps can tell apart.
pub const INTERVALS_PER_LIST: usize = (1 << SEARCH_STEPS) - 1;
/// Steps of the binary search, fixed because the kernel's verifier wants a bound.
pub const SEARCH_STEPS: u32 = abi::SEARCH_STEPS;
/// Intervals of ports in all distinct lists together.
pub const INTERVALS: usize = 1 << 21;
/// Bytes of the tables on their way to a gateway, which with its peers are one message.
pub const WIRE_BYTES: usize = 44 << 20;
/// Intervals that compiling may visit, so that no policy keeps it busy for long.
pub const COMPILE_STEPS: usize = 1 << 27;
