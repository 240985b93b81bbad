//! The guest reads this machine's files over 9p, uncached: starting a program takes hundreds of milliseconds. Files
//! that tests start again and again are therefore taken into memory once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::output;

/// What fixtures and guest scripts run.
const PROGRAMS: &[&str] = &[
    "bpftool", "cp", "ip", "mount", "nft", "nsenter", "oathtool", "ping", "setpriv", "sh",
    "sqlite3", "tc", "timeout", "umount", "wg",
];

/// The programs that there are, and the libraries they load.
pub(super) fn files() -> BTreeSet<PathBuf> {
    let dirs = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    PROGRAMS
        .iter()
        .filter_map(|name| {
            dirs.iter()
                .map(|dir| Path::new(dir).join(name))
                .find(|path| path.is_file())
        })
        .flat_map(|program| {
            let mut files = libraries(&program);
            files.push(program);
            files
        })
        .filter_map(|path| path.canonicalize().ok())
        .collect()
}

/// What the dynamic linker would load. Nothing for a static program or a script.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = output(Command::new("ldd").arg(program)).unwrap_or_default();
    // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
    listed
        .lines()
        .flat_map(str::split_whitespace)
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}
