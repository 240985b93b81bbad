//! No space left.

use std::fs::File;
use std::io::Write as _;

use anyhow::{Result, ensure};
use e2e_tests::{Options, SERVER_V4, with_gate};

#[test]
fn a_full_disk_is_reported_loses_nothing_and_opens_nothing() -> Result<()> {
    with_gate(
        Options {
            disk: Some("4M"),
            ..Options::default()
        },
        |gate| {
            let (_, peer) = gate.add_logged_in(0, "alice")?;
            let bob = gate.add_user("bob")?;
            let locked = gate.add_peer(1, &bob)?;

            let ballast = gate.control_state().join("ballast");
            let mut file = File::create(&ballast)?;
            while file.write_all(&[0; 4096]).is_ok() {}
            // Space left within the database's own files may serve a few more requests.
            let mut failed = None;
            for number in 0..200 {
                let name = format!("user-{number}");
                let args = ["user", "add", &name, "--password-stdin"];
                let output = gate.admin_with_input(&args, "a long enough password\n")?;
                if output.code != 0 {
                    failed = Some(output);
                    break;
                }
            }
            let failed = failed.ok_or_else(|| anyhow::anyhow!("the disk never got full"))?;
            ensure!(failed.code == 1, "{failed:?}");
            let said = failed.stderr.to_lowercase();
            ensure!(
                said.contains("full") || said.contains("space"),
                "the error should say so: {failed:?}"
            );
            ensure!(peer.pings(SERVER_V4)?, "a live session goes on");
            ensure!(!locked.pings(SERVER_V4)?, "a locked one stays locked");
            let users = gate.ask(&["user", "list"])?.to_string();
            ensure!(
                users.contains("alice") && users.contains("bob"),
                "nothing was lost: {users}"
            );

            drop(file);
            std::fs::remove_file(&ballast)?;
            let revoked = gate.ask(&["session", "revoke", "--all"])?;
            ensure!(
                revoked["done"] == true,
                "with space again all works: {revoked}"
            );
            ensure!(!peer.pings(SERVER_V4)?, "and cuts");
            Ok(())
        },
    )
}
