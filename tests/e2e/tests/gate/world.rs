//! The test bed itself: what a test reports as dropped must not be a missing wire.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e_tests::flows::{Echo, Flood, Probe, Sink, connects, ping};
use e2e_tests::{SERVER_V4, SERVER_V6, World, eventually};

use crate::{INTERVAL, SOON};

#[test]
fn the_world_is_wired() -> Result<()> {
    let world = World::new()?;
    let outer: IpAddr = "192.0.2.1".parse()?;
    for peer in &world.peers {
        ensure!(
            ping(peer, outer)?,
            "a peer reaches the gateway's outer address"
        );
        ensure!(!ping(peer, SERVER_V4)?, "but not what is behind it");
    }
    ensure!(
        ping(&world.gateway, SERVER_V4)? && ping(&world.gateway, SERVER_V6)?,
        "the gateway reaches the server"
    );

    let _echo = Echo::start(&world.gateway, 7)?;
    let echo: SocketAddr = (outer, 7).into();
    ensure!(connects(&world.peers[0], echo)?, "TCP connects");
    ensure!(
        !connects(&world.peers[0], (outer, 8).into())?,
        "and not where nobody listens"
    );
    let probe = Probe::start(&world.peers[0], echo, INTERVAL)?;
    eventually("datagrams come back", SOON, || Ok(probe.answered() > 20))?;
    let report = probe.finish()?;
    ensure!(
        report.lost() == 0,
        "of {} datagrams {} were lost",
        report.sent,
        report.lost()
    );

    let sink = Sink::start(&world.gateway, 9, "192.0.2.12".parse()?)?;
    let flood = Flood::start(&world.peers[1], (outer, 9).into(), Duration::from_millis(5))?;
    eventually("the sink counts", SOON, || Ok(sink.arrived() > 10))?;
    drop(flood);
    Ok(())
}
