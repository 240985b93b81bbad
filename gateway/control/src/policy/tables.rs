//! A compiled policy as the kernel's maps hold it. The shapes and the look-up are gateway-common's, so
//! that control, agent and kernel cannot differ.

pub use gateway_common::abi::{
    EffectivePolicy, GrantKey, IntervalList, NO_REGION, PortInterval, Region,
};
pub use gateway_common::policy::{Family, PrefixEntry, Tables};

pub(super) use gateway_common::abi::principal_bit as bit;

use super::limits;
use super::outcome::Outcome;
use super::span::Stretch;

/// The intervals of a list with their outcomes.
pub(super) fn stretches(
    tables: &Tables,
    list: IntervalList,
) -> impl Iterator<Item = Stretch<Outcome>> + '_ {
    let start = list.start as usize;
    let intervals = tables
        .intervals
        .get(start..start + list.length as usize)
        .unwrap_or_default();
    intervals.iter().filter_map(
        |&PortInterval {
             first,
             last,
             outcome,
         }| {
            Some(Stretch {
                first,
                last,
                outcome: *tables.outcomes.get(outcome as usize)?,
            })
        },
    )
}

/// The numbers of the policy's principals.
pub(super) fn members(policy: &EffectivePolicy) -> &[u32] {
    let count = (policy.count as usize).min(limits::PRINCIPALS_PER_POLICY);
    &policy.principals[..count]
}
