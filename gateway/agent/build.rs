//! Finds the compiled eBPF objects that the agent carries inside itself.

use std::{env, path::PathBuf, process::ExitCode};

/// Environment variable, which may also name another object, and file under target/bpf.
const OBJECTS: [(&str, &str); 2] = [
    ("PORTCULLIS_BPF_OBJECT", "portcullis.o"),
    ("PORTCULLIS_SHIELD_OBJECT", "portcullis-shield.o"),
];

fn main() -> ExitCode {
    for (variable, file) in OBJECTS {
        println!("cargo::rerun-if-env-changed={variable}");
        let object = env::var_os(variable).map_or_else(
            || {
                // Where the sources are now: a build script may outlive a move of theirs.
                PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default())
                    .join("../../target/bpf")
                    .join(file)
            },
            PathBuf::from,
        );
        println!("cargo::rerun-if-changed={}", object.display());
        match object.canonicalize() {
            Ok(object) => println!("cargo::rustc-env={variable}={}", object.display()),
            Err(error) => {
                println!(
                    "cargo::error=no eBPF object at {} ({error}): run `cargo xtask build` first",
                    object.display()
                );
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
