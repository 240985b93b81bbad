//! What a user may reach, and with what; and who may reach the user.

use gateway_common::abi::Direction;
use ipnet::IpNet;

use super::areas::areas;
use super::outline::outline;
use crate::policy::compile::CompiledPolicy;
use crate::policy::outcome::RuleOutcome;
use crate::policy::span::PortSpan;

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// [`Direction::FromPeer`] for what the user may reach, [`Direction::ToPeer`] for who may reach
    /// the user's devices.
    pub direction: Direction,
    /// Remote addresses.
    pub remote: IpNet,
    /// Narrower prefixes that have lines of their own, or at which nothing is permitted.
    pub except: Vec<IpNet>,
    /// Protocols and destination ports, sorted.
    pub ports: Vec<PortSpan>,
    /// What holds for them; never [`RuleOutcome::NoRule`]. What no line tells is dropped.
    pub outcome: RuleOutcome,
}

/// What the policy of this number comes to: denies, prefix lengths and ties worked out.
pub fn reach(compiled: &CompiledPolicy, policy: u32) -> Vec<Reach> {
    let mut lines = Vec::new();
    for direction in Direction::ALL {
        let nested = areas(compiled, policy, direction).into_iter().map(|area| {
            // By what holds, not where it comes from: the prefix length is not told.
            let mut told: Vec<(RuleOutcome, Vec<PortSpan>)> = Vec::new();
            for stretch in area.stretches {
                let outcome = RuleOutcome::from(stretch.outcome);
                let span = PortSpan {
                    first: stretch.first,
                    last: stretch.last,
                };
                match told.iter_mut().find(|(known, _)| *known == outcome) {
                    Some((_, spans)) => match spans.last_mut() {
                        Some(before) if before.last + 1 == span.first => before.last = span.last,
                        _ => spans.push(span),
                    },
                    None => told.push((outcome, vec![span])),
                }
            }
            (area.net, told)
        });
        for entry in outline(nested) {
            for (outcome, ports) in entry.value {
                lines.push(Reach {
                    direction,
                    remote: entry.net,
                    except: entry.except.clone(),
                    ports,
                    outcome,
                });
            }
        }
    }
    lines
}
