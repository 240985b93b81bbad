//! A TUN interface and a bpf file system for one test, taken away when it ends.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::programs::{SchedClassifier, TcAttachType};
use tempfile::TempDir;

static NEXT: AtomicU32 = AtomicU32::new(0);

pub struct Sandbox {
    pub interface: String,
    dir: TempDir,
}

impl Sandbox {
    pub fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::tempdir().expect("temporary directory");
        let sandbox = Self {
            interface: format!("pct{}n{number}", std::process::id() % 100_000),
            dir,
        };
        std::fs::create_dir(sandbox.pin_root()).expect("mount point");
        let pins = sandbox.pin_root();
        run(
            "mount",
            &["-t", "bpf", "bpf", pins.to_str().expect("UTF-8")],
        );
        run("ip", &["tuntap", "add", &sandbox.interface, "mode", "tun"]);
        sandbox
    }

    pub fn pin_root(&self) -> PathBuf {
        self.dir.path().join("bpf")
    }

    pub fn state_dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn index(&self) -> u32 {
        let path = format!("/sys/class/net/{}/ifindex", self.interface);
        let text = std::fs::read_to_string(path).expect("the interface exists");
        text.trim().parse().expect("a number")
    }
}

impl Sandbox {
    /// How many programs the kernel runs on both hooks.
    pub fn attached(&self) -> usize {
        [TcAttachType::Ingress, TcAttachType::Egress]
            .into_iter()
            .map(|hook| {
                SchedClassifier::query_tcx(&self.interface, hook)
                    .expect("asked")
                    .1
                    .len()
            })
            .sum()
    }

    /// Takes the programs from their hooks: their links live as long as their pins.
    pub fn detach(&self) {
        let mut removed = 0;
        let mut dirs = vec![self.pin_root()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).expect("readable") {
                let path = entry.expect("entry").path();
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                if path.is_dir() {
                    dirs.push(path);
                } else if name.starts_with("link_") {
                    std::fs::remove_file(&path).expect("removed");
                    removed += 1;
                }
            }
        }
        assert_eq!(removed, 2, "both hooks have a pinned link on this kernel");
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Whatever fails here is left to the end of the test's process.
        let _ = Command::new("ip")
            .args(["link", "del", &self.interface])
            .status();
        let _ = Command::new("umount").arg(self.pin_root()).status();
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program)
        .args(arguments)
        .status()
        .expect("installed");
    assert!(
        status.success(),
        "{program} {arguments:?} failed: these tests need root"
    );
}
