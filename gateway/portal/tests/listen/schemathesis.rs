//! The API, exercised from its own description by schemathesis (PyPI): what a stranger's program would
//! try, and whether the description keeps its word.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::Request;
use axum::middleware;
use portcullis_portal::{PublicAddr, public_app};
use tokio::net::TcpListener;

use super::{add_loopback_device, bind_named, control, log_in, passkeys};

const VERSION: &str = "4.32.5";

const ALL: &str = "examples,coverage,fuzzing";

static INSTALLING: Mutex<()> = Mutex::new(());

/// Where the program is, at this version. Installed once.
fn installed() -> PathBuf {
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
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

/// Tries what is described at this address. Refusing what the description cannot say is wrong, such as a
/// name that is taken, is in order (positive_data_acceptance).
async fn run(description: &str, phases: &str, state: &Path) {
    let program = tokio::task::spawn_blocking(installed).await.unwrap();
    let mut command = tokio::process::Command::new(program);
    command
        .arg("run")
        .arg(description)
        .args(["--tls-verify", "false", "--checks", "all"])
        .args(["--exclude-checks", "positive_data_acceptance"])
        .args(["--phases", phases])
        .args(["--max-examples", "10", "--seed", "1", "--no-color"])
        .current_dir(state);
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{description}\n{said}");
}

/// Before a login and after one.
#[tokio::test(flavor = "multi_thread")]
async fn the_api_does_what_its_description_says() {
    let (control, state) = control().await;
    add_loopback_device(&control, &state).await;
    let portal = bind_named(&control).unwrap();
    let address = portal.addresses()[0];
    let serving = tokio::spawn(portal.serve(std::future::pending()));
    let description = format!("https://{address}/api/v1/openapi.json");
    run(&description, ALL, state.path()).await;
    log_in(&control).await;
    run(&description, ALL, state.path()).await;
    serving.abort();
}

/// Outside of the tunnel. Each request comes from another network: none is over its share, which a machine that
/// tries everything is at once.
#[tokio::test(flavor = "multi_thread")]
async fn the_apis_outside_do_what_their_descriptions_say() {
    let (control, state) = control().await;
    let count = Arc::new(AtomicU32::new(0));
    let enrolments = control.enrolments().with_passkeys(passkeys(&control));
    let outside = control.outside().with_passkeys(passkeys(&control));
    let app = public_app(
        enrolments,
        control.connects(),
        Some(outside),
        Some(control.approvals(passkeys(&control))),
    );
    let app = app.layer(middleware::map_request(move |mut request: Request| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let from = PublicAddr(Ipv4Addr::from(number).into());
        request.extensions_mut().insert(from);
        async { request }
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(axum::serve(listener, app).into_future());
    for description in [
        "api/v1/enrol/openapi.json",
        "api/v1/openapi.json",
        "api/v1/connect/openapi.json",
        "api/v1/approve/openapi.json",
    ] {
        run(
            &format!("http://{address}/{description}"),
            ALL,
            state.path(),
        )
        .await;
    }
    serving.abort();
}
