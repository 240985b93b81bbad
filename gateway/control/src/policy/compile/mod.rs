//! From rules to tables.

mod classes;
mod error;
mod lists;
mod principals;
mod regions;

pub use classes::Classes;
pub use error::CompileError;

use std::collections::HashMap;

use self::principals::Principals;
use super::limits;
use super::principal::Subject;
use super::rule::Policy;
use super::tables::{EffectivePolicy, Tables, bit};

/// A policy's tables, and which of them hold for whom.
#[derive(Clone, Debug)]
pub struct CompiledPolicy {
    tables: Tables,
    principals: Principals,
    assigned: HashMap<EffectivePolicy, u32>,
    rules: Vec<String>,
}

impl CompiledPolicy {
    /// Makes the tables. Users come later, with [`Self::assign`]: the size of the tables does not
    /// depend on how many there are.
    pub fn compile(policy: &Policy) -> Result<Self, CompileError> {
        let principals = Principals::of(policy);
        let mut tables = regions::compile(policy, &principals)?;
        // Number 0, what an empty map entry says, is the policy of nobody.
        tables.policies.push(EffectivePolicy::default());
        let assigned = HashMap::from([(EffectivePolicy::default(), 0)]);
        let rules = policy.rules.iter().map(|rule| rule.name.clone()).collect();
        Ok(Self {
            tables,
            principals,
            assigned,
            rules,
        })
    }

    /// Whose rules hold for the user.
    ///
    /// # Errors
    /// Where there are more of them than one policy has room for.
    pub fn effective(&self, subject: &Subject) -> Result<EffectivePolicy, CompileError> {
        let members = self.principals.including(subject);
        if members.len() > limits::PRINCIPALS_PER_POLICY {
            return Err(CompileError::TooManyPrincipals {
                user: subject.user.clone(),
                found: members.len(),
            });
        }
        let mut policy = EffectivePolicy::default();
        for (slot, principal) in policy.principals.iter_mut().zip(members) {
            *slot = principal;
            policy.mask |= bit(principal);
            policy.count += 1;
        }
        Ok(policy)
    }

    /// The number of the policy that holds for the user: the same for all to whom the same rules
    /// apply, 0 for those to whom none does.
    pub fn assign(&mut self, subject: &Subject) -> Result<u32, CompileError> {
        let policy = self.effective(subject)?;
        if let Some(number) = self.assigned.get(&policy) {
            return Ok(*number);
        }
        let number = self.tables.policies.len();
        if number > limits::EFFECTIVE_POLICIES {
            return Err(CompileError::TooManyPolicies {
                user: subject.user.clone(),
            });
        }
        let number = index(number);
        self.tables.policies.push(policy);
        self.assigned.insert(policy, number);
        Ok(number)
    }

    /// The tables, with the policies assigned so far.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Distinct prefixes, those of `to` and of `from` apart.
    pub fn prefix_count(&self) -> usize {
        self.tables.regions.len()
    }

    /// Names of the rules, by number.
    pub fn rule_names(&self) -> &[String] {
        &self.rules
    }

    /// The name of the rule of this number.
    pub fn rule_name(&self, rule: u32) -> Option<&str> {
        self.rules.get(rule as usize).map(String::as_str)
    }
}

/// A place in a table as the tables name it. All tables are limited far below 2^32 entries.
fn index(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
