//! Measures the switch of a policy of 10 000 rules and 100 000 prefixes under a flood of packets.

use std::time::Duration;

use datapath_tests::{
    figure::{Figure, median},
    switch::{Arena, Flooded, Size},
};
use gateway_common::abi::Direction::{FromPeer, ToPeer};

/// Switches in each of the two arrangements of the flood.
const SWITCHES: usize = 10;

fn main() -> anyhow::Result<()> {
    eprintln!("compiling two policies of 10 000 rules and 100 000 prefixes");
    let mut arena = Arena::new(Size::LARGEST)?;
    let quiet = (0..SWITCHES)
        .map(|_| arena.switch())
        .collect::<Result<Vec<_>, _>>()?;
    let mut all = Flooded::default();
    for always in [FromPeer, ToPeer] {
        let flooded = arena.flood(SWITCHES, always)?;
        all.switches.extend(flooded.switches);
        all.packets += flooded.packets;
        all.misjudged += flooded.misjudged;
    }
    eprintln!(
        "{} packets during {} switches, {} misjudged",
        all.packets,
        all.switches.len(),
        all.misjudged
    );
    let idle = milliseconds(median(quiet));
    let longest = all.switches.iter().max().copied().unwrap_or_default();
    let bytes = arena.gate().datapath.policy_bytes()?;
    // The same without a flood is what it is compared with.
    Figure::new("switch/ms", "ms", milliseconds(median(all.switches)))
        .beside(idle)
        .print()?;
    Figure::new("switch/longest_ms", "ms", milliseconds(longest)).print()?;
    Figure::new("switch/misjudged", "packets", all.misjudged as f64).print()?;
    Figure::new("switch/packets", "packets", all.packets as f64).print()?;
    Figure::new("switch/policy_bytes", "bytes", bytes as f64).print()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
