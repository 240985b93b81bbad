//! virtme-ng: boots a kernel over this machine's file system.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::paths;
use crate::process::{has, output, run, say};

const VERSION: &str = "1.42";

/// Finds `vng`, or installs it into a virtual environment below target/.
pub(crate) fn ensure() -> Result<PathBuf> {
    if has("vng") && output(Command::new("vng").arg("--version")).is_ok() {
        return Ok("vng".into());
    }
    let venv = paths::target().join("tools/virtme-ng");
    let vng = venv.join("bin/vng");
    if vng.is_file() {
        return Ok(vng);
    }
    say("virtme-ng is missing: installing it below target/tools");
    // A virtual environment, since Debian keeps pip away from the system's own packages (PEP 668).
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))
        .context("cannot make a Python environment")?;
    run(Command::new(venv.join("bin/pip")).args([
        "install",
        "--quiet",
        &format!("virtme-ng=={VERSION}"),
    ]))
    .context("cannot install virtme-ng")?;
    Ok(vng)
}
