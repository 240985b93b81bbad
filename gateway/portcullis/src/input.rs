//! Secrets that a person or a program hands to a command.

use std::env;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use zeroize::Zeroizing;

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

/// The first line of a file that is its owner's alone.
pub(crate) fn from_private_file(path: &Path) -> Result<Zeroizing<String>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let metadata = file.metadata();
    let metadata = metadata.with_context(|| format!("cannot look at {}", path.display()))?;
    // What systemd.exec(5) hands over is private by its directory; the mode shows an access list there.
    let handed_over = env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|dir| path.starts_with(dir));
    if metadata.mode() & 0o077 != 0 && !handed_over {
        bail!(UsageError(format!(
            "{0} can be read or written by others: make it its owner's alone (chmod go= {0})",
            path.display()
        )));
    }
    let line = line_of(BufReader::new(file));
    let line = line.with_context(|| format!("cannot read {}", path.display()))?;
    if line.is_empty() {
        bail!(UsageError(format!("{} is empty", path.display())));
    }
    Ok(line)
}

/// The first line of stdin, whatever it is.
pub(crate) fn line_of_stdin() -> Result<Zeroizing<String>> {
    line_of(io::stdin().lock()).context("cannot read stdin")
}

fn line_of(from: impl BufRead) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::with_capacity(256));
    from.take(LINE_LIMIT).read_line(&mut line)?;
    let end = line.strip_suffix('\n').unwrap_or(&line);
    let end = end.strip_suffix('\r').unwrap_or(end).len();
    line.truncate(end);
    Ok(line)
}

fn first_line_of_stdin() -> Result<String> {
    let mut line = line_of_stdin()?;
    if line.is_empty() {
        bail!(UsageError("stdin holds no password".to_owned()));
    }
    Ok(std::mem::take(&mut *line))
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
