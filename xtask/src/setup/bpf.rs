//! The toolchain that compiles Rust for eBPF.
//!
//! `bpfel-unknown-none` has no prebuilt `core`, so its source is needed. It comes from a release that rustup
//! downloads where it can, and from Debian's own Rust packages where it cannot. Both are the same release: its
//! LLVM has to be one whose bitcode bpf-linker reads, which a nightly's of tomorrow is not.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::apt;
use crate::process::{forget_package, has, output, run, say};

/// The linker's release; the one the workspace is tested with.
const LINKER_VERSION: &str = "0.13.0";
/// The name under which Debian's Rust is linked into rustup.
const DEBIAN: &str = "debian";
/// The release that rustup is asked for, with LLVM 22 as [`apt::LLVM`].
const RELEASE: &str = "1.96.0";

/// A toolchain known to rustup that has the source of `core`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// Debian's rustc-web, linked as `debian`.
    Debian,
    /// rustup's release of the same version, with rust-src.
    Rustup,
}

impl Toolchain {
    fn name(self) -> &'static str {
        match self {
            Self::Debian => DEBIAN,
            Self::Rustup => RELEASE,
        }
    }

    /// `cargo` of this toolchain, cleared of what the calling cargo put into the environment.
    pub(crate) fn cargo(self) -> Command {
        let mut command = Command::new("rustup");
        command
            .args(["run", self.name(), "cargo"])
            .current_dir(crate::paths::root());
        forget_package(&mut command);
        for inherited in [
            "CARGO",
            "RUSTC",
            "RUSTDOC",
            "RUSTUP_TOOLCHAIN",
            "LD_LIBRARY_PATH",
            "RUSTFLAGS",
        ] {
            command.env_remove(inherited);
        }
        // build-std is unstable, and the compiler a stable release.
        command.env("RUSTC_BOOTSTRAP", "1");
        command
    }

    /// Whether the toolchain brings clippy.
    pub(crate) fn has_clippy(self) -> bool {
        output(self.cargo().args(["clippy", "--version"])).is_ok()
    }

    fn is_usable(self) -> bool {
        output(Command::new("rustup").args(["run", self.name(), "rustc", "--print", "sysroot"]))
            .is_ok_and(|sysroot| {
                Path::new(sysroot.trim())
                    .join("lib/rustlib/src/rust/library/core/Cargo.toml")
                    .is_file()
            })
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian => f.write_str("Debian's Rust (rustc-web)"),
            Self::Rustup => write!(f, "rustup's Rust {RELEASE} with rust-src"),
        }
    }
}

/// Finds or installs a toolchain for eBPF, and bpf-linker.
pub(crate) fn ensure() -> Result<Toolchain> {
    if !has("rustup") {
        bail!("rustup is not on the PATH: install it from https://rustup.rs, then try again");
    }
    let toolchain = match [Toolchain::Debian, Toolchain::Rustup]
        .into_iter()
        .find(|t| t.is_usable())
    {
        Some(found) => found,
        None => install()?,
    };
    ensure_linker(toolchain)?;
    Ok(toolchain)
}

fn install() -> Result<Toolchain> {
    say(format!(
        "no toolchain for eBPF yet: trying {}, then Debian's packages",
        Toolchain::Rustup
    ));
    let by_rustup = run(Command::new("rustup").args([
        "toolchain",
        "install",
        RELEASE,
        "--profile=minimal",
        "--component=rust-src",
        "--component=clippy",
        "--no-self-update",
    ]));
    match by_rustup {
        Ok(()) if Toolchain::Rustup.is_usable() => return Ok(Toolchain::Rustup),
        Ok(()) => say("rustup installed it, but without the source of core"),
        Err(error) => say(format!("rustup could not: {error:#}")),
    }
    apt::ensure(apt::RUST)
        .context("neither rustup nor Debian could provide Rust with the source of core")?;
    run(Command::new("rustup").args(["toolchain", "link", DEBIAN, "/usr"]))?;
    if Toolchain::Debian.is_usable() {
        Ok(Toolchain::Debian)
    } else {
        bail!("Debian's Rust packages are installed, but /usr has no source of core")
    }
}

fn ensure_linker(toolchain: Toolchain) -> Result<()> {
    if has("bpf-linker") {
        return Ok(());
    }
    say(format!(
        "bpf-linker {LINKER_VERSION} is missing: building it (a minute or two)"
    ));
    let mut command = crate::process::cargo();
    command.args([
        "install",
        "bpf-linker",
        "--locked",
        "--version",
        LINKER_VERSION,
    ]);
    // The linker must speak the LLVM of the compiler whose bitcode it reads. On Debian that is the packaged one.
    if toolchain == Toolchain::Debian || has("apt-get") && apt::ensure(apt::LLVM).is_ok() {
        apt::ensure(apt::LLVM)?;
        command
            .args(["--no-default-features", "--features", "llvm-22"])
            .env("LLVM_PREFIX", "/usr/lib/llvm-22");
    }
    run(&mut command).context("cannot build bpf-linker")
}
