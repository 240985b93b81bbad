//! The last factor elsewhere: on a phone.

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

/// Shows what the phone needs, and waits for its answer, or for a signal where they are listened for.
pub(super) async fn ask_phone(
    portal: &PortalClient,
    attempt: &Attempt,
    mut signals: Option<&mut Signals>,
    output: Output,
) -> Result<Granted> {
    let asked = portal.ask_phone(attempt)?;
    show(&asked, output)?;
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

fn show(asked: &PhoneAsked, output: Output) -> Result<()> {
    let PhoneAsked {
        url,
        number,
        expires_in_s,
    } = asked;
    let image = qr::render(url)?;
    output.lines(
        || {
            json!({
                "event": "approval",
                "url": url,
                "number": number,
                "expires_in_s": expires_in_s,
            })
        },
        || {
            format!(
                "{image}\n{url}\n\nScan it with your phone, and type this number there: {number}\nYou have {expires_in_s} seconds.\n"
            )
        },
    )?;
    Ok(())
}
