//! Debian packages, by what they are for.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::process::{as_root, has, run, say};

/// How to see that a package is there without asking the package manager: other distributions may
/// provide the same file under another package's name.
enum Probe {
    /// A program on the PATH.
    Program(&'static str),
    /// A file.
    File(&'static str),
    /// A file `under` some directory of `parent`.
    Under {
        parent: &'static str,
        under: &'static str,
    },
}

/// A package and how its presence is seen.
pub(crate) struct Package {
    name: &'static str,
    probe: Probe,
}

const fn program(name: &'static str, program: &'static str) -> Package {
    Package {
        name,
        probe: Probe::Program(program),
    }
}

/// Needed to compile the workspace.
pub(crate) const BUILD: &[Package] = &[
    program("build-essential", "cc"),
    program("protobuf-compiler", "protoc"),
    Package {
        name: "libprotobuf-dev",
        probe: Probe::File("/usr/include/google/protobuf/empty.proto"),
    },
];

/// Needed to compile for eBPF where rustup cannot provide the standard library's source.
pub(crate) const RUST: &[Package] = &[
    program("rustc-web", "/usr/bin/rustc"),
    program("cargo-web", "/usr/bin/cargo"),
    Package {
        name: "rust-web-src",
        probe: Probe::File("/usr/lib/rustlib/src/rust/library/core/Cargo.toml"),
    },
    Package {
        name: "rust-web-clippy",
        probe: Probe::File("/usr/bin/cargo-clippy"),
    },
];

/// The LLVM that bpf-linker links with.
pub(crate) const LLVM: &[Package] = &[Package {
    name: "llvm-22-dev",
    probe: Probe::File("/usr/lib/llvm-22/bin/llvm-config"),
}];

/// Real parts that the tests work against.
pub(crate) const TEST: &[Package] = &[
    program("curl", "curl"),
    program("iproute2", "ip"),
    program("iputils-ping", "ping"),
    program("nftables", "nft"),
    program("iperf3", "iperf3"),
    program("oathtool", "oathtool"),
    program("openssh-client", "ssh"),
    program("openssh-server", "/usr/sbin/sshd"),
    program("procps", "pkill"),
    program("pebble", "pebble"),
    program("sqlite3", "sqlite3"),
    program("util-linux", "nsenter"),
    program("wireguard-tools", "wg"),
    program("bpftool", "bpftool"),
    program("chromium", "chromium"),
    program("chromium-driver", "chromedriver"),
    program("nodejs", "node"),
    program("npm", "npm"),
    program("python3-venv", "python3"),
    Package {
        name: "libpam-google-authenticator",
        probe: Probe::File("/usr/bin/google-authenticator"),
    },
    Package {
        name: "postgresql",
        probe: Probe::Under {
            parent: "/usr/lib/postgresql",
            under: "bin/initdb",
        },
    },
];

/// Needed to boot a test kernel.
pub(crate) const VM: &[Package] = &[
    program("qemu-system-x86", "qemu-system-x86_64"),
    program("busybox-static", "busybox"),
    program("file", "file"),
    program("kmod", "depmod"),
];

/// Installs those of `packages` that are missing.
pub(crate) fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|p| !present(p))
        .map(|p| p.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    say(format!("missing: {}", missing.join(", ")));
    if !has("apt-get") {
        bail!(
            "this machine has no apt-get: install what provides {} with its own package manager, then try again",
            missing.join(", ")
        );
    }
    let install = || {
        run(as_root("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "--yes", "--no-install-recommends"])
            .args(&missing))
    };
    // The package lists may be absent (fresh container) or too old to name a file that still exists.
    if install().is_err() {
        run(as_root("apt-get").arg("update")).context("cannot refresh the package lists")?;
        install().with_context(|| format!("cannot install {}", missing.join(", ")))?;
    }
    match packages.iter().find(|p| !present(p)) {
        None => Ok(()),
        Some(p) => bail!(
            "package {} is installed but does not provide what is needed from it",
            p.name
        ),
    }
}

fn present(package: &Package) -> bool {
    match package.probe {
        Probe::Program(path) if path.starts_with('/') => Path::new(path).is_file(),
        Probe::Program(name) => has(name),
        Probe::File(path) => Path::new(path).is_file(),
        Probe::Under { parent, under } => std::fs::read_dir(parent).is_ok_and(|entries| {
            entries
                .flatten()
                .any(|entry| entry.path().join(under).is_file())
        }),
    }
}
