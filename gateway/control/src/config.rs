//! The `[control]` table of the configuration file.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::ssh::SshConfig;
use crate::sso::SsoConfig;

/// Where control keeps its state and where it listens.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// `sqlite:///path/to/file` or `postgres://user:password@host/database`.
    pub database: String,
    /// Holds the master key; made with mode 0700 where it is missing.
    pub state_dir: PathBuf,
    /// The administrators' Unix socket, mode 0600.
    pub admin_socket: PathBuf,
    /// Where gateways dial in.
    pub listen: SocketAddr,
    /// Further names and addresses in the server certificate. `localhost`, `127.0.0.1` and `::1`
    /// are always there. The first one is what enrolling gateways are told to dial.
    pub names: Vec<String>,
    /// Audit records are kept for this long.
    #[serde(with = "humantime_serde")]
    pub audit_retention: Duration,
    /// Devices that a user may have before the portal lets them add no more. Administrators add as
    /// many as they like.
    pub devices_per_user: u32,
    /// Sessions held by SSH connections. None: there are none.
    pub ssh: Option<SshConfig>,
    /// Providers of single sign-on.
    pub sso: Vec<SsoConfig>,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            database: "sqlite:///var/lib/portcullis/portcullis.db".into(),
            state_dir: "/var/lib/portcullis".into(),
            admin_socket: "/run/portcullis/admin.sock".into(),
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7443)),
            names: Vec::new(),
            audit_retention: Duration::from_secs(400 * 24 * 60 * 60),
            devices_per_user: 5,
            ssh: None,
            sso: Vec::new(),
        }
    }
}

impl ControlConfig {
    /// What gateways are told to dial.
    pub fn control_url(&self) -> String {
        let port = self.listen.port();
        match self.names.first() {
            Some(name) if name.contains(':') => format!("https://[{name}]:{port}"),
            Some(name) => format!("https://{name}:{port}"),
            None if self.listen.ip().is_unspecified() => format!("https://localhost:{port}"),
            None => format!("https://{}", self.listen),
        }
    }
}

impl std::fmt::Debug for ControlConfig {
    /// Leaves out the database's URL, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlConfig")
            .field("state_dir", &self.state_dir)
            .field("admin_socket", &self.admin_socket)
            .field("listen", &self.listen)
            .field("names", &self.names)
            .field("audit_retention", &self.audit_retention)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_default_and_unknown_ones_are_refused() {
        let config: ControlConfig = toml::from_str("names = ['vpn.example.org']").unwrap();
        assert_eq!(config.control_url(), "https://vpn.example.org:7443");
        let config: ControlConfig = toml::from_str("listen = '[::]:1'").unwrap();
        assert_eq!(config.control_url(), "https://localhost:1");
        let config: ControlConfig = toml::from_str("audit_retention = '90days'").unwrap();
        assert_eq!(config.audit_retention, Duration::from_secs(90 * 86_400));
        assert!(toml::from_str::<ControlConfig>("listne = '0.0.0.0:1'").is_err());
        let config = ControlConfig {
            database: "postgres://u:hunter2@h/d".into(),
            ..config
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
