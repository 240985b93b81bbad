//! Figures for Prometheus: how they are written, and the one page that they are served on.
#![forbid(unsafe_code)]

mod config;
mod page;
mod serve;

pub use config::MetricsConfig;
pub use page::{Labels, Page};
pub use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
pub use serve::serve;
