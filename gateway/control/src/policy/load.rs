//! From a file to tables in one go, with everything that speaks against it in one list.

use std::fmt;

use prost::Message as _;

use super::{CompileError, CompiledPolicy, Policy, Problem, Problems, limits};

/// Reads and compiles a policy file.
///
/// # Errors
/// With everything that is wrong with it.
pub fn load(text: &str) -> Result<(Policy, CompiledPolicy), Refusal> {
    let policy = Policy::parse(text)?;
    let compiled = CompiledPolicy::compile(&policy).map_err(|error| refused(&policy, &error))?;
    if compiled.to_wire(0, &[]).encoded_len() > limits::WIRE_BYTES {
        let text = format!(
            "its tables come to more than {} bytes: use fewer or wider prefixes and ports",
            limits::WIRE_BYTES
        );
        return Err(Refusal(vec![Finding {
            line: None,
            rule: None,
            text,
        }]));
    }
    Ok((policy, compiled))
}

/// What a limit that rules or users exceed says against the file.
pub fn refused(policy: &Policy, error: &CompileError) -> Refusal {
    let rule = error
        .rule()
        .and_then(|name| policy.rules().iter().find(|rule| rule.name == name));
    Refusal(vec![Finding {
        line: rule.map(|rule| rule.line),
        rule: rule.map(|rule| rule.name.clone()),
        text: error.to_string(),
    }])
}

/// Why a file is refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub Vec<Finding>);

/// One thing that speaks against a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Line of the file, from 1; none where it is about the policy as a whole.
    pub line: Option<usize>,
    /// Name of the rule, where it is about one that has a name.
    pub rule: Option<String>,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, finding) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            finding.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, &self.rule) {
            (Some(line), Some(rule)) => write!(f, "line {line}, rule {rule:?}: {}", self.text),
            (Some(line), None) => write!(f, "line {line}: {}", self.text),
            (None, _) => f.write_str(&self.text),
        }
    }
}

impl From<Problems> for Refusal {
    fn from(problems: Problems) -> Self {
        Self(problems.0.into_iter().map(Finding::from).collect())
    }
}

impl From<Problem> for Finding {
    fn from(problem: Problem) -> Self {
        Self {
            line: Some(problem.line),
            rule: problem.rule,
            text: problem.fault.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_told_with_its_line_and_rule() {
        let text = "[[rule]]\nname = \"a\"\nwho = [\"x\"]\nto = [\"10.0.0.1/8\"]\n";
        let refusal = load(text).unwrap_err();
        assert_eq!(refusal.0.len(), 2);
        let told = refusal.to_string();
        assert!(
            told.contains("line 3, rule \"a\": \"x\" in `who`"),
            "{told}"
        );
        assert!(told.contains("line 4, rule \"a\":"), "{told}");
    }

    #[test]
    fn a_limit_is_told_at_the_rule_that_exceeds_it() {
        let ports: Vec<String> = (0..32_768)
            .map(|i| format!("\"tcp/{}\"", 2 * i + 1))
            .collect();
        let ports = ports.join(",");
        let text = format!(
            "[[rule]]\nname = \"a\"\nwho = [\"*\"]\nto = [\"10.0.0.1\"]\nports = [{ports},{}]\n",
            ports.replace("tcp", "udp")
        );
        let refusal = load(&text).unwrap_err();
        assert_eq!(
            (refusal.0[0].line, refusal.0[0].rule.as_deref()),
            (Some(1), Some("a"))
        );
    }
}
