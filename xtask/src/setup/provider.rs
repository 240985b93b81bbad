//! npm's oidc-provider, the OpenID Provider that tests run against, at the versions of its lock file.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::paths;
use crate::process::{output, say};

/// Installs it where tests look for it: in cargo's directory for their files.
pub(super) fn ensure() -> Result<()> {
    let sources = paths::root().join("tests/oidc");
    let at = paths::target().join("tmp/oidc");
    fs::create_dir_all(&at)?;
    for file in ["package.json", "provider.mjs"] {
        fs::copy(sources.join(file), at.join(file)).with_context(|| file.to_owned())?;
    }
    let lock = fs::read(sources.join("package-lock.json"))?;
    let done = at.join("installed.json");
    if fs::read(&done).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    fs::write(at.join("package-lock.json"), &lock)?;
    say("installing oidc-provider from npm");
    output(
        Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&at),
    )?;
    fs::write(done, lock)?;
    Ok(())
}
