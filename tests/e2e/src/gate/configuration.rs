//! The configuration that tests run with, and where its files are.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// Which processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `portcullis up`: everything in one process.
    Up,
    /// `portcullis control` and `portcullis agent`.
    Split,
}

/// On the network card of [`crate::World`]'s gateway, with budgets that a test can use up.
const SHIELD: &str = r#"
[agent.shield]
interface = "wan0"
source_rate = 2
source_burst = 10
"#;

/// The places of everything that belongs to one gateway.
#[derive(Debug)]
pub(super) struct Paths {
    root: PathBuf,
    pins: PathBuf,
}

impl Paths {
    pub(super) fn new(root: &Path, pins: PathBuf) -> Self {
        Self {
            root: root.to_owned(),
            pins,
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn pins(&self) -> &Path {
        &self.pins
    }

    pub(super) fn control_state(&self) -> PathBuf {
        self.root.join("control")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.root.join("admin.sock")
    }

    pub(super) fn configuration(&self) -> PathBuf {
        self.root.join("portcullis.toml")
    }

    pub(super) fn log(&self, service: &str) -> PathBuf {
        self.root.join(format!("{service}.log"))
    }

    /// Makes the directories and writes the configuration.
    pub(super) fn prepare(&self, shield: bool, metrics: &str) -> Result<()> {
        fs::create_dir_all(self.control_state())?;
        fs::write(self.configuration(), self.text(shield, metrics))?;
        Ok(())
    }

    fn text(&self, shield: bool, metrics: &str) -> String {
        let shield = if shield { SHIELD } else { "" };
        let metrics = match metrics {
            "" => String::new(),
            section => format!("[metrics]\n{section}\n"),
        };
        let (root, pins) = (self.root.display(), self.pins.display());
        format!(
            r#"
[control]
database = "sqlite://{root}/control/portcullis.db"
state_dir = "{root}/control"
admin_socket = "{root}/admin.sock"
listen = "127.0.0.1:7443"

[portal]
listen = ["10.77.0.1:443", "[fd77::1]:443"]

[agent]
state_dir = "{root}/agent"
interface = "wg0"
pin_root = "{pins}"
max_peers = 256
max_flows = 4096
reconcile_period = "2s"
{shield}
{metrics}
[up]
gateway = "local"
"#
        )
    }
}
