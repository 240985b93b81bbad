//! `portcullis connect --renew`: the session that another process holds goes on, its flows too.

use anyhow::{Context as _, Result, bail};
use portcullis_client::{DeviceState, Granted};
use serde_json::json;

use super::tunnel::Tunnel;
use super::{ConnectArgs, tell_deadline};
use crate::exit::Exit;
use crate::output::Output;
use crate::run::capabilities;

impl ConnectArgs {
    pub(super) async fn renew(self, output: Output) -> Result<Exit> {
        let location = &self.location;
        let state = DeviceState::existing(&self.state)?;
        let not_connected = || {
            format!(
                "{} is not connected from {}: there is nothing to renew",
                location.0,
                self.state.display()
            )
        };
        if state.holder(&location.0)?.is_none() {
            bail!(not_connected());
        }
        let device = state.known_key(&location.0)?.with_context(not_connected)?;
        let record = state.recorded(&location.0)?.with_context(not_connected)?;
        // Before anything is asked for.
        capabilities::require_for_client()?;
        let tunnel = Tunnel::existing(&record.interface, &device).await?;
        let login = self.account.begin(location, &device, true, output)?;
        let renewal = match login.finish(None, output).await? {
            Granted::Renewed(renewal) => renewal,
            Granted::New(_) => {
                bail!("the server has opened another session in place of renewing this one")
            }
        };
        // The gateway has the key already: until this one has it too, the keys of the last handshake carry on.
        tunnel.set_preshared_key(&renewal).with_context(|| {
            format!(
                "the session was renewed, but {} did not take its key: connect anew within two minutes",
                tunnel.name()
            )
        })?;
        let session = &renewal.session;
        output.answer(
            || json!({ "event": "renewed", "interface": tunnel.name(), "session": session }),
            || {
                format!(
                    "Renewed: {} is connected {}.",
                    session.location,
                    tell_deadline(session)
                )
            },
        )?;
        Ok(Exit::Done)
    }
}
