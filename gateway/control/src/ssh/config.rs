//! The `[control.ssh]` table of the configuration file.

use std::path::PathBuf;

use portcullis_proto::v1::Level;
use serde::Deserialize;

/// Sessions that live as long as an SSH connection to this machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshConfig {
    /// Where they may be opened, by name.
    pub locations: Vec<String>,
    /// What sshd's own authentication counts as.
    #[serde(default)]
    pub level: SshLevel,
    /// The Unix socket that every local user may call: sshd says who they are.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
}

/// A level that a login can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SshLevel {
    /// Two factors of different kinds, such as a key and a code.
    #[default]
    Mfa,
    /// Keys on authenticators that verify their user (`verify-required`), and nothing else.
    PhishingResistant,
}

impl From<SshLevel> for Level {
    fn from(level: SshLevel) -> Self {
        match level {
            SshLevel::Mfa => Self::Mfa,
            SshLevel::PhishingResistant => Self::PhishingResistant,
        }
    }
}

fn default_socket() -> PathBuf {
    "/run/portcullis/ssh.sock".into()
}
