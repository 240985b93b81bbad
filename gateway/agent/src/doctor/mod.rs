//! Whether this machine can be a gateway, and what to do where it cannot.

mod clock;
mod kernel;
mod mounts;
mod network;
mod privileges;
mod shield;

use serde::Serialize;

use crate::config::AgentConfig;

/// One thing that a gateway needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Short and stable, for scripts.
    pub name: &'static str,
    /// Whether a gateway can work as it is.
    pub ok: bool,
    /// What there is.
    pub found: String,
    /// What to do about it; present wherever something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            ok: true,
            found: found.into(),
            advice: None,
        }
    }

    fn hint(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            name,
            ok: true,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }

    fn bad(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            name,
            ok: false,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }
}

/// Checks everything for a gateway of the default configuration.
pub fn checks() -> Vec<Check> {
    checks_for(&AgentConfig::default())
}

/// Checks everything; changes nothing, but for a file in the pin directory that it removes again.
pub fn checks_for(config: &AgentConfig) -> Vec<Check> {
    vec![
        kernel::version(),
        kernel::btf(),
        kernel::jit(),
        kernel::wireguard(),
        privileges::capabilities(),
        privileges::locked_memory(),
        mounts::bpf_file_system(&config.pin_root),
        network::interface(&config.interface),
        network::forwarding(),
        shield::check(config),
        clock::wall_clock(),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn whatever_is_wrong_comes_with_advice() {
        let checks = super::checks();
        assert!(checks.len() >= 8);
        for check in checks {
            assert!(check.ok || check.advice.is_some(), "{check:?}");
            assert!(!check.found.is_empty(), "{check:?}");
        }
    }
}
