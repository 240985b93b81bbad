//! Secrets that a person or a program hands to a command.

use std::io::{self, BufRead as _, Read as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::exit::UsageError;

/// Far longer than any password.
const LINE_LIMIT: u64 = 4096;

/// A secret that is to be known already: from stdin's first line, or asked for once.
pub(crate) fn password(from_stdin: bool, prompt: &str) -> Result<String> {
    if from_stdin {
        first_line_of_stdin()
    } else {
        ask(prompt)
    }
}

/// A secret that is being chosen: asked for twice.
pub(crate) fn new_password(from_stdin: bool, whose: &str) -> Result<String> {
    if from_stdin {
        return first_line_of_stdin();
    }
    let first = ask(&format!("New password of {whose}: "))?;
    if first != ask("Once more: ")? {
        bail!(UsageError("the two passwords differ".to_owned()));
    }
    Ok(first)
}

/// Asks at the terminal, without echo.
pub(crate) fn ask(prompt: &str) -> Result<String> {
    rpassword::prompt_password(prompt)
        .context("cannot ask at the terminal (for scripts there is --password-stdin)")
}

/// Asks at the terminal, with echo.
pub(crate) fn ask_openly(prompt: &str) -> Result<String> {
    eprint!("{prompt}");
    let mut line = String::new();
    io::stdin().lock().take(LINE_LIMIT).read_line(&mut line)?;
    let line = line.trim();
    if line.is_empty() {
        bail!(UsageError("nothing was entered".to_owned()));
    }
    Ok(line.to_owned())
}

fn first_line_of_stdin() -> Result<String> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .take(LINE_LIMIT)
        .read_line(&mut line)
        .context("cannot read stdin")?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        bail!(UsageError("stdin holds no password".to_owned()));
    }
    Ok(line.to_owned())
}

/// What a shell command prints, for codes from another program.
pub(crate) fn from_command(command: &str) -> Result<String> {
    let ran = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{command}`"))?;
    if !ran.status.success() {
        bail!("`{command}` failed: {}", ran.status);
    }
    let text =
        String::from_utf8(ran.stdout).with_context(|| format!("`{command}` printed no text"))?;
    Ok(text.trim().to_owned())
}
