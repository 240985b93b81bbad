//! The `[agent]` section of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::datapath;
use crate::shield::ShieldConfig;
use crate::{Agent, AgentError};

/// What an agent is told by its configuration file; all else comes from control.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentConfig {
    /// Where the gateway's WireGuard key and its enrolment are kept, readable by root only.
    pub state_dir: PathBuf,
    /// The WireGuard interface. Created where there is none.
    pub interface: String,
    /// Where the datapath's maps and links are pinned: on a bpf file system.
    pub pin_root: PathBuf,
    /// Room in the maps for this many peers.
    pub max_peers: u32,
    /// Room in the flow tables for this many flows, for each of IPv4 and IPv6.
    pub max_flows: u32,
    /// How often everything is compared with the kernel, beside what deltas touch.
    #[serde(with = "humantime_serde")]
    pub reconcile_period: Duration,
    /// Sheds on the network card what WireGuard would drop; none where it is left out.
    pub shield: Option<ShieldConfig>,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/portcullis/agent".into(),
            interface: "wg0".into(),
            pin_root: "/sys/fs/bpf/portcullis".into(),
            max_peers: 65_536,
            max_flows: 262_144,
            reconcile_period: Duration::from_secs(30),
            shield: None,
        }
    }
}

/// A value in the `[agent]` section that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("agent.{0}: {1:?} is not an interface name (1 to 15 characters, no slash or space)")]
    Interface(&'static str, String),
    #[error(
        "agent.shield.interface: {0} is the tunnel; name the network card that its packets come in by"
    )]
    ShieldOnTunnel(String),
    #[error("agent.{0} must be at least 1")]
    Zero(&'static str),
    #[error("agent.reconcile_period must be at least 1s")]
    ReconcilePeriod,
    #[error("agent.{0} must be an absolute path")]
    RelativePath(&'static str),
}

impl AgentConfig {
    /// Checks the values and makes the agent; nothing is touched before [`Agent::run`].
    pub fn build(self) -> Result<Agent, AgentError> {
        self.validate()?;
        Ok(Agent::new(self))
    }

    /// Whether each value can work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require_name("interface", &self.interface)?;
        if let Some(shield) = &self.shield {
            require_name("shield.interface", &shield.interface)?;
            if shield.interface == self.interface {
                return Err(ConfigError::ShieldOnTunnel(shield.interface.clone()));
            }
        }
        for (key, value) in [("max_peers", self.max_peers), ("max_flows", self.max_flows)] {
            if value == 0 {
                return Err(ConfigError::Zero(key));
            }
        }
        if self.reconcile_period < Duration::from_secs(1) {
            return Err(ConfigError::ReconcilePeriod);
        }
        for (key, path) in [("state_dir", &self.state_dir), ("pin_root", &self.pin_root)] {
            if !path.is_absolute() {
                return Err(ConfigError::RelativePath(key));
            }
        }
        Ok(())
    }

    pub(crate) fn datapath(&self) -> datapath::Config {
        datapath::Config {
            interface: self.interface.clone(),
            pin_root: self.pin_root.clone(),
            max_peers: self.max_peers,
            max_flows: self.max_flows,
        }
    }
}

/// The kernel's dev_valid_name(): shorter than IFNAMSIZ, no '/', ':' or white space.
fn require_name(key: &'static str, name: &str) -> Result<(), ConfigError> {
    let valid = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .chars()
            .all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ':'));
    if valid {
        Ok(())
    } else {
        Err(ConfigError::Interface(key, name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        AgentConfig::default().validate().expect("defaults");
    }

    #[test]
    fn bad_values_are_named() {
        let bad = |change: fn(&mut AgentConfig)| {
            let mut config = AgentConfig::default();
            change(&mut config);
            config.validate().expect_err("must be refused").to_string()
        };
        assert!(bad(|c| c.interface = "a/b".into()).contains("agent.interface"));
        assert!(bad(|c| c.interface = "sixteen-letters-".into()).contains("agent.interface"));
        let shield = |c: &mut AgentConfig, name: &str| {
            let shield = serde_json::json!({ "interface": name });
            c.shield = Some(serde_json::from_value(shield).expect("a section"));
        };
        let mut config = AgentConfig::default();
        shield(&mut config, "eth0");
        config.validate().expect("a network card");
        shield(&mut config, "wg0");
        let error = config.validate().expect_err("the tunnel").to_string();
        assert!(error.contains("agent.shield.interface"), "{error}");
        shield(&mut config, "eth/0");
        let error = config.validate().expect_err("a slash").to_string();
        assert!(error.contains("agent.shield.interface"), "{error}");
        assert!(bad(|c| c.max_peers = 0).contains("agent.max_peers"));
        assert!(bad(|c| c.reconcile_period = Duration::ZERO).contains("reconcile_period"));
        assert!(bad(|c| c.pin_root = "here".into()).contains("agent.pin_root"));
    }
}
