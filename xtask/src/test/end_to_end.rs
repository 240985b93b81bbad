//! The end-to-end tests, in VMs on several kernels.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::{Tally, native};
use crate::kernels::Series;
use crate::process::say;
use crate::vm::Machine;
use crate::{build, kernels, setup};

/// Emulated processors are slow, and machines share the real ones.
const TIME_LIMIT: Duration = Duration::from_secs(40 * 60);
/// Machines at a time.
const PARALLEL: usize = 2;
/// Machines per kernel, one after another or side by side: an odd number of kernels leaves no processor idle.
const SHARDS: usize = 2;
/// More failures than this are no accident, and are not tried again.
const SECOND_TRIES: usize = 3;

/// Tests of what no kernel differs in, by the beginnings of their names: of several kernels, only the
/// middle one runs them.
const ANYWHERE: [&str; 21] = [
    "answers::who_may",
    "bad_input::",
    "captive::a_browser",
    "engines::the_kernel_takes_more_users",
    "explain::",
    "full_disk::",
    "full_tunnel::",
    "login::",
    "metrics::",
    "mfa_policy::",
    "partition::inv5",
    "policy::a_login_too_old",
    "policy::a_refused_policy",
    "policy::a_shadow",
    "revocation::inv4_disabling_or_removing",
    "revocation::inv4_logging_out",
    "roaming::",
    "seeing::",
    "sso::",
    "temporary::",
    "world::",
];

/// Tests that take minutes each, run only where a filter asks for them: `cargo xtask vm --e2e FILTER`.
const ON_REQUEST: [&str; 1] = ["captive::a_browser_signs_in"];

/// What is copied into the machines.
struct Programs {
    portcullis: PathBuf,
    tests: PathBuf,
}

/// Some of the tests on one kernel.
struct Shard {
    series: Series,
    tests: Vec<String>,
}

/// What a machine's tests came to.
#[derive(Default)]
struct Outcome {
    tally: Tally,
    failed: Vec<String>,
}

/// Runs the tests on each of `kernels`.
pub(super) fn run(kernels: &[Series], filter: Option<&str>) -> Vec<(Series, Result<Tally>)> {
    let results = prepare(kernels, filter).map(|(programs, shards)| {
        let mut results = run_shards(&programs, shards);
        again(&programs, &mut results);
        results
    });
    match results {
        Ok(results) => kernels
            .iter()
            .map(|&series| (series, sum(series, &results)))
            .collect(),
        Err(error) => {
            let message = format!("{error:#}");
            kernels
                .iter()
                .map(|&series| (series, Err(anyhow!(message.clone()))))
                .collect()
        }
    }
}

/// `cargo xtask vm --e2e`.
pub(crate) fn end_to_end_in(series: Series, filter: Option<&str>) -> Result<ExitCode> {
    build::bpf()?;
    let (programs, shards) = prepare(&[series], filter)?;
    let tally = sum(series, &run_shards(&programs, shards))?;
    say(format!(
        "{series}: {} passed, {} failed",
        tally.passed, tally.failed
    ));
    Ok(tally.exit_code())
}

/// Does once, before machines run side by side, what they would otherwise do at the same time; and deals the tests out.
fn prepare(kernels: &[Series], filter: Option<&str>) -> Result<(Programs, Vec<Shard>)> {
    setup::for_vm()?;
    for &series in kernels {
        kernels::ensure(series)?;
    }
    let programs = Programs {
        portcullis: build::binaries()?.portcullis,
        tests: native::end_to_end_executable()?,
    };
    let mut tests = native::list(&programs.tests, filter)?;
    if filter.is_none() {
        tests.retain(|test| !ON_REQUEST.iter().any(|name| test.starts_with(name)));
    }
    let mut shards = Vec::new();
    for (place, &series) in kernels.iter().enumerate() {
        let all = place == kernels.len() / 2;
        let tests = tests
            .iter()
            .filter(|test| all || !ANYWHERE.iter().any(|name| test.starts_with(name)));
        let tests: Vec<&String> = tests.collect();
        for number in 0..SHARDS {
            let dealt = tests.iter().skip(number).step_by(SHARDS);
            let tests: Vec<String> = dealt.map(|test| (*test).clone()).collect();
            if !tests.is_empty() {
                shards.push(Shard { series, tests });
            }
        }
    }
    Ok((programs, shards))
}

