//! The last factor elsewhere: on a phone, or in this machine's browser.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail};
use portcullis_client::portal::Attempt;
use portcullis_client::{Granted, PhoneAsked, PortalClient, PortalError};
use serde_json::json;

use super::watch::Signals;
use crate::output::Output;
use crate::qr;

/// The public listener gives a network 60 requests, and then one every two seconds.
const POLL: Duration = Duration::from_secs(2);

/// What approves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Approver {
    Phone,
    Browser,
}

impl Approver {
    /// Shows what it needs, and waits for its answer, or for a signal where they are listened for.
    pub(super) async fn ask(
        self,
        portal: &PortalClient,
        attempt: &Attempt,
        mut signals: Option<&mut Signals>,
        output: Output,
    ) -> Result<Granted> {
        let asked = portal.ask_phone(attempt)?;
        self.show(&asked, output)?;
        loop {
            let pause = tokio::time::sleep(POLL);
            match &mut signals {
                None => pause.await,
                Some(signals) => tokio::select! {
                    () = pause => (),
                    () = signals.any() => bail!("interrupted before it was approved: nothing is connected"),
                },
            }
            match portal.connect_by_phone(attempt) {
                Ok(None) => {}
                Ok(Some(granted)) => return Ok(granted),
                // One answer that did not arrive is asked for again; the minute ends it.
                Err(PortalError::Request(error)) => tracing::debug!(%error, "asked again"),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn show(self, asked: &PhoneAsked, output: Output) -> Result<()> {
        let PhoneAsked {
            url,
            number,
            expires_in_s,
        } = asked;
        let opened = matches!(self, Self::Browser) && open(url);
        let image = match self {
            Self::Phone => qr::render(url)?,
            Self::Browser => String::new(),
        };
        output.lines(
            || {
                json!({
                    "event": "approval",
                    "url": url,
                    "number": number,
                    "expires_in_s": expires_in_s,
                })
            },
            || match (self, opened) {
                (Self::Phone, _) => format!(
                    "{image}\n{url}\n\nScan it with your phone, and type this number there: {number}\nYou have {expires_in_s} seconds.\n"
                ),
                (Self::Browser, true) => format!(
                    "Type this number in the browser: {number}\nYou have {expires_in_s} seconds.\n"
                ),
                (Self::Browser, false) => format!(
                    "Open this in a browser that has your passkey:\n\n  {url}\n\nAnd type this number there: {number}\nYou have {expires_in_s} seconds.\n"
                ),
            },
        )?;
        Ok(())
    }
}

/// In the desktop's browser. False where there is none.
pub(super) fn open(url: &str) -> bool {
    let opener = Command::new("xdg-open")
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    opener.is_ok_and(|status| status.success())
}
