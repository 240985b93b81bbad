//! A policy file that is refused, with everything that speaks against it.

use std::fmt;

use portcullis_control::policy::Refusal;
use portcullis_proto::v1::PolicyProblem;
use serde_json::{Value, json};

/// Nothing has changed.
#[derive(Debug)]
pub(crate) struct Refused {
    file: String,
    problems: Vec<PolicyProblem>,
}

impl Refused {
    pub(crate) fn new(file: &str, problems: Vec<PolicyProblem>) -> Self {
        Self {
            file: file.to_owned(),
            problems,
        }
    }

    /// As control would tell it.
    pub(crate) fn offline(file: &str, refusal: Refusal) -> Self {
        let problem = |finding: portcullis_control::policy::Finding| PolicyProblem {
            line: u32::try_from(finding.line.unwrap_or(0)).unwrap_or(u32::MAX),
            rule: finding.rule.unwrap_or_default(),
            text: finding.text,
        };
        Self::new(file, refusal.0.into_iter().map(problem).collect())
    }

    pub(crate) fn json(&self) -> Value {
        let problem = |problem: &PolicyProblem| {
            json!({
                "line": (problem.line != 0).then_some(problem.line),
                "rule": (!problem.rule.is_empty()).then_some(&problem.rule),
                "text": problem.text,
            })
        };
        self.problems.iter().map(problem).collect()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is refused, and nothing has changed:", self.file)?;
        for problem in &self.problems {
            f.write_str("\n  ")?;
            if problem.line != 0 {
                write!(f, "line {}", problem.line)?;
                if !problem.rule.is_empty() {
                    write!(f, ", rule {:?}", problem.rule)?;
                }
                f.write_str(": ")?;
            }
            f.write_str(&problem.text)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}
