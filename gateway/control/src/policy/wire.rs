//! A compiled policy in the terms of the wire.

use gateway_common::abi::Direction;
use portcullis_proto::v1;

use super::compile::CompiledPolicy;
use super::tables::{EffectivePolicy, Family};

impl CompiledPolicy {
    /// The tables with these classes. The same tables and classes make the same message.
    pub fn to_wire(&self, id: u64, classes: &[EffectivePolicy]) -> v1::Policy {
        let tables = self.tables();
        let mut grants: Vec<v1::PolicyGrant> = tables
            .grants
            .iter()
            .map(|(key, list)| v1::PolicyGrant {
                region: key.region,
                principal: key.principal,
                start: list.start,
                length: list.length,
            })
            .collect();
        grants.sort_unstable_by_key(|grant| (grant.region, grant.principal));
        v1::Policy {
            id,
            prefixes: self.wire_prefixes(),
            regions: tables
                .regions
                .iter()
                .map(|region| v1::PolicyRegion {
                    own: region.own,
                    covering: region.covering,
                    parent: region.parent,
                })
                .collect(),
            grants,
            intervals: tables
                .intervals
                .iter()
                .map(|interval| v1::PolicyInterval {
                    first: interval.first,
                    last: interval.last,
                    outcome: interval.outcome,
                })
                .collect(),
            outcomes: tables
                .outcomes
                .iter()
                .map(|outcome| v1::PolicyOutcome {
                    max_age_ns: outcome.max_age,
                    rule: outcome.rule,
                    kind: outcome.kind.into(),
                    level: outcome.level.into(),
                    prefix_length: outcome.prefix_length.into(),
                })
                .collect(),
            classes: classes.iter().map(class).collect(),
            rules: self.rule_names().to_vec(),
        }
    }

    fn wire_prefixes(&self) -> Vec<v1::PolicyPrefix> {
        let mut prefixes = Vec::new();
        for direction in Direction::ALL {
            for family in Family::ALL {
                let octets = match family {
                    Family::V4 => 4,
                    Family::V6 => 16,
                };
                let entries = self.tables().prefixes(direction, family);
                prefixes.extend(entries.iter().map(|entry| v1::PolicyPrefix {
                    direction: direction as u32,
                    address: entry.address[..octets].to_vec(),
                    length: entry.length,
                    region: entry.region,
                }));
            }
        }
        prefixes
    }
}

fn class(policy: &EffectivePolicy) -> v1::PolicyClass {
    let count = (policy.count as usize).min(policy.principals.len());
    v1::PolicyClass {
        principals: policy.principals[..count].to_vec(),
    }
}
