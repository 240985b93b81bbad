//! Devices that are there for some time only.

use anyhow::{Result, ensure};
use e2e_tests::flows::{Echo, Probe};
use e2e_tests::{Options, SERVER_V4, eventually, with_gate};

use crate::{INTERVAL, SILENCE, SOON, echo_v4};

#[test]
fn inv4_a_temporary_device_leaves_the_kernel_when_its_time_is_over() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let _echo = Echo::start(&gate.world.server, 7)?;
        let user = gate.add_user("alice")?;
        let peer = gate.add_peer_with(0, &user, &["--for", "60s"], None)?;
        peer.login(&user)?;
        let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
        eventually("it flows", SOON, || Ok(probe.answered() > 10))?;
        ensure!(gate.wg(&["peers"])?.contains(&peer.public_key));
        eventually("the peer is gone", 4 * SOON, || {
            Ok(!gate.wg(&["peers"])?.contains(&peer.public_key))
        })?;
        // What was already on its way back through the client's own stack arrives within this moment.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let answered = probe.answered();
        std::thread::sleep(SILENCE);
        ensure!(probe.answered() == answered, "it still flows");
        probe.finish()?;
        // The configuration is good for nothing any more, wherever it has gone.
        peer.reconnect()?;
        ensure!(!peer.reaches_portal()? && !peer.pings(SERVER_V4)?);
        let devices = gate.ask(&["device", "list"])?;
        ensure!(!devices.to_string().contains(&peer.public_key), "{devices}");
        Ok(())
    })
}
