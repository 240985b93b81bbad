//! Measures a suite. The measuring programs print one JSON line per figure on standard output and their progress on
//! standard error; this side runs them, draws the table and writes target/bench/SUITE.json.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::kernels::Series;
use crate::process::{as_root, cargo, run as must, say};
use crate::vm::Machine;
use crate::{build, paths, setup};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure.
    suite: Suite,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Suite {
    /// The packet path, loading and adopting, and revocation.
    Gate,
    /// The packet path with policies, in detail.
    Datapath,
    /// Logins at session-key locations, and peers that come and go.
    Connect,
}

/// A measuring program: a binary of a workspace package.
struct Program {
    package: &'static str,
    binary: &'static str,
    /// In virtual machines with these kernels; none for this machine's own.
    kernels: &'static [Series],
}

impl Program {
    const fn here(package: &'static str, binary: &'static str) -> Self {
        Self {
            package,
            binary,
            kernels: &[],
        }
    }
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Datapath => "datapath",
            Self::Connect => "connect",
        }
    }

    fn programs(self) -> &'static [Program] {
        match self {
            Self::Gate => {
                const {
                    &[
                        Program::here("datapath-tests", "bench-packet"),
                        Program::here("gate-bench", "bench-adopt"),
                        Program::here("gate-bench", "bench-revoke"),
                    ]
                }
            }
            Self::Connect => {
                const {
                    &[
                        Program::here("gate-bench", "bench-connect"),
                        Program {
                            package: "gate-bench",
                            binary: "bench-wireguard",
                            kernels: &[Series::V6_12],
                        },
                    ]
                }
            }
            Self::Datapath => {
                const {
                    &[
                        Program::here("gate-bench", "bench-datapath"),
                        Program::here("gate-bench", "bench-forward"),
                        Program::here("datapath-tests", "bench-shield"),
                        Program::here("datapath-tests", "bench-switch"),
                        Program::here("datapath-tests", "bench-insns"),
                        Program {
                            package: "datapath-tests",
                            binary: "bench-insns",
                            kernels: &[Series::V6_1, Series::V6_12, Series::V7_2],
                        },
                        Program {
                            package: "gate-bench",
                            binary: "bench-wireguard",
                            kernels: &[Series::V6_12],
                        },
                    ]
                }
            }
        }
    }
}

/// One figure.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Figure {
    name: String,
    unit: String,
    value: f64,
    /// What the value is compared with, measured in the same run; null where there is nothing to compare.
    baseline: Option<f64>,
}

/// `cargo xtask bench SUITE`.
pub(crate) fn run(args: &Args) -> Result<()> {
    build::bpf()?;
    setup::for_tests()?;
    let mut figures = Vec::new();
    // In one go: cargo would compile the dependencies again for another selection of packages.
    let mut build = cargo();
    build.args(["build", "--release"]);
    for program in args.suite.programs() {
        build.args(["--package", program.package, "--bin", program.binary]);
    }
    must(&mut build)?;
    for program in args.suite.programs() {
        say(format!("{} of {}", program.binary, program.package));
        measure(program, &mut figures)?;
    }
    if figures.is_empty() {
        bail!("suite {} measured nothing", args.suite.name());
    }
    let dir = paths::target().join("bench");
    fs::create_dir_all(&dir)?;
    let file = dir.join(format!("{}.json", args.suite.name()));
    fs::write(&file, serde_json::to_string_pretty(&figures)? + "\n")
        .with_context(|| format!("cannot write {}", file.display()))?;
    print_table(&figures);
    say(format!("written to {}", file.display()));
    Ok(())
}

fn measure(program: &Program, figures: &mut Vec<Figure>) -> Result<()> {
    let path = paths::target().join("release").join(program.binary);
    for kernel in program.kernels {
        measure_in(*kernel, &path, figures)?;
    }
    if !program.kernels.is_empty() {
        return Ok(());
    }
    let mut command: Command = as_root(&path);
    let mut child = command
        .current_dir(paths::root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", path.display()))?;
    let stdout = child
        .stdout
        .take()
        .context("the measuring program's output is piped")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        let figure: Figure = serde_json::from_str(&line).with_context(|| {
            format!(
                "{} printed something that is no figure: {line}",
                program.binary
            )
        })?;
        figures.push(figure);
    }
    if !child.wait()?.success() {
        bail!("{} failed", program.binary);
    }
    Ok(())
}

/// In a virtual machine: what is printed there and is no figure is progress.
fn measure_in(kernel: Series, program: &Path, figures: &mut Vec<Figure>) -> Result<()> {
    let machine = Machine::new(kernel)?.with_program("PROGRAM", program)?;
    let command = ["sh", "-c", "exec \"$PROGRAM\" \"$0\"", &kernel.to_string()].map(str::to_owned);
    let code = machine.run(&command, &mut |line| match serde_json::from_str(line) {
        Ok(figure) => figures.push(figure),
        Err(_) => say(format!("[{kernel}] {line}")),
    })?;
    if code != 0 {
        bail!("{} failed on {kernel}", program.display());
    }
    Ok(())
}

fn print_table(figures: &[Figure]) {
    let width = figures
        .iter()
        .map(|figure| figure.name.len())
        .max()
        .unwrap_or(0);
    println!("{:width$}  {:>14}  {:>14}", "figure", "value", "baseline");
    for figure in figures {
        let baseline = figure
            .baseline
            .map_or_else(|| "-".to_owned(), |value| show(value, &figure.unit));
        println!(
            "{:width$}  {:>14}  {:>14}",
            figure.name,
            show(figure.value, &figure.unit),
            baseline
        );
    }
}

fn show(value: f64, unit: &str) -> String {
    format!("{value:.3} {unit}")
}
