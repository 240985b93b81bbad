//! What is measured many times over.

use std::time::Duration;

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
