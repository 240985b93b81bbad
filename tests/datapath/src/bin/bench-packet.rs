//! Measures the datapath.

use datapath_tests::bench::Bench;

fn main() -> anyhow::Result<()> {
    eprintln!("loading a million sessions");
    let mut bench = Bench::load(262_144)?;
    bench.loaded().print()?;
    bench.packets()
}
