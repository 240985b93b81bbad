//! Measures the datapath: progress on standard error, one JSON document for each figure on standard
//! output.

use datapath_tests::bench::{Bench, Figure};
use serde_json::json;

fn main() -> anyhow::Result<()> {
    eprintln!("loading a million sessions");
    let mut bench = Bench::load(262_144)?;
    let loaded = bench.loaded();
    tell(&loaded);
    print(&loaded);
    for figure in bench.packets(tell)? {
        print(&figure);
    }
    Ok(())
}

fn tell(figure: &Figure) {
    match figure.baseline {
        Some(baseline) => eprintln!(
            "{:<36} {:>6.0} {} over the {baseline:.0} {} of an empty program",
            figure.name, figure.value, figure.unit, figure.unit,
        ),
        None => eprintln!("{:<36} {:>6.3} {}", figure.name, figure.value, figure.unit),
    }
}

fn print(figure: &Figure) {
    println!(
        "{}",
        json!({"name": figure.name, "unit": figure.unit, "value": figure.value, "baseline": figure.baseline})
    );
}
