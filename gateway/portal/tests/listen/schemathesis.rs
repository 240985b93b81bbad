//! The API, exercised from its own description by schemathesis (PyPI): what a stranger's program would
//! try, and whether the description keeps its word.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{add_loopback_device, bind, control, log_in};

const VERSION: &str = "4.32.5";

/// Where the program is, at this version. Installed once.
fn installed() -> PathBuf {
    let at = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("schemathesis-{VERSION}"));
    let program = at.join("bin/st");
    let done = at.join("installed");
    if !done.exists() {
        let run = |command: &mut Command| {
            let output = command
                .output()
                .expect("python3 is missing: cargo xtask setup");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command:?}: {said}");
        };
        run(Command::new("/usr/bin/python3")
            .args(["-m", "venv", "--clear"])
            .arg(&at));
        let package = format!("schemathesis=={VERSION}");
        run(Command::new(at.join("bin/pip")).args(["install", "--quiet", &package]));
        std::fs::write(done, VERSION).unwrap();
    }
    program
}

/// Before a login and after one. Refusing what the description cannot say is wrong, such as a name that
/// is taken, is in order (positive_data_acceptance).
#[tokio::test(flavor = "multi_thread")]
async fn the_api_does_what_its_description_says() {
    let (control, state) = control().await;
    add_loopback_device(&control, &state).await;
    let portal = bind(&control, "127.0.0.1:0").unwrap();
    let address = portal.addresses()[0];
    let serving = tokio::spawn(portal.serve(std::future::pending()));
    let program = installed();
    for signed_in in [false, true] {
        if signed_in {
            log_in(&control).await;
        }
        let mut command = tokio::process::Command::new(&program);
        command
            .arg("run")
            .arg(format!("https://{address}/api/v1/openapi.json"))
            .args(["--tls-verify", "false", "--checks", "all"])
            .args(["--exclude-checks", "positive_data_acceptance"])
            .args(["--phases", "examples,coverage,fuzzing"])
            .args(["--max-examples", "10", "--seed", "1", "--no-color"])
            .current_dir(state.path());
        let output = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "signed in: {signed_in}\n{said}");
    }
    serving.abort();
}
