//! The policy file: strict TOML to [`Policy`], or everything that is wrong with it.

mod fields;
mod lines;
mod rule;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::lines::Lines;
use super::limits;
use super::problem::{Fault, Problem, Problems};
use super::rule::{Policy, Rule};

impl Policy {
    /// Reads a policy file. One fault refuses the whole file; all faults are reported, except
    /// those in a rule that is not even TOML, where they would be guesses.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        if text.len() > limits::FILE_BYTES {
            return Err(Problems(vec![Problem {
                line: 1,
                rule: None,
                fault: Fault::TooLarge,
            }]));
        }
        let lines = Lines::of(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        let mut problems = Vec::new();
        let rules = Document::new(&lines, &mut problems).read(document.get_ref());
        if !errors.is_empty() {
            let broken: Vec<usize> = errors
                .iter()
                .map(|error| lines.at(error.span().map_or(0, |span| span.start)))
                .collect();
            forget_guesses(&mut problems, document.get_ref(), &lines, &broken);
            problems.extend(broken.iter().zip(&errors).map(|(&line, error)| Problem {
                line,
                rule: None,
                fault: Fault::Syntax(error.message().to_owned()),
            }));
        }
        if problems.is_empty() {
            return Ok(Self { rules });
        }
        problems.sort_by_key(|problem| problem.line);
        Err(Problems(problems))
    }
}

/// Drops the problems of those rules (and of what is before the first) that hold a broken line.
fn forget_guesses(
    problems: &mut Vec<Problem>,
    document: &DeTable<'_>,
    lines: &Lines,
    broken: &[usize],
) {
    let mut starts: Vec<usize> = match document.get("rule").map(Spanned::get_ref) {
        Some(DeValue::Array(rules)) => rules
            .iter()
            .map(|rule| lines.at(rule.span().start))
            .collect(),
        _ => Vec::new(),
    };
    starts.sort_unstable();
    let block = |line: usize| starts.partition_point(|start| *start <= line);
    let guessed: HashSet<usize> = broken.iter().map(|line| block(*line)).collect();
    problems.retain(|problem| !guessed.contains(&block(problem.line)));
}

/// The document while it is read.
struct Document<'a> {
    lines: &'a Lines,
    problems: &'a mut Vec<Problem>,
    /// Line of the rule that has the name.
    names: HashMap<String, usize>,
    prefixes: HashSet<(u8, ipnet::IpNet)>,
    prefixes_full: bool,
}

impl<'a> Document<'a> {
    fn new(lines: &'a Lines, problems: &'a mut Vec<Problem>) -> Self {
        Self {
            lines,
            problems,
            names: HashMap::new(),
            prefixes: HashSet::new(),
            prefixes_full: false,
        }
    }

    fn read(mut self, document: &DeTable<'_>) -> Vec<Rule> {
        let mut rules = Vec::new();
        for (key, value) in document {
            if key.get_ref() != "rule" {
                let key_name = key.get_ref().clone().into_owned();
                let expected = "a policy is a list of [[rule]]";
                self.problem(
                    key.span(),
                    None,
                    Fault::UnknownKey {
                        key: key_name,
                        expected,
                    },
                );
                continue;
            }
            let DeValue::Array(entries) = value.get_ref() else {
                let found = fields::kind(value.get_ref());
                self.problem(
                    value.span(),
                    None,
                    Fault::WrongType {
                        key: "rule",
                        expected: "a list of tables: write [[rule]]",
                        found,
                    },
                );
                continue;
            };
            if let Some(entry) = entries.get(limits::RULES) {
                self.problem(entry.span(), None, Fault::TooManyRules);
            }
            for entry in entries.iter().take(limits::RULES) {
                rules.extend(self.rule(entry));
            }
        }
        rules
    }

    /// Notes a problem at this place of the file.
    fn problem(&mut self, at: Range<usize>, rule: Option<&str>, fault: Fault) {
        self.problems.push(Problem {
            line: self.lines.at(at.start),
            rule: rule.map(str::to_owned),
            fault,
        });
    }
}

#[cfg(test)]
mod tests;
