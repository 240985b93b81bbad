//! Builds the eBPF object and the binaries.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::paths;
use crate::process::{cargo, say};
use crate::setup;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Optimise the binary.
    #[arg(long)]
    release: bool,
    /// Only the eBPF object.
    #[arg(long)]
    bpf_only: bool,
}

/// `cargo xtask build`.
pub(crate) fn run(args: &Args) -> Result<()> {
    bpf()?;
    if args.bpf_only {
        return Ok(());
    }
    if args.release {
        run_release()
    } else {
        binaries().map(|_| ())
    }
}

/// Compiles gateway-ebpf and puts the objects where the agent's build script looks for them.
pub(crate) fn bpf() -> Result<()> {
    let toolchain = setup::for_build()?;
    say(format!("eBPF object, with {toolchain}"));
    let target_dir = paths::target().join("bpf-build");
    crate::process::run(
        toolchain
            .cargo()
            .args([
                "build",
                "--quiet",
                "--release",
                "-Z",
                "build-std=core",
                "--target",
                "bpfel-unknown-none",
            ])
            .args(["--package", "gateway-ebpf", "--target-dir"])
            .arg(&target_dir)
            // The kernel takes a function for `bpf_loop` only from a program with BTF, which the
            // linker makes from debug information.
            .env("RUSTFLAGS", "-C debuginfo=2 -C link-arg=--btf"),
    )?;
    let built = target_dir.join("bpfel-unknown-none/release");
    for (program, object) in [
        ("portcullis-ebpf", "portcullis.o"),
        ("portcullis-shield-ebpf", "portcullis-shield.o"),
    ] {
        install_object(&built.join(program), &paths::bpf_object(object))?;
    }
    Ok(())
}

/// The debug binaries of the workspace.
pub(crate) struct Binaries {
    /// `portcullis` itself.
    pub(crate) portcullis: PathBuf,
    /// The demo's story.
    pub(crate) demo: PathBuf,
}

/// Builds the workspace's binaries unoptimised. The whole workspace at once, so that features are unified as in
/// `cargo test --workspace` and no dependency is compiled twice.
pub(crate) fn binaries() -> Result<Binaries> {
    run_cargo(&["build", "--workspace", "--bins"])?;
    let debug = paths::target().join("debug");
    Ok(Binaries {
        portcullis: debug.join("portcullis"),
        demo: debug.join("demo"),
    })
}

fn run_release() -> Result<()> {
    run_cargo(&["build", "--release", "--package", "portcullis"])?;
    say(format!(
        "built {}",
        paths::target().join("release/portcullis").display()
    ));
    Ok(())
}

fn run_cargo(args: &[&str]) -> Result<()> {
    crate::process::run(cargo().args(args))
}

/// Replaces the object only when it differs, so that an unchanged one does not rebuild the agent, and by rename, so
/// that a concurrent build never sees half of it.
fn install_object(built: &Path, installed: &Path) -> Result<()> {
    let new =
        fs::read(built).with_context(|| format!("the eBPF build left no {}", built.display()))?;
    if fs::read(installed).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let dir = installed
        .parent()
        .context("the object's place has no directory")?;
    fs::create_dir_all(dir)?;
    let name = installed
        .file_name()
        .context("the object's place has no name")?
        .to_string_lossy();
    let temporary = dir.join(format!(".{name}.{}", std::process::id()));
    fs::write(&temporary, new)?;
    fs::rename(&temporary, installed).context("cannot put the eBPF object in its place")?;
    Ok(())
}
