//! Formatting and lints.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::process::{cargo, has, run as must, say, succeeds};
use crate::test::Tally;
use crate::{build, setup};

const CARGO_DENY_VERSION: &str = "0.20.2";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also check licences, advisories and sources of dependencies with cargo-deny (built when missing: minutes).
    #[arg(long)]
    deny: bool,
}

/// `cargo xtask lint`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    build::bpf()?;
    let mut tally = all()?;
    if args.deny {
        tally.check(deny()?);
    }
    say(format!(
        "lint: {} passed, {} failed",
        tally.passed, tally.failed
    ));
    Ok(tally.exit_code())
}

/// The checks that are part of `cargo xtask test`. Each counts as one test.
pub(crate) fn all() -> Result<Tally> {
    let mut tally = Tally::default();
    tally.check(succeeds(cargo().args(["fmt", "--all", "--check"]))?);
    tally.check(succeeds(cargo().args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?);
    // The kernel side is different code on its own target; the toolchain that compiles it must bring clippy.
    let toolchain = setup::for_build()?;
    if toolchain.has_clippy() {
        tally.check(succeeds(
            toolchain
                .cargo()
                .args([
                    "clippy",
                    "--quiet",
                    "--release",
                    "-Z",
                    "build-std=core",
                    "--target",
                    "bpfel-unknown-none",
                ])
                .args(["--package", "gateway-ebpf", "--target-dir"])
                .arg(crate::paths::target().join("bpf-build"))
                .args(["--", "-D", "warnings"]),
        )?);
    } else {
        say(format!(
            "{toolchain} has no clippy: the kernel side is linted by the host's view only"
        ));
    }
    Ok(tally)
}

fn deny() -> Result<bool> {
    if !has("cargo-deny") {
        must(cargo().args([
            "install",
            "cargo-deny",
            "--locked",
            "--version",
            CARGO_DENY_VERSION,
        ]))
        .context("cannot build cargo-deny")?;
    }
    succeeds(
        Command::new("cargo-deny")
            .arg("check")
            .current_dir(crate::paths::root()),
    )
}
