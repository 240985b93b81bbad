//! One line of JSON for each figure, as `cargo xtask bench` reads them.

use std::time::Duration;

use serde::Serialize;

/// A measured figure.
#[derive(Debug, Serialize)]
pub struct Figure<'a> {
    pub name: &'a str,
    pub unit: &'a str,
    pub value: f64,
    /// What the value is compared with, measured in the same run.
    pub baseline: Option<f64>,
}

impl Figure<'_> {
    /// Hands the figure over on standard output.
    pub fn print(&self) -> anyhow::Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// The value that `percent` of the samples do not exceed, in milliseconds (nearest rank).
pub fn percentile(samples: &mut [Duration], percent: usize) -> f64 {
    samples.sort_unstable();
    let rank = (samples.len() * percent).div_ceil(100).max(1);
    samples
        .get(rank - 1)
        .map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_is_the_nearest_rank() {
        let mut samples: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&mut samples, 50), 100.0);
        assert_eq!(percentile(&mut samples, 99), 198.0);
        assert_eq!(percentile(&mut samples[..1], 99), 1.0);
    }
}
