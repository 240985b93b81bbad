//! One user's view of the tables: prefixes at which something changes for that user, and all that
//! holds there.

use gateway_common::abi::Direction;
use ipnet::IpNet;

use crate::policy::compile::CompiledPolicy;
use crate::policy::limits;
use crate::policy::outcome::Outcome;
use crate::policy::span::{self, Stretch};
use crate::policy::tables::{
    EffectivePolicy, Family, GrantKey, IntervalList, bit, members, stretches,
};

/// What holds at a prefix, except at narrower areas within it.
pub(super) struct Area {
    pub(super) net: IpNet,
    pub(super) stretches: Vec<Stretch<Outcome>>,
}

/// The areas of one direction, by family, address and length.
pub(super) fn areas(compiled: &CompiledPolicy, policy: u32, direction: Direction) -> Vec<Area> {
    let Some(policy) = compiled.tables().policies.get(policy as usize) else {
        return Vec::new();
    };
    Family::ALL
        .into_iter()
        .flat_map(|family| of_family(compiled, policy, direction, family))
        .collect()
}

type Lists = [Option<IntervalList>; limits::PRINCIPALS_PER_POLICY];

fn of_family(
    compiled: &CompiledPolicy,
    policy: &EffectivePolicy,
    direction: Direction,
    family: Family,
) -> Vec<Area> {
    let tables = compiled.tables();
    let mut areas = Vec::new();
    let mut path: Vec<(IpNet, Lists)> = Vec::new();
    for entry in tables.prefixes(direction, family) {
        let own = tables
            .regions
            .get(entry.region as usize)
            .map_or(0, |region| region.own);
        if own & policy.mask == 0 {
            continue;
        }
        let Some(net) = entry.net(family) else {
            continue;
        };
        while path
            .last()
            .is_some_and(|(around, _)| !around.contains(&net))
        {
            path.pop();
        }
        let mut lists = path
            .last()
            .map_or([None; limits::PRINCIPALS_PER_POLICY], |(_, lists)| *lists);
        let mut any = false;
        for (list, principal) in lists.iter_mut().zip(members(policy).iter().copied()) {
            if own & bit(principal) == 0 {
                continue;
            }
            if let Some(grant) = tables.grants.get(&GrantKey {
                region: entry.region,
                principal,
            }) {
                *list = Some(*grant);
                any = true;
            }
        }
        if !any {
            continue;
        }
        let stretches = lists.iter().flatten().fold(Vec::new(), |all, list| {
            span::merge(all, stretches(tables, *list).collect::<Vec<_>>())
        });
        areas.push(Area { net, stretches });
        path.push((net, lists));
    }
    areas
}
