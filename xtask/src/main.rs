//! Portcullis' own tooling: `cargo xtask <command>`.
//!
//! Every command first makes sure of the tools that it needs, so a fresh machine needs no preparation.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod demo;
mod kernels;
mod lint;
mod paths;
mod process;
mod setup;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and testing need: Debian packages, eBPF toolchain, virtme-ng, test kernels.
    ///
    /// Looks first, installs only what is missing, and may be run again at any time. The other commands
    /// call the part of it that they need.
    Setup,
    /// Build the eBPF object (target/bpf/portcullis.o) and the `portcullis` binary.
    Build(build::Args),
    /// Run a command, or the end-to-end tests, inside a chosen kernel.
    Vm(vm::Args),
    /// Show the whole story on real kernel WireGuard: handshake, login, traffic, revocation, deadline.
    Demo(demo::Args),
    /// Run lints and all tests; ends with the line `N passed, N failed`.
    Test(test::Args),
    /// Formatting, clippy and, on request, the licences and advisories of dependencies.
    Lint(lint::Args),
    /// Measure a suite beside its baselines and write target/bench/SUITE.json.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::everything().map(|()| ExitCode::SUCCESS),
        Command::Build(args) => build::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Vm(args) => vm::command(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
