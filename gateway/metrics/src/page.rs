//! One page of figures, made anew each time that it is asked for.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Names and values of a series' labels.
pub type Labels = Vec<(&'static str, String)>;

/// Every name begins with this.
const PREFIX: &str = "portcullis";

/// Figures on their way to Prometheus. Names are without prefix; those of counters without `_total`.
/// A series without labels is the only one of its name.
#[derive(Debug)]
pub struct Page(Registry);

impl Default for Page {
    fn default() -> Self {
        Self(Registry::with_prefix(PREFIX))
    }
}

impl Page {
    /// Media type of [`Page::text`].
    pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// Adds what only grows, as it stands.
    pub fn counter(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in series {
            if labels.is_empty() {
                let counter: Counter = Counter::default();
                counter.inc_by(value);
                return self.0.register(name, help, counter);
            }
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    /// Adds what goes up and down, as it stands.
    pub fn gauge(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in series {
            if labels.is_empty() {
                let gauge = Gauge::<f64, AtomicU64>::default();
                gauge.set(value);
                return self.0.register(name, help, gauge);
            }
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, help, family);
    }

    /// Adds a histogram that somebody keeps.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.0.register(name, help, histogram.clone());
    }

    /// The page, in the OpenMetrics format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.0);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_prefix_help_labels_and_values() {
        let mut page = Page::default();
        let labels = vec![("reason", "locked".to_owned())];
        page.counter("packets", "Packets by reason", [(labels, 7)]);
        page.gauge("sessions", "Live sessions", [(Labels::new(), 2.5)]);
        let text = page.text();
        assert!(
            text.contains("# HELP portcullis_packets Packets by reason."),
            "{text}"
        );
        assert!(
            text.contains("portcullis_packets_total{reason=\"locked\"} 7"),
            "{text}"
        );
        assert!(text.contains("portcullis_sessions 2.5"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn labels_cannot_break_out_of_their_quotes() {
        let mut page = Page::default();
        page.gauge("x", "X", [(vec![("user", "a\"} 1\nb".to_owned())], 1.0)]);
        assert!(
            page.text().contains(r#"{user="a\"} 1\nb"}"#),
            "{}",
            page.text()
        );
    }
}
