//! A real OpenID Provider on loopback: npm's oidc-provider.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use serde_json::json;

pub(crate) const CLIENT: &str = "portcullis-test";
pub(crate) const SECRET: &str = "a-secret-that-both-know";

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
            .current_dir(installed())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is missing: cargo xtask setup");
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

/// Where the provider is, at the versions of the lock file. Installed once.
fn installed() -> &'static Path {
    static AT: OnceLock<PathBuf> = OnceLock::new();
    AT.get_or_init(|| {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oidc");
        let at = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oidc");
        fs::create_dir_all(&at).unwrap();
        for file in ["package.json", "provider.mjs"] {
            fs::copy(sources.join(file), at.join(file)).unwrap();
        }
        let lock = fs::read(sources.join("package-lock.json")).unwrap();
        let done = at.join("installed.json");
        if fs::read(&done).is_ok_and(|installed| installed == lock) {
            return at;
        }
        fs::write(at.join("package-lock.json"), &lock).unwrap();
        let npm = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&at)
            .output()
            .expect("npm is missing: cargo xtask setup");
        let said = String::from_utf8_lossy(&npm.stderr);
        assert!(npm.status.success(), "npm ci: {said}");
        fs::write(done, lock).unwrap();
        at
    })
}
