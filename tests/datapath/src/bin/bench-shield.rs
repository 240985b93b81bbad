//! Measures the shield.

use datapath_tests::bench_shield::BenchShield;

fn main() -> anyhow::Result<()> {
    eprintln!("filling the index table");
    BenchShield::load()?.figures()
}
