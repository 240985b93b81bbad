//! The `[agent.shield]` section of the configuration.

use gateway_common::shield::Budget;
use serde::Deserialize;

use crate::datapath::{ShieldBudgets, ShieldMode};

/// The shield on the network card. Left out, there is none.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShieldConfig {
    /// The network card that WireGuard's packets come in by and go out by, all of them.
    pub interface: String,
    /// `auto`, `native` or `generic`.
    #[serde(default)]
    pub mode: ShieldMode,
    /// Handshake initiations a second of one IPv4 address or IPv6 /64; 0 for no limit.
    #[serde(default = "defaults::source_rate")]
    pub source_rate: u32,
    /// As many may come at once.
    #[serde(default = "defaults::source_burst")]
    pub source_burst: u32,
    /// Handshake initiations a second of all sources; 0 for no limit.
    #[serde(default = "defaults::overall_rate")]
    pub overall_rate: u32,
    /// As many may come at once.
    #[serde(default = "defaults::overall_burst")]
    pub overall_burst: u32,
    /// Whether a peer whose session ends has to shake hands anew before anything of its passes.
    #[serde(default = "defaults::forget_locked")]
    pub forget_locked: bool,
}

/// A client retries once in five seconds: these have room for some hundred clients behind one address, and for
/// a gateway of 65 536 peers to be back within half a minute.
mod defaults {
    pub(super) const fn source_rate() -> u32 {
        20
    }
    pub(super) const fn source_burst() -> u32 {
        100
    }
    pub(super) const fn overall_rate() -> u32 {
        4000
    }
    pub(super) const fn overall_burst() -> u32 {
        4000
    }
    pub(super) const fn forget_locked() -> bool {
        true
    }
}

impl ShieldConfig {
    /// The budgets of each of `shares` CPUs that receive.
    pub(crate) fn budgets(&self, shares: u32) -> ShieldBudgets {
        let share = |whole: u32| {
            if whole == 0 {
                0
            } else {
                (whole / shares.max(1)).max(1)
            }
        };
        ShieldBudgets {
            source: Budget::new(self.source_rate, self.source_burst),
            overall: Budget::new(share(self.overall_rate), share(self.overall_burst)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_part_but_never_nothing() {
        let config: ShieldConfig = serde_json::from_str(
            r#"{"interface": "eth0", "overall_rate": 100, "overall_burst": 3}"#,
        )
        .expect("valid");
        assert_eq!(config.mode, ShieldMode::Auto);
        assert!(config.forget_locked);
        assert_eq!(config.budgets(4).overall, Budget::new(25, 1));
        assert_eq!(config.budgets(0).overall, Budget::new(100, 3));
        assert_eq!(config.budgets(4).source, Budget::new(20, 100));
        let unlimited = ShieldConfig {
            overall_rate: 0,
            ..config
        };
        assert_eq!(unlimited.budgets(4).overall, Budget::default());
    }
}
