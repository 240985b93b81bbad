//! Numbers for the entries of `who`.

use std::collections::{BTreeMap, HashMap};

use super::index;
use crate::policy::principal::{Principal, Subject};
use crate::policy::rule::Policy;

/// Which number each principal has. Those that occur in exactly the same rules share one: nothing
/// can tell them apart.
#[derive(Clone, Debug)]
pub(super) struct Principals {
    numbers: HashMap<Principal, u32>,
    /// The numbers in each rule, ascending.
    by_rule: Vec<Vec<u32>>,
}

impl Principals {
    pub(super) fn of(policy: &Policy) -> Self {
        let mut rules: BTreeMap<&Principal, Vec<usize>> = BTreeMap::new();
        for (number, rule) in policy.rules.iter().enumerate() {
            for principal in &rule.who {
                let rules = rules.entry(principal).or_default();
                if rules.last() != Some(&number) {
                    rules.push(number);
                }
            }
        }
        let mut by_rule = vec![Vec::new(); policy.rules.len()];
        let mut known: HashMap<&[usize], u32> = HashMap::new();
        let mut numbers = HashMap::new();
        for (&principal, rules) in &rules {
            let next = index(known.len());
            let number = *known.entry(rules).or_insert_with(|| {
                for &rule in rules {
                    by_rule[rule].push(next);
                }
                next
            });
            numbers.insert(principal.clone(), number);
        }
        Self { numbers, by_rule }
    }

    /// Whom the rule of this number is about.
    pub(super) fn of_rule(&self, rule: usize) -> &[u32] {
        self.by_rule.get(rule).map_or(&[], Vec::as_slice)
    }

    /// The numbers that mean this user, ascending.
    pub(super) fn including(&self, subject: &Subject) -> Vec<u32> {
        let groups = subject
            .groups
            .iter()
            .map(|group| Principal::Group(group.clone()));
        let all = [Principal::Everyone, Principal::User(subject.user.clone())]
            .into_iter()
            .chain(groups);
        let mut numbers: Vec<u32> = all
            .filter_map(|principal| self.numbers.get(&principal).copied())
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}
