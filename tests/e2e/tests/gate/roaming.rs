//! A client that changes networks: its session goes on, or ends where the location wants that.

use anyhow::{Context as _, Result, ensure};
use e2e_tests::{eventually, with_gate_prepared};

use crate::SOON;
use crate::connect::{Client, first_use, last_event, vault, with_public};

/// Gives the client's machine another address.
fn move_to(client: &Client<'_>, from: u8, to: u8) -> Result<()> {
    client.machine().ip(&format!(
        "address del 192.0.2.{from}/24 dev wan0\naddress add 192.0.2.{to}/24 dev wan0\n"
    ))
}

#[test]
fn a_session_ends_with_a_move_where_roaming_is_forbidden() -> Result<()> {
    with_gate_prepared(vault(), with_public, |gate, ()| {
        let client = first_use(gate)?;
        let heard_from = |address: &str| {
            eventually("control hears from where", SOON, || {
                let devices = gate.ask(&["device", "list"])?;
                let endpoint = devices["devices"][0]["endpoint"].as_str();
                Ok(endpoint.is_some_and(|endpoint| endpoint.starts_with(address)))
            })
        };

        let running = client.connect()?;
        heard_from("192.0.2.11:")?;
        move_to(&client, 11, 77)?;
        eventually("it goes on elsewhere", SOON, || client.pings())?;
        heard_from("192.0.2.77:")?;
        let ended = running.interrupt()?;
        ensure!(ended.code == 0, "{ended:?}");

        gate.ask(&["location", "set", "office", "--roaming", "false"])?;
        move_to(&client, 77, 78)?;
        let running = client.connect()?;
        heard_from("192.0.2.78:")?;
        ensure!(client.pings()?, "where it began");
        move_to(&client, 78, 11)?;
        // It has to be heard from there.
        let ended = eventually("nothing passes", SOON, || Ok(!client.pings()?));
        let sessions = gate.ask(&["session", "list", "--all"])?;
        ended.with_context(|| sessions.to_string())?;
        let told = running.finish()?;
        ensure!(told.code == 7, "{told:?}");
        ensure!(last_event(&told.stdout)?["state"] == "moved", "{told:?}");
        Ok(())
    })
}
