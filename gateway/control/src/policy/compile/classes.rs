//! Which effective policies a set of users needs, numbered so that only the set matters.

use super::{CompileError, CompiledPolicy, index};
use crate::policy::limits;
use crate::policy::principal::Subject;
use crate::policy::tables::EffectivePolicy;

/// The effective policies of a set of users. The same set of policies has the same numbers, in
/// whatever order the users come and whatever their names are: whoever joins or leaves without a
/// policy of their own changes nothing for the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    policies: Vec<EffectivePolicy>,
    numbers: Vec<u32>,
}

impl Classes {
    /// By number; number 0 is nobody's.
    pub fn policies(&self) -> &[EffectivePolicy] {
        &self.policies
    }

    /// The number of each user's policy, in the order of the users.
    pub fn numbers(&self) -> &[u32] {
        &self.numbers
    }
}

impl CompiledPolicy {
    /// What these users need.
    ///
    /// # Errors
    /// Where one user's policy, or all of them together, are over the limits.
    pub fn classes(&self, subjects: &[Subject]) -> Result<Classes, CompileError> {
        let own = subjects
            .iter()
            .map(|subject| self.effective(subject))
            .collect::<Result<Vec<_>, _>>()?;
        let mut policies = own.clone();
        policies.push(EffectivePolicy::default());
        // Nobody's has no principals and sorts first: it is number 0.
        let place = |policy: &EffectivePolicy| (policy.count, policy.principals);
        policies.sort_unstable_by_key(place);
        policies.dedup();
        if policies.len() > limits::EFFECTIVE_POLICIES + 1 {
            let last = place(&policies[limits::EFFECTIVE_POLICIES]);
            let over = own.iter().position(|policy| place(policy) > last);
            let user = over.and_then(|user| subjects.get(user));
            return Err(CompileError::TooManyPolicies {
                user: user.map(|user| user.user.clone()).unwrap_or_default(),
            });
        }
        let number = |policy: &EffectivePolicy| {
            // Every policy is among those it was collected from.
            policies
                .binary_search_by_key(&place(policy), place)
                .map_or(0, index)
        };
        let numbers = own.iter().map(number).collect();
        Ok(Classes { policies, numbers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    fn subject(user: &str, groups: &[&str]) -> Subject {
        Subject {
            user: user.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        }
    }

    fn compiled(who: &[&str]) -> CompiledPolicy {
        let text: String = who
            .iter()
            .enumerate()
            .map(|(i, who)| {
                format!(
                    "[[rule]]\nname = \"r{i}\"\nwho = [\"{who}\"]\nto = [\"10.0.0.{}\"]\n",
                    i % 250
                )
            })
            .collect();
        CompiledPolicy::compile(&Policy::parse(&text).unwrap()).unwrap()
    }

    #[test]
    fn only_the_set_of_policies_matters() {
        let compiled = compiled(&["group:red", "group:blue", "user:ann"]);
        let (red, blue) = (subject("bob", &["red"]), subject("cid", &["blue"]));
        let (none, ann) = (subject("dan", &["green"]), subject("ann", &[]));
        let one = compiled
            .classes(&[red.clone(), blue.clone(), none.clone()])
            .unwrap();
        let two = compiled
            .classes(&[
                subject("aaa", &["blue", "green"]),
                red.clone(),
                blue.clone(),
            ])
            .unwrap();
        assert_eq!(one.policies(), two.policies());
        assert_eq!(one.numbers()[2], 0);
        assert_eq!(
            (one.numbers()[0], one.numbers()[1]),
            (two.numbers()[1], two.numbers()[2])
        );
        assert_eq!(two.numbers()[0], two.numbers()[2]);
        let three = compiled.classes(&[red, blue, none, ann]).unwrap();
        assert_ne!(one.policies(), three.policies());
        assert_eq!(three.policies().len(), 4);
    }

    #[test]
    fn numbers_lead_to_the_policies_that_assign_finds() {
        let mut compiled = compiled(&["*", "group:red", "group:blue", "user:ann"]);
        let subjects = [
            subject("ann", &["red", "blue"]),
            subject("bob", &["blue"]),
            subject("cid", &[]),
        ];
        let classes = compiled.classes(&subjects).unwrap();
        for (subject, number) in subjects.iter().zip(classes.numbers()) {
            let assigned = compiled.assign(subject).unwrap();
            assert_eq!(
                compiled.tables().policies[assigned as usize],
                classes.policies()[*number as usize]
            );
        }
    }

    #[test]
    fn one_policy_too_many_is_refused_by_name() {
        let users: Vec<String> = (0..=limits::EFFECTIVE_POLICIES)
            .map(|i| format!("user:u{i}"))
            .collect();
        let compiled = compiled(&users.iter().map(String::as_str).collect::<Vec<_>>());
        let mut subjects: Vec<Subject> = (0..=limits::EFFECTIVE_POLICIES)
            .map(|i| subject(&format!("u{i}"), &[]))
            .collect();
        assert!(matches!(
            compiled.classes(&subjects),
            Err(CompileError::TooManyPolicies { user }) if user.starts_with('u')
        ));
        subjects.pop();
        let classes = compiled.classes(&subjects).unwrap();
        assert_eq!(classes.policies().len(), limits::EFFECTIVE_POLICIES + 1);
    }
}
