//! `cargo xtask test`: lints, unit tests, datapath tests on this kernel, end-to-end tests in VMs.

mod end_to_end;
mod native;
mod tally;

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use crate::kernels::Series;
use crate::process::say;
use crate::{build, lint, setup};

pub(crate) use end_to_end::end_to_end_in;
pub(crate) use tally::Tally;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this part.
    #[arg(long)]
    only: Option<Part>,
    /// Only this kernel in the end-to-end part.
    #[arg(long)]
    kernel: Option<Series>,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Formatting and clippy.
    Lint,
    /// Tests of each crate.
    Unit,
    /// The eBPF programs on this machine's own kernel, by program test-run.
    Datapath,
    /// Real kernel WireGuard in VMs.
    E2e,
}

/// The result of one part, as a row of the final table.
struct Row {
    name: String,
    outcome: Result<Tally>,
}

/// `cargo xtask test`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let wanted = |part| args.only.is_none_or(|only| only == part);
    let filter = args.filter.as_deref();
    setup::for_tests()?;
    build::bpf()?;

    let mut rows = Vec::new();
    if wanted(Part::Lint) && filter.is_none() {
        rows.push(Row {
            name: "lint".to_owned(),
            outcome: lint::all(),
        });
    }
    if wanted(Part::Unit) || wanted(Part::Datapath) {
        match native::Executables::build() {
            Ok(tests) => {
                if wanted(Part::Unit) {
                    rows.push(Row {
                        name: "unit".to_owned(),
                        outcome: tests.unit(filter),
                    });
                }
                if wanted(Part::Datapath) {
                    rows.push(Row {
                        name: "datapath".to_owned(),
                        outcome: tests.datapath(filter),
                    });
                }
            }
            Err(error) => rows.push(Row {
                name: "build of the tests".to_owned(),
                outcome: Err(error),
            }),
        }
    }
    if wanted(Part::E2e) {
        let kernels: Vec<Series> = args
            .kernel
            .map_or_else(|| Series::ALL.to_vec(), |one| vec![one]);
        rows.extend(
            end_to_end::run(&kernels, filter)
                .into_iter()
                .map(|(series, outcome)| Row {
                    name: format!("e2e on {series}"),
                    outcome,
                }),
        );
    }
    Ok(report(&rows, filter.is_some()))
}

/// Prints the table and the final line. A part that could not run counts as one failure, and so does one that ran no
/// test, unless a filter explains it.
fn report(rows: &[Row], filtered: bool) -> ExitCode {
    let mut total = Tally::default();
    println!("\n{:<22} {:>7} {:>7}", "part", "passed", "failed");
    for row in rows {
        let tally = match &row.outcome {
            Ok(tally) if tally.is_empty() && !filtered => {
                say(format!("{}: no test was executed", row.name));
                Tally {
                    passed: 0,
                    failed: 1,
                }
            }
            Ok(tally) => *tally,
            Err(error) => {
                say(format!("{}: {error:#}", row.name));
                Tally {
                    passed: 0,
                    failed: 1,
                }
            }
        };
        println!("{:<22} {:>7} {:>7}", row.name, tally.passed, tally.failed);
        total += tally;
    }
    if total.is_empty() {
        say("no test was executed");
        total.failed = 1;
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    total.exit_code()
}
