//! The command that sets and clears the record of a dns-01 challenge.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
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
    let running = until_ended(program, first, [verb, record, value]);
    let within = if verb == "set" {
        SET_WITHIN
    } else {
        CLEAR_WITHIN
    };
    let (status, said) = tokio::time::timeout(within, running)
        .await
        .map_err(|_| failed(format!("it took longer than {} s", within.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::from_utf8_lossy(&said).trim().to_owned();
    crate::text::tidy(&mut said, LONGEST);
    Err(failed(format!("{status}: {said}")))
}

/// How it ended, and the beginning of what it said on stderr: of the rest nothing is kept.
async fn until_ended(
    program: &str,
    first: &[String],
    last: [&str; 3],
) -> io::Result<(ExitStatus, Vec<u8>)> {
    let mut child = Command::new(program)
        .args(first)
        .args(last)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut said = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        let most = u64::try_from(4 * LONGEST).unwrap_or(u64::MAX);
        (&mut stderr).take(most).read_to_end(&mut said).await?;
        tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
    }
    Ok((child.wait().await?, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn reason(script: &str) -> String {
        let command = ["sh", "-c", script].map(str::to_owned);
        let failed = run(&command, "set", "_acme-challenge.a.example", "value").await;
        failed.unwrap_err().to_string()
    }

    /// It becomes part of an audit record, and administrators read it in a terminal.
    #[tokio::test]
    async fn of_what_a_failing_command_says_little_is_kept_and_nothing_hidden() {
        let said = reason("printf 'no \\033[2Jtoken\\n\\200' >&2; exit 3").await;
        assert!(
            said.ends_with("exit status: 3: no [2Jtoken\u{fffd}"),
            "{said:?}"
        );
        let said = reason("head -c 10000000 /dev/zero | tr '\\0' x >&2; exit 3").await;
        assert!(said.ends_with(&"x".repeat(LONGEST)), "{said:?}");
        assert!(said.len() < 2 * LONGEST, "{said:?}");
        let (_, kept) = until_ended("sh", &[], ["-c", "head -c 10000000 /dev/zero >&2", "sh"])
            .await
            .unwrap();
        assert_eq!(kept.len(), 4 * LONGEST);
    }
}
