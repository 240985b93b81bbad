//! The `[metrics]` section of the configuration file.

use std::net::SocketAddr;

use serde::Deserialize;

/// Where figures are served, and how many of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Plain HTTP, without any login: an address that only the monitoring reaches. `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Series for each peer as well.
    pub per_peer: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_served_unless_asked_for() {
        assert_eq!(toml::from_str(""), Ok(MetricsConfig::default()));
        let config: MetricsConfig = toml::from_str("listen = '127.0.0.1:9090'").unwrap_or_default();
        assert!(config.listen.is_some() && !config.per_peer);
        assert!(toml::from_str::<MetricsConfig>("listne = '127.0.0.1:9090'").is_err());
    }
}
