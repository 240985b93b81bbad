//! The command that sets and clears the record of a dns-01 challenge.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::acme::AcmeError;

/// Including the time until the record is served. With what the CA is given, less than an order is.
const SET_WITHIN: Duration = Duration::from_secs(180);
const CLEAR_WITHIN: Duration = Duration::from_secs(30);
/// Of what a failing command says.
const LONGEST: usize = 256;

/// Runs it, without a shell, and waits for its success.
pub(super) async fn run(
    command: &[String],
    verb: &'static str,
    record: &str,
    value: &str,
) -> Result<(), AcmeError> {
    let failed = |reason: String| AcmeError::Command { verb, reason };
    let (program, first) = command
        .split_first()
        .ok_or_else(|| failed("there is none".into()))?;
    let running = Command::new(program)
        .args(first)
        .args([verb, record, value])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let within = if verb == "set" {
        SET_WITHIN
    } else {
        CLEAR_WITHIN
    };
    let output = tokio::time::timeout(within, running)
        .await
        .map_err(|_| failed(format!("it took longer than {} s", within.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    crate::text::tidy(&mut said, LONGEST);
    Err(failed(format!("{}: {said}", output.status)))
}
