//! Finds the compiled eBPF object that the agent carries inside itself.

use std::{env, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed=PORTCULLIS_BPF_OBJECT");
    let object = env::var_os("PORTCULLIS_BPF_OBJECT").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/bpf/portcullis.o"),
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    match object.canonicalize() {
        Ok(object) => {
            println!(
                "cargo::rustc-env=PORTCULLIS_BPF_OBJECT={}",
                object.display()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!(
                "cargo::error=no eBPF object at {} ({error}): run `cargo xtask build` first",
                object.display()
            );
            ExitCode::FAILURE
        }
    }
}
