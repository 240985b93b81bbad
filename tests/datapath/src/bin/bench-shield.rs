//! Measures the shield: progress on standard error, one JSON document for each figure on standard output.

use datapath_tests::{bench::Figure, bench_shield::BenchShield};
use serde_json::json;

fn main() -> anyhow::Result<()> {
    eprintln!("filling the index table");
    for figure in BenchShield::load()?.figures(tell)? {
        let Figure {
            name,
            unit,
            value,
            baseline,
        } = figure;
        println!(
            "{}",
            json!({"name": name, "unit": unit, "value": value, "baseline": baseline})
        );
    }
    Ok(())
}

fn tell(figure: &Figure) {
    match figure.baseline {
        Some(baseline) => eprintln!(
            "{:<36} {:>6.0} {} over an empty program ({:.0} - {baseline:.0})",
            figure.name,
            figure.value - baseline,
            figure.unit,
            figure.value,
        ),
        None => eprintln!("{:<36} {:>6.3} {}", figure.name, figure.value, figure.unit),
    }
}
