//! The end-to-end tests, each kernel in a VM of its own.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::{Tally, native};
use crate::kernels::Series;
use crate::process::say;
use crate::vm::Machine;
use crate::{build, kernels, setup};

/// Emulated processors are slow and two machines may share one real one.
const TIME_LIMIT: Duration = Duration::from_secs(20 * 60);
/// Machines at a time.
const PARALLEL: usize = 2;

/// What is copied into the machines.
struct Programs {
    portcullis: PathBuf,
    tests: PathBuf,
}

/// Runs the tests on each of `kernels`, at most two machines at a time.
pub(super) fn run(kernels: &[Series], filter: Option<&str>) -> Vec<(Series, Result<Tally>)> {
    let programs = match prepare(kernels) {
        Ok(programs) => programs,
        Err(error) => {
            let message = format!("{error:#}");
            return kernels
                .iter()
                .map(|&series| (series, Err(anyhow::anyhow!(message.clone()))))
                .collect();
        }
    };
    let waiting = Mutex::new(kernels.iter().copied());
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..PARALLEL.min(kernels.len()) {
            scope.spawn(|| {
                while let Some(series) = next(&waiting) {
                    let result = on_kernel(series, &programs, filter);
                    if let Ok(mut results) = results.lock() {
                        results.push((series, result));
                    }
                }
            });
        }
    });
    results.into_inner().unwrap_or_default()
}

/// `cargo xtask vm --e2e`.
pub(crate) fn end_to_end_in(series: Series, filter: Option<&str>) -> Result<ExitCode> {
    build::bpf()?;
    let programs = prepare(&[series])?;
    let tally = on_kernel(series, &programs, filter)?;
    say(format!(
        "{series}: {} passed, {} failed",
        tally.passed, tally.failed
    ));
    Ok(tally.exit_code())
}

/// Does once, before machines run side by side, what they would otherwise do at the same time.
fn prepare(kernels: &[Series]) -> Result<Programs> {
    setup::for_vm()?;
    for &series in kernels {
        kernels::ensure(series)?;
    }
    let portcullis = build::binaries()?.portcullis;
    Ok(Programs {
        portcullis,
        tests: native::end_to_end_executable()?,
    })
}

fn next(waiting: &Mutex<impl Iterator<Item = Series>>) -> Option<Series> {
    waiting.lock().ok()?.next()
}

fn on_kernel(series: Series, programs: &Programs, filter: Option<&str>) -> Result<Tally> {
    let machine = Machine::new(series)?
        .with_program("PORTCULLIS_BIN", &programs.portcullis)?
        .with_program("E2E_BIN", &programs.tests)?
        .with_time_limit(TIME_LIMIT);
    // The tests own the whole machine, one at a time.
    let mut command: Vec<String> = [
        "sh",
        "-c",
        "exec \"$E2E_BIN\" --test-threads=1 \"$@\"",
        "gate",
    ]
    .map(str::to_owned)
    .into();
    command.extend(filter.map(str::to_owned));

    let mut tally = Tally::default();
    let mut results = 0;
    let code = machine.run(&command, &mut |line| {
        println!("[{series}] {line}");
        if let Some(result) = Tally::from_result_line(line) {
            tally += result;
            results += 1;
        }
    })?;
    if tally.failed == 0 && (code != 0 || results == 0) {
        say(format!(
            "{series}: the tests ended with code {code} and no failure reported"
        ));
        tally.failed += 1;
    }
    Ok(tally)
}
