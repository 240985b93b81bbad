//! Running programs and keeping what they said.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// How a program ended and what it printed.
#[derive(Debug)]
pub struct Output {
    /// The exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output as the one JSON document that it must be.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("not a JSON document: {:?}", self.stdout))
    }
}

/// Runs `command` to its end with `input` on standard input, whatever its result.
pub fn try_run(command: &mut Command, input: &str) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that needs no input may be gone already.
        stdin.write_all(input.as_bytes()).ok();
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("cannot wait for {command:?}"))?;
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs `command` to its end; anything but success is an error that shows what it said.
pub fn run(command: &mut Command, input: &str) -> Result<Output> {
    let output = try_run(command, input)?;
    if output.code != 0 {
        bail!(
            "{command:?} ended with {}: {}{}",
            output.code,
            output.stdout,
            output.stderr
        );
    }
    Ok(output)
}
