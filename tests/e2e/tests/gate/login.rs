//! What a login does not forgive.

use anyhow::{Result, ensure};
use e2e_tests::{Options, SERVER_V4, with_gate};

#[test]
fn inv11_a_code_counts_once() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let user = gate.add_user("alice")?;
        let peer = gate.add_peer(0, &user)?;
        let code = user.code()?;
        let first = peer.try_login(&user, &user.password, &["--totp", &code])?;
        ensure!(first.code == 0, "{first:?}");
        gate.ask(&["session", "revoke", "--all"])?;
        let replay = peer.try_login(&user, &user.password, &["--totp", &code])?;
        ensure!(replay.code == 4, "a used code is refused: {replay:?}");
        ensure!(!peer.pings(SERVER_V4)?, "and opens nothing");
        gate.kill("up")?;
        gate.start_service("up")?;
        gate.wait_in_sync()?;
        let replay = peer.try_login(&user, &user.password, &["--totp", &code])?;
        ensure!(replay.code == 4, "after a restart as well: {replay:?}");
        peer.login(&user)?;
        ensure!(peer.pings(SERVER_V4)?, "a fresh one is accepted");
        Ok(())
    })
}

#[test]
fn inv11_the_sixth_wrong_attempt_is_delayed_across_a_restart() -> Result<()> {
    with_gate(Options::default(), |gate| {
        let user = gate.add_user("alice")?;
        let peer = gate.add_peer(0, &user)?;
        for attempt in 0..5 {
            // Passwords and codes count together.
            let output = if attempt % 2 == 0 {
                peer.try_login(&user, "not the password", &["--totp", "000000"])?
            } else {
                peer.try_login(&user, &user.password, &["--totp", &user.wrong_code()?])?
            };
            ensure!(
                output.code == 4,
                "wrong attempt {attempt} is refused: {output:?}"
            );
        }
        gate.kill("up")?;
        gate.start_service("up")?;
        gate.wait_in_sync()?;
        let right = peer.try_login(
            &user,
            &user.password,
            &["--totp-command", &user.authenticator()],
        )?;
        ensure!(
            right.code == 4,
            "even the right factors wait now: {right:?}"
        );
        let said = right.stderr.to_lowercase();
        ensure!(
            ["delay", "wait", "again", "seconds", "too many"]
                .iter()
                .any(|word| said.contains(word)),
            "and the user is told to wait: {right:?}"
        );
        ensure!(!peer.pings(SERVER_V4)?, "nothing is open");
        Ok(())
    })
}
