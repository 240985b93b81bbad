//! A person with a password and an authenticator.

use std::cell::Cell;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::command::run;

/// RFC 6238's default time step.
const STEP: u64 = 30;

/// A user of the gateway, with what only the user knows.
#[derive(Debug)]
pub struct User {
    /// The account's name.
    pub name: String,
    /// The password.
    pub password: String,
    secret: String,
    last_step: Cell<u64>,
}

impl User {
    pub(crate) fn new(name: &str, password: &str, secret: &str) -> Self {
        Self {
            name: name.to_owned(),
            password: password.to_owned(),
            secret: secret.to_owned(),
            last_step: Cell::new(0),
        }
    }

    /// The command that prints a code of a step not used before. Codes count once, and the next step's is accepted
    /// already, so that two logins in a row need no waiting and the third does.
    pub fn authenticator(&self) -> String {
        let mut step = now() / STEP;
        if self.last_step.get() >= step {
            step = self.last_step.get() + 1;
            while now() / STEP + 1 < step {
                thread::sleep(Duration::from_millis(200));
            }
        }
        self.last_step.set(step);
        format!(
            "oathtool --totp --base32 --now @{} {}",
            step * STEP,
            self.secret
        )
    }

    /// A code of a step not used before.
    pub fn code(&self) -> Result<String> {
        let output = run(Command::new("sh").args(["-c", &self.authenticator()]), "")?;
        Ok(output.stdout.trim().to_owned())
    }

    /// Six digits that are none of the codes accepted around now.
    pub fn wrong_code(&self) -> Result<String> {
        let start = (now() / STEP).saturating_sub(3) * STEP;
        let accepted = run(
            Command::new("oathtool")
                .args(["--totp", "--base32", "--window=8"])
                .args(["--now", &format!("@{start}"), &self.secret]),
            "",
        )?;
        let wrong = (0..)
            .map(|n| format!("{n:06}"))
            .find(|code| !accepted.stdout.lines().any(|line| line == code));
        Ok(wrong.unwrap_or_default())
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
