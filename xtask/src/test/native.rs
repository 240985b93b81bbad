//! The tests that run on this machine's own kernel.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::Tally;
use crate::process::{as_root, cargo, output, say};

/// Needs root and the kernel; the others need neither.
const DATAPATH: &str = "datapath-tests";
/// Runs in VMs only.
const END_TO_END: &str = "e2e-tests";

/// The compiled tests of the workspace.
pub(super) struct Executables(Vec<Executable>);

struct Executable {
    package: String,
    target: String,
    /// Cargo runs tests in their package's directory.
    directory: PathBuf,
    path: PathBuf,
}

/// The names of the tests in an executable, those that contain `filter`.
pub(super) fn list(executable: &Path, filter: Option<&str>) -> Result<Vec<String>> {
    let listed = output(
        Command::new(executable)
            .args(["--list", "--format=terse"])
            .args(filter),
    )?;
    Ok(listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect())
}

/// The part of cargo's JSON messages that is used here.
#[derive(Deserialize)]
struct Message {
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Executables {
    /// Compiles the tests of the whole workspace at once.
    pub(super) fn build() -> Result<Self> {
        Ok(Self(compile(&["--workspace"])?))
    }

    /// Runs the tests of every crate, and the examples in their documentation.
    pub(super) fn unit(&self, filter: Option<&str>) -> Result<Tally> {
        let mut tally = Tally::default();
        for test in self
            .0
            .iter()
            .filter(|test| test.package != DATAPATH && test.package != END_TO_END)
        {
            tally += test.run(Command::new(&test.path), filter)?;
        }
        let mut documentation = cargo();
        documentation.args(["test", "--quiet", "--workspace", "--doc"]);
        if let Some(filter) = filter {
            documentation.args(["--", filter]);
        }
        tally += count(&mut documentation, "documentation")?;
        Ok(tally)
    }

    /// Runs the eBPF programs' tests. They load programs, hence root.
    pub(super) fn datapath(&self, filter: Option<&str>) -> Result<Tally> {
        let mut tally = Tally::default();
        for test in self.0.iter().filter(|test| test.package == DATAPATH) {
            tally += test.run(as_root(&test.path), filter)?;
        }
        Ok(tally)
    }
}

impl Executable {
    fn run(&self, mut command: Command, filter: Option<&str>) -> Result<Tally> {
        say(format!("tests of {} ({})", self.package, self.target));
        command
            .args(filter)
            .current_dir(&self.directory)
            .env("CARGO_MANIFEST_DIR", &self.directory);
        count(&mut command, &self.target)
    }
}

/// Compiles the end-to-end tests and returns the executable.
pub(super) fn end_to_end_executable() -> Result<PathBuf> {
    compile(&["--package", END_TO_END, "--test", "gate"])?
        .into_iter()
        .find(|test| test.target == "gate")
        .map(|test| test.path)
        .context("the end-to-end tests produced no executable")
}

fn compile(selection: &[&str]) -> Result<Vec<Executable>> {
    let mut command = cargo();
    command
        .args([
            "test",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ])
        .args(selection)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot run cargo")?;
    let stdout = child.stdout.take().context("cargo's output is piped")?;
    let mut tests = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let message: Message =
            serde_json::from_str(&line?).context("cargo printed an unknown message")?;
        if let (Some(manifest), Some(target), Some(path)) =
            (message.manifest_path, message.target, message.executable)
            && is_test(&path)
        {
            let directory = manifest.parent().unwrap_or(Path::new("/")).to_owned();
            tests.push(Executable {
                package: package_name(&manifest)?,
                target: format!("{} {}", target.kind.join("+"), target.name)
                    .replace("test gate", "gate"),
                directory,
                path,
            });
        }
    }
    if !child.wait()?.success() {
        bail!("the tests do not compile");
    }
    Ok(tests)
}

/// Test executables live in deps/ under a hashed name; binaries that integration tests use are reported as well.
fn is_test(path: &Path) -> bool {
    path.parent()
        .and_then(Path::file_name)
        .is_some_and(|dir| dir == "deps")
}

fn package_name(manifest: &Path) -> Result<String> {
    let text = std::fs::read_to_string(manifest)?;
    text.lines()
        .find_map(|line| line.strip_prefix("name = "))
        .map(|name| name.trim().trim_matches('"').to_owned())
        .with_context(|| format!("{} names no package", manifest.display()))
}

/// Runs a libtest executable, shows its output and counts its results. One that ends without a result, or badly
/// without a failed test, counts as a failure.
fn count(command: &mut Command, name: &str) -> Result<Tally> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run the tests of {name}"))?;
    let stdout = child.stdout.take().context("the tests' output is piped")?;
    let mut tally = Tally::default();
    let mut results = 0;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        if let Some(result) = Tally::from_result_line(&line) {
            tally += result;
            results += 1;
        }
    }
    let ok = child.wait()?.success();
    if tally.failed == 0 && (!ok || results == 0) {
        say(format!("{name} ended without a result"));
        tally.failed += 1;
    }
    Ok(tally)
}
