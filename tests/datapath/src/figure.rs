//! Figures, as `cargo xtask bench` reads them.

use serde::Serialize;

/// A measured figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    name: String,
    unit: &'static str,
    value: f64,
    /// What the value is compared with, measured in the same run.
    baseline: Option<f64>,
}

impl Figure {
    /// One that there is nothing to compare with.
    pub fn new(name: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self {
            name: name.into(),
            unit,
            value,
            baseline: None,
        }
    }

    /// With what it is compared with.
    #[must_use]
    pub fn beside(self, baseline: f64) -> Self {
        Self {
            baseline: Some(baseline),
            ..self
        }
    }

    /// Nanoseconds of a packet over those that an empty program takes.
    pub fn over(name: &str, value: f64, empty: f64) -> Self {
        Self::new(name, "ns", value - empty).beside(empty)
    }

    /// Hands it over on standard output, one JSON document on a line; for people, on standard error.
    ///
    /// # Errors
    ///
    /// When the value is not a number.
    pub fn print(&self) -> anyhow::Result<()> {
        let Self {
            name, unit, value, ..
        } = self;
        match self.baseline {
            Some(baseline) => eprintln!("{name:<36} {value:>12.3} {unit}, beside {baseline:.3}"),
            None => eprintln!("{name:<36} {value:>12.3} {unit}"),
        }
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// The one in the middle; 0 of none.
pub fn median<T: Copy + Default + PartialOrd>(mut all: Vec<T>) -> T {
    all.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    all.get(all.len() / 2).copied().unwrap_or_default()
}
