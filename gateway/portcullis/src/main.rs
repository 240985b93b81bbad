//! The one binary: command line, configuration, wiring, nothing else.
#![forbid(unsafe_code)]

mod admin;
mod cli;
mod config;
mod exit;
mod input;
mod output;
mod protocol;
mod qr;
mod refused;
mod run;
mod time;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::Cli;
use crate::output::{Format, Output};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage_error(&error),
    };
    let output = Output::new(cli.output);
    match cli.run(&output) {
        Ok(exit) => exit.into(),
        Err(error) => {
            output.error(&error);
            exit::of_error(&error).into()
        }
    }
}

/// Help and version are no errors; the rest is reported the way the caller asked for, as far as
/// that can be told from arguments that do not parse.
fn usage_error(error: &clap::Error) -> ExitCode {
    let json = std::env::args_os()
        .zip(std::env::args_os().skip(1))
        .any(|(name, value)| name == "--output" && value == "json")
        || std::env::args_os().any(|argument| argument == "--output=json");
    if json && error.use_stderr() {
        let text = error.render().to_string();
        Output::new(Format::Json).error(&anyhow::anyhow!(
            "{}",
            text.trim_start_matches("error: ").trim()
        ));
    } else {
        // Nothing is left to tell when the terminal is gone.
        let _ = error.print();
    }
    if error.use_stderr() {
        exit::Exit::Usage.into()
    } else {
        exit::Exit::Done.into()
    }
}
