//! Two machines with the same key, and the password and codes of its owner, at the same moment.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e_tests::flows::ping;
use e2e_tests::{SERVER_V4, eventually, run, with_gate_prepared};

use crate::SOON;
use crate::connect::{first_use, vault, with_public};

/// The loser asks what became of its session every 12 seconds.
const DECIDED: Duration = Duration::from_secs(60);

#[test]
fn inv1_of_two_logins_of_one_device_at_once_one_session_works() -> Result<()> {
    with_gate_prepared(vault(), with_public, |gate, ()| {
        let client = first_use(gate)?;
        let copied = ["-a", "client", "copy"];
        run(
            Command::new("cp").args(copied).current_dir(gate.scratch()),
            "",
        )?;

        // Each has a code of its own: a code is good once. Where the later one is spent first, the earlier is refused.
        let codes = [client.user.authenticator(), client.user.authenticator()];
        let mut racers = [
            client.start(&codes[0])?,
            client.start_copy("copy", &codes[1])?,
        ];
        let mut loser = 0;
        eventually("one of them has lost", DECIDED, || {
            for (number, racer) in racers.iter_mut().enumerate() {
                if racer.has_ended()? {
                    loser = number;
                    return Ok(true);
                }
            }
            Ok(false)
        })?;
        let winner = 1 - loser;
        eventually("the other one works", SOON, || {
            ping(&gate.world.peers[winner], SERVER_V4)
        })?;
        ensure!(!ping(&gate.world.peers[loser], SERVER_V4)?, "both work");
        let sessions = gate.ask(&["session", "list"])?;
        let live = sessions["sessions"].as_array().map_or(0, Vec::len);
        ensure!(live == 1, "{sessions}");

        let mut ends = racers.into_iter();
        let (first, second) = (ends.next(), ends.next());
        let (lost, won) = if loser == 0 {
            (first, second)
        } else {
            (second, first)
        };
        let (Some(lost), Some(won)) = (lost, won) else {
            unreachable!("there are two");
        };
        let lost = lost.finish()?;
        // Refused, or replaced by the other.
        ensure!([4, 7].contains(&lost.code), "{lost:?}");
        ensure!(ping(&gate.world.peers[winner], SERVER_V4)?);
        let won = won.interrupt()?;
        ensure!(won.code == 0, "{won:?}");
        Ok(())
    })
}
