//! Running other programs and saying so.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Prints a heading for a step, so that a reader of the log knows where a long run is.
pub(crate) fn say(message: impl AsRef<str>) {
    eprintln!("xtask: {}", message.as_ref());
}

/// A cargo command of the toolchain that runs this program.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::paths::root());
    forget_package(&mut command);
    command
}

/// Takes what the calling cargo says of this package out of the environment: build scripts that look at it would run
/// again whenever cargo is called in another way, and with them what is built upon them.
pub(crate) fn forget_package(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let inherited = name.to_string_lossy();
        if inherited.starts_with("CARGO_PKG_") || inherited.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
}

/// Runs `command` with its output shown; fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    if succeeds(command)? {
        Ok(())
    } else {
        bail!("`{}` failed", line(command))
    }
}

/// Runs `command` with its output shown and tells whether it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> Result<bool> {
    say(format!("$ {}", line(command)));
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run `{}`", line(command)))?;
    Ok(status.success())
}

/// Runs `command` and returns what it printed; its errors become part of the message.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{}`", line(command)))?;
    if !output.status.success() {
        bail!(
            "`{}` failed: {}",
            line(command),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether `program` is on the PATH (also in the sbin directories, which a user's PATH may lack).
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}

/// Whether this process may act as root without asking anyone.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `program`, through sudo where this process is not root.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("--preserve-env").arg(program);
    command
}

fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
