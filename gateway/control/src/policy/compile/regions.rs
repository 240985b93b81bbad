//! The prefixes of all rules as a tree, and what each principal gets at each.

use gateway_common::abi::Direction;
use ipnet::IpNet;

use super::error::CompileError;
use super::index;
use super::lists::{Full, Lists};
use super::principals::Principals;
use crate::policy::limits;
use crate::policy::rule::{Policy, Rule};
use crate::policy::tables::{
    Family, GrantKey, IntervalList, NO_REGION, PrefixEntry, Region, Tables, bit,
};

pub(super) fn compile(policy: &Policy, principals: &Principals) -> Result<Tables, CompileError> {
    let mut builder = Builder {
        rules: &policy.rules,
        principals,
        tables: Tables::default(),
        lists: Lists::default(),
        path: Vec::new(),
        current: Vec::new(),
    };
    for direction in Direction::ALL {
        let mut entries: Vec<(IpNet, u32)> = Vec::new();
        for (number, rule) in policy
            .rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| rule.direction == direction)
        {
            entries.extend(rule.prefixes.iter().map(|prefix| (*prefix, index(number))));
        }
        // By family, address, length: what covers a prefix comes before it.
        entries.sort_unstable();
        entries.dedup();
        for same in entries.chunk_by(|a, b| a.0 == b.0) {
            let Some((net, _)) = same.first() else {
                continue;
            };
            let rules: Vec<u32> = same.iter().map(|(_, rule)| *rule).collect();
            builder.region(direction, *net, &rules)?;
        }
        builder.leave_all();
    }
    Ok(builder.tables)
}

struct Builder<'a> {
    rules: &'a [Rule],
    principals: &'a Principals,
    tables: Tables,
    lists: Lists,
    /// The regions around the current place, the widest first.
    path: Vec<Step>,
    /// By principal: its lists along the path, the narrowest last.
    current: Vec<Vec<IntervalList>>,
}

struct Step {
    net: IpNet,
    region: u32,
    covering: u64,
    /// Principals that got a list at this region.
    granted: Vec<u32>,
}

impl Builder<'_> {
    /// Adds the region of a prefix. `rules` are those that name it, ascending.
    fn region(
        &mut self,
        direction: Direction,
        net: IpNet,
        rules: &[u32],
    ) -> Result<(), CompileError> {
        while self
            .path
            .last()
            .is_some_and(|step| !step.net.contains(&net))
        {
            self.leave();
        }
        let region = index(self.tables.regions.len());
        let (parent, around) = self
            .path
            .last()
            .map_or((NO_REGION, 0), |step| (step.region, step.covering));
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        for &rule in rules {
            pairs.extend(
                self.principals
                    .of_rule(rule as usize)
                    .iter()
                    .map(|principal| (*principal, rule)),
            );
        }
        pairs.sort_unstable();
        let mut own = 0;
        let mut granted = Vec::new();
        for same in pairs.chunk_by(|a, b| a.0 == b.0) {
            let Some(&(principal, first_rule)) = same.first() else {
                continue;
            };
            let numbers: Vec<u32> = same.iter().map(|(_, rule)| *rule).collect();
            let list = self
                .list(principal, &numbers, net.prefix_len())
                .map_err(|full| self.refusal(full, net, first_rule))?;
            if self.tables.grants.len() >= limits::GRANTS {
                return Err(CompileError::TooManyGrants {
                    prefix: net,
                    rule: self.rule_name(first_rule),
                });
            }
            self.tables
                .grants
                .insert(GrantKey { region, principal }, list);
            own |= bit(principal);
            granted.push(principal);
        }
        let covering = around | own;
        self.tables.regions.push(Region {
            own,
            covering,
            parent,
            pad: 0,
        });
        let family = Family::of(net.addr());
        self.tables.prefixes[direction as usize][family as usize]
            .push(PrefixEntry::new(net, region));
        self.path.push(Step {
            net,
            region,
            covering,
            granted,
        });
        Ok(())
    }

    /// The principal's list here, and on the path from now on.
    fn list(&mut self, principal: u32, rules: &[u32], length: u8) -> Result<IntervalList, Full> {
        let slot = principal as usize;
        if self.current.len() <= slot {
            self.current.resize_with(slot + 1, Vec::new);
        }
        let own = self
            .lists
            .own(&mut self.tables, self.rules, rules, length)?;
        let list = match self.current[slot].last() {
            Some(around) => self.lists.within(&mut self.tables, *around, own)?,
            None => own,
        };
        self.current[slot].push(list);
        Ok(list)
    }

    fn leave(&mut self) {
        let Some(step) = self.path.pop() else { return };
        for principal in step.granted {
            if let Some(lists) = self.current.get_mut(principal as usize) {
                lists.pop();
            }
        }
    }

    fn leave_all(&mut self) {
        while !self.path.is_empty() {
            self.leave();
        }
    }

    fn refusal(&self, full: Full, prefix: IpNet, rule: u32) -> CompileError {
        let rule = self.rule_name(rule);
        match full {
            Full::List => CompileError::ListTooLong { prefix, rule },
            Full::Intervals => CompileError::TooManyIntervals { prefix, rule },
            Full::Steps => CompileError::TooIntricate { prefix, rule },
        }
    }

    fn rule_name(&self, rule: u32) -> String {
        self.rules
            .get(rule as usize)
            .map_or_else(String::new, |rule| rule.name.clone())
    }
}