type Results = Vec<(Series, Result<Outcome>)>;

fn run_shards(programs: &Programs, shards: Vec<Shard>) -> Results {
    let waiting = Mutex::new(shards.into_iter());
    let next = || waiting.lock().ok()?.next();
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(shard) = next() {
                    let result = run_shard(&shard, programs);
                    if let Ok(mut results) = results.lock() {
                        results.push((shard.series, result));
                    }
                }
            });
        }
    });
    results.into_inner().unwrap_or_default()
}

/// Runs the few tests that failed once more, each alone in a machine with none beside it: emulated machines that share
/// their processors stand still for seconds now and then. What passes then is told, and counts as passed; what
/// fails twice has failed.
fn again(programs: &Programs, results: &mut Results) {
    let failed: usize = results
        .iter()
        .filter_map(|(_, result)| Some(result.as_ref().ok()?.failed.len()))
        .sum();
    if failed > SECOND_TRIES {
        return;
    }
    for (series, result) in results {
        let Ok(outcome) = result else { continue };
        for test in std::mem::take(&mut outcome.failed) {
            say(format!("{series}: {test} failed, once more alone"));
            let shard = Shard {
                series: *series,
                tests: vec![test],
            };
            let passes = run_shard(&shard, programs).is_ok_and(|second| second.tally.failed == 0);
            let [test] = shard.tests.as_slice() else {
                continue;
            };
            if passes {
                say(format!(
                    "{series}: UNSTABLE: {test} failed, and passed alone"
                ));
                outcome.tally.failed -= 1;
                outcome.tally.passed += 1;
            } else {
                say(format!("{series}: {test} failed twice"));
            }
        }
    }
}

fn run_shard(shard: &Shard, programs: &Programs) -> Result<Outcome> {
    let series = shard.series;
    let machine = Machine::new(series)?
        .with_program("PORTCULLIS_BIN", &programs.portcullis)?
        .with_program("E2E_BIN", &programs.tests)?
        .with_time_limit(TIME_LIMIT);
    // The tests own the whole machine, one at a time.
    let mut command: Vec<String> = [
        "sh",
        "-c",
        "exec \"$E2E_BIN\" --test-threads=1 --exact \"$@\"",
        "gate",
    ]
    .map(str::to_owned)
    .into();
    command.extend(shard.tests.iter().cloned());

    let mut outcome = Outcome::default();
    let mut results = 0;
    let code = machine.run(&command, &mut |line| {
        println!("[{series}] {line}");
        if let Some(result) = Tally::from_result_line(line) {
            outcome.tally += result;
            results += 1;
        }
        outcome
            .failed
            .extend(Tally::failed_test(line).map(str::to_owned));
    })?;
    if outcome.tally.failed == 0 && (code != 0 || results == 0) {
        say(format!(
            "{series}: the tests ended with code {code} and no failure reported"
        ));
        outcome.tally.failed += 1;
    }
    Ok(outcome)
}

/// What a kernel's machines found. One that could not run is one failure beside the others' results.
fn sum(series: Series, results: &[(Series, Result<Outcome>)]) -> Result<Tally> {
    let mut total = Tally::default();
    for (_, result) in results.iter().filter(|(of, _)| *of == series) {
        match result {
            Ok(outcome) => total += outcome.tally,
            Err(error) => {
                say(format!("{series}: {error:#}"));
                total.failed += 1;
            }
        }
    }
    Ok(total)
}
