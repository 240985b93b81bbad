//! The tables and the reports against the oracle, on random policies.

use proptest::prelude::*;

use super::{generate, oracle};
use crate::policy::{CompiledPolicy, Policy, RuleOutcome, changes, reach, span};

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn inv8_tables_say_what_the_rules_say(
        text in generate::policy(14),
        subject in generate::subject(),
        strangers in proptest::collection::vec(generate::opener(), 50),
    ) {
        let policy = Policy::parse(&text).unwrap();
        let mut compiled = CompiledPolicy::compile(&policy).unwrap();
        let number = compiled.assign(&subject).unwrap();
        for (direction, remote, protocol, port) in generate::openers().into_iter().chain(strangers) {
            prop_assert_eq!(
                compiled.lookup(number, direction, remote, protocol, port),
                oracle::judge(&policy, &subject, direction, remote, protocol, port),
                "{:?} {} {}/{}", direction, remote, protocol, port
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn reach_tells_each_permitted_packet_once(text in generate::policy(10), subject in generate::subject()) {
        let mut compiled = super::compiled(&text);
        let number = compiled.assign(&subject).unwrap();
        let lines = reach(&compiled, number);
        for (direction, remote, protocol, port) in generate::openers() {
            let key = span::key(protocol, port);
            let told: Vec<RuleOutcome> = lines
                .iter()
                .filter(|line| line.direction == direction && line.remote.contains(&remote))
                .filter(|line| !line.except.iter().any(|except| except.contains(&remote)))
                .filter(|line| line.ports.iter().any(|span| (span.first..=span.last).contains(&key)))
                .map(|line| line.outcome)
                .collect();
            let wanted = match compiled.lookup(number, direction, remote, protocol, port) {
                RuleOutcome::NoRule => vec![],
                outcome => vec![outcome],
            };
            prop_assert_eq!(told, wanted, "{:?} {} {}/{}", direction, remote, protocol, port);
        }
    }

    #[test]
    fn changes_tell_each_difference_once(
        old in generate::policy(8),
        new in generate::policy(8),
        subject in generate::subject(),
    ) {
        let (mut old, mut new) = (super::compiled(&old), super::compiled(&new));
        let lines = changes(&mut old, &mut new, std::slice::from_ref(&subject)).unwrap();
        let (before, after) = (old.assign(&subject).unwrap(), new.assign(&subject).unwrap());
        let requirement = |outcome| match outcome {
            RuleOutcome::Allow { level, max_age, .. } => Some((level, max_age)),
            _ => None,
        };
        for (direction, remote, protocol, port) in generate::openers() {
            let key = span::key(protocol, port);
            let told: Vec<(RuleOutcome, RuleOutcome)> = lines
                .iter()
                .filter(|line| line.direction == direction && line.remote.contains(&remote))
                .filter(|line| !line.except.iter().any(|except| except.contains(&remote)))
                .filter(|line| line.ports.iter().any(|span| (span.first..=span.last).contains(&key)))
                .map(|line| (line.before, line.after))
                .collect();
            let before = old.lookup(before, direction, remote, protocol, port);
            let after = new.lookup(after, direction, remote, protocol, port);
            let wanted = if requirement(before) == requirement(after) { vec![] } else { vec![(before, after)] };
            prop_assert_eq!(told, wanted, "{:?} {} {}/{}", direction, remote, protocol, port);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(\\[\\[rule\\]\\]|name|who|to|ports|=|\"|'|\\[|\\]|\n|,|\\{|\\}|\\*|[a-z0-9/.:-]{0,8}| ){0,60}") {
        let _ = Policy::parse(&text);
    }
}
