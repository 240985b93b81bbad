//! Running programs and keeping what they said.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::wait::eventually;

/// For a program that has every reason to end.
const END: Duration = Duration::from_secs(20);

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

/// A program that goes on until it is told to end. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
    /// What was read of its standard output already.
    heard: Vec<u8>,
}

impl Running {
    /// Starts it, with nothing to read.
    pub fn start(command: &mut Command) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self {
            child: Some(child),
            heard: Vec::new(),
        })
    }

    /// Waits until it has printed one more line.
    pub fn next_line(&mut self) -> Result<String> {
        let child = self.child.as_mut().context("it runs until now")?;
        let stdout = child.stdout.as_mut().context("its output is read here")?;
        let mut byte = [0];
        let begins = self.heard.len();
        while byte != *b"\n" {
            stdout
                .read_exact(&mut byte)
                .context("it ended without a line")?;
            self.heard.extend(byte);
        }
        Ok(String::from_utf8_lossy(&self.heard[begins..]).into_owned())
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> Result<bool> {
        let child = self.child.as_mut().context("it runs until now")?;
        Ok(child.try_wait()?.is_some())
    }

    /// Waits for its own end, which must be near.
    pub fn finish(mut self) -> Result<Output> {
        let mut child = self.child.take().context("it runs until now")?;
        let ended = eventually("a program ends", END, || Ok(child.try_wait()?.is_some()));
        if ended.is_err() {
            child.kill().ok();
        }
        self.with_heard(child)
            .and_then(|output| ended.map(|_| output))
    }

    /// Interrupts it as Ctrl-C does, and waits for its end. What it prints until then must fit a pipe's buffer.
    pub fn interrupt(mut self) -> Result<Output> {
        let child = self.child.take().context("it runs until now")?;
        let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(id.context("a process id is positive")?, Signal::INT)?;
        self.with_heard(child)
    }

    fn with_heard(&self, child: Child) -> Result<Output> {
        let mut output = finished(child)?;
        output
            .stdout
            .insert_str(0, &String::from_utf8_lossy(&self.heard));
        Ok(output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn finished(child: Child) -> Result<Output> {
    let output = child.wait_with_output()?;
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
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
    finished(child).with_context(|| format!("cannot wait for {command:?}"))
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
