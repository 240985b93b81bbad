//! A real OpenID Provider on loopback: npm's oidc-provider.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::json;

pub(crate) const CLIENT: &str = "portcullis-test";
pub(crate) const SECRET: &str = "a-secret-that-both-know";

/// Where `cargo xtask setup` installs it.
const INSTALLED: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/oidc");

/// A running provider, until dropped.
pub(crate) struct Provider {
    pub(crate) issuer: String,
    child: Child,
    /// Held, because the provider ends when nobody listens.
    _said: BufReader<ChildStdout>,
}

impl Provider {
    pub(crate) fn start(redirect: &str, backchannel: &str) -> Self {
        let settings = json!({
            "client_id": CLIENT, "client_secret": SECRET, "redirect_uris": [redirect],
            "backchannel_logout_uri": backchannel, "groups": ["sre"],
        });
        let mut child = Command::new("node")
            .arg("provider.mjs")
            .arg(settings.to_string())
            .current_dir(INSTALLED)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node or the provider is missing: cargo xtask setup");
        let mut issuer = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut issuer).unwrap();
        let issuer = issuer.trim().to_owned();
        assert!(issuer.starts_with("http://127.0.0.1:"), "{issuer:?}");
        Self {
            issuer,
            child,
            _said: said,
        }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
