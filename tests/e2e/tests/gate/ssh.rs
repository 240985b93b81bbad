//! Sessions that live as long as an SSH connection, with OpenSSH's own server and client, keys and
//! libpam-google-authenticator.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use e2e_tests::flows::Probe;
use e2e_tests::{Gate, Options, Peer, Running, SERVER_V4, eventually, run, with_gate_prepared};

use crate::{INTERVAL, SOON, echo_v4};

/// For everything that the SSH user has to reach.
const DIR: &str = "/run/portcullis-ssh";
const NAME: &str = "alice";
const UID: u32 = 1500;
/// What the authenticator of sshd's own login shares with it: base32.
const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
const PORT: &str = "2222";

/// A bastion on the gateway's own address, for one user.
struct Bastion {
    _sshd: Running,
}

/// The table in the configuration, and sshd's own world: an account, its key and its authenticator.
fn prepare(gate: &Gate) -> Result<PathBuf> {
    let dir = PathBuf::from(DIR);
    fs::create_dir_all(&dir)?;
    fs::set_permissions(&dir, Permissions::from_mode(0o755))?;
    let path = gate.configuration();
    let text = fs::read_to_string(&path)?;
    let table = format!(
        "[control.ssh]\nlocations = [\"office\"]\nsocket = \"{DIR}/ssh.sock\"\n\n[portal]\n"
    );
    fs::write(path, text.replace("[portal]\n", &table))?;

    let passwd = fs::read_to_string("/etc/passwd")?;
    let account = format!("{NAME}:x:{UID}:{UID}::{DIR}:/bin/sh\n");
    replace("/etc/passwd", &format!("{passwd}{account}"))?;
    replace("/etc/pam.d/sshd", &pam())?;
    let authenticator = dir.join("authenticator");
    fs::write(
        &authenticator,
        format!("{SECRET}\n\" WINDOW_SIZE 3\n\" TOTP_AUTH\n"),
    )?;
    fs::set_permissions(&authenticator, Permissions::from_mode(0o600))?;
    chown(&authenticator, Some(0), Some(0))?;
    for key in ["host", "user"] {
        let key = dir.join(key);
        run(
            Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(key),
            "",
        )?;
    }
    fs::copy(dir.join("user.pub"), dir.join("authorized"))?;
    let host = fs::read_to_string(dir.join("host.pub"))?;
    fs::write(dir.join("known"), format!("[192.0.2.1]:{PORT} {host}"))?;
    Ok(dir)
}

/// This machine is thrown away afterwards: no file of its own is changed.
fn replace(file: &str, text: &str) -> Result<()> {
    let new = Path::new(DIR).join(file.replace('/', "-"));
    fs::write(&new, text)?;
    fs::set_permissions(&new, Permissions::from_mode(0o644))?;
    run(Command::new("mount").arg("--bind").arg(&new).arg(file), "")?;
    Ok(())
}

fn pam() -> String {
    format!(
        "auth required pam_google_authenticator.so secret={DIR}/authenticator user=root\n\
         account required pam_permit.so\n\
         session required pam_permit.so\n"
    )
}

impl Bastion {
    /// As deploy/sshd_config.portcullis has it, for this place.
    fn start(gate: &Gate, dir: &Path) -> Result<Self> {
        let binary = std::env::var("PORTCULLIS_BIN").context("PORTCULLIS_BIN")?;
        let common = fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../deploy/sshd_config.portcullis"
        ))?;
        let common = common.replace(
            "/usr/local/bin/portcullis",
            &format!("PORTCULLIS_SSH_SOCKET={DIR}/ssh.sock {binary}"),
        );
        ensure!(common.contains(&binary), "{common}");
        let config = format!(
            "ListenAddress 192.0.2.1:{PORT}\nHostKey {DIR}/host\nPidFile none\nUseDNS no\n\
             AuthorizedKeysFile {DIR}/authorized\nKexAlgorithms curve25519-sha256\n{}",
            common.replace("Match Group portcullis", &format!("Match User {NAME}"))
        );
        let file = dir.join("sshd_config");
        fs::write(&file, config)?;
        fs::create_dir_all("/run/sshd")?;
        let mut command = gate.world.gateway.command("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(&file);
        Ok(Self {
            _sshd: Running::start(&mut command)?,
        })
    }
}

/// An SSH connection from the peer's network, whose user types what `authenticator` prints.
fn ssh(peer: &Peer, dir: &Path, authenticator: &str, options: &[&str]) -> Result<Running> {
    let askpass = dir.join("askpass");
    fs::write(&askpass, format!("#!/bin/sh\n{authenticator}\n"))?;
    fs::set_permissions(&askpass, Permissions::from_mode(0o755))?;
    let mut command = peer.namespace.command("ssh");
    command
        .env("SSH_ASKPASS", &askpass)
        .env("SSH_ASKPASS_REQUIRE", "force")
        .args(["-F", "none", "-p", PORT, "-i"])
        .arg(dir.join("user"))
        .arg("-o")
        .arg(format!(
            "UserKnownHostsFile={}",
            dir.join("known").display()
        ))
        .args([
            "-o",
            "NumberOfPasswordPrompts=1",
            "-o",
            "ServerAliveInterval=5",
        ])
        .args(options)
        .arg(format!("{NAME}@192.0.2.1"));
    Running::start(&mut command)
}

/// The code of this moment; each counts once, so that the next login waits for the next one.
fn code() -> String {
    format!("oathtool --totp --base32 {SECRET}")
}

fn fresh_code(last: &mut String) -> Result<String> {
    eventually(
        "there is a new code",
        std::time::Duration::from_secs(40),
        || {
            let now = run(Command::new("sh").args(["-c", &code()]), "")?.stdout;
            let is_new = now != *last;
            *last = now;
            Ok(is_new)
        },
    )?;
    Ok(format!("echo {}", last.trim()))
}

#[test]
fn a_session_lives_as_long_as_its_ssh_connection() -> Result<()> {
    with_gate_prepared(Options::default(), prepare, |gate, dir| {
        let user = gate.add_user(NAME)?;
        let peer = gate.add_peer(0, &user)?;
        let _echo = e2e_tests::flows::Echo::start(&gate.world.server, 7)?;
        let _bastion = Bastion::start(gate, &dir)?;
        ensure!(!peer.pings(SERVER_V4)?, "before the login");

        let refused = ssh(&peer, &dir, "echo 000000", &[])?.finish()?;
        ensure!(refused.code == 255, "a wrong code: {refused:?}");
        ensure!(gate.ask(&["session", "list"])?["sessions"] == serde_json::json!([]));

        // Ended by its user, with a terminal and without one; by a signal that nobody can catch, of either side.
        let mut last = String::new();
        for (options, end) in [
            (&[][..], "client"),
            (&["-tt"][..], "client"),
            (&[][..], "sshd"),
            (&[][..], "portcullis ssh-session"),
        ] {
            let code = fresh_code(&mut last)?;
            let mut running = ssh(&peer, &dir, &code, options)?;
            if let Err(error) = running.next_line() {
                return Err(error.context(format!("{:?}", running.finish()?)));
            }
            eventually("traffic passes", SOON, || peer.pings(SERVER_V4))?;
            let probe = Probe::start(&peer.namespace, echo_v4(), INTERVAL)?;
            eventually("it flows", SOON, || Ok(probe.answered() > 10))?;
            let begun = Instant::now();
            match end {
                "client" => drop(running),
                "sshd" => kill("sshd: alice")?,
                other => kill(other)?,
            }
            eventually("traffic stops", SOON, || silent(&probe))?;
            println!(
                "{end} {options:?} killed: silent within {:?}",
                begun.elapsed()
            );
            ensure!(!peer.pings(SERVER_V4)?);
        }

        // What ends the session is told, and ends the connection.
        let code = fresh_code(&mut last)?;
        let mut running = ssh(&peer, &dir, &code, &[])?;
        running.next_line()?;
        eventually("traffic passes", SOON, || peer.pings(SERVER_V4))?;
        gate.ask(&["session", "revoke", "--user", NAME])?;
        let ended = running.finish()?;
        ensure!(ended.code == 7, "{ended:?}");
        ensure!(
            ended.stdout.contains("The session was revoked"),
            "{ended:?}"
        );

        // Control is killed and comes back: the session goes on, and still ends with the connection.
        let code = fresh_code(&mut last)?;
        let mut running = ssh(&peer, &dir, &code, &[])?;
        running.next_line()?;
        eventually("traffic passes", SOON, || peer.pings(SERVER_V4))?;
        gate.kill("up")?;
        ensure!(peer.pings(SERVER_V4)?, "with every process dead");
        gate.start()?;
        gate.wait_in_sync()?;
        // Longer than a lease: somebody renews it.
        std::thread::sleep(std::time::Duration::from_secs(35));
        ensure!(peer.pings(SERVER_V4)?, "it goes on");
        drop(running);
        eventually("traffic stops", SOON, || Ok(!peer.pings(SERVER_V4)?))?;
        Ok(())
    })
}

/// Whether nothing comes back for a while.
fn silent(probe: &Probe) -> Result<bool> {
    let answered = probe.answered();
    std::thread::sleep(INTERVAL * 8);
    Ok(probe.answered() == answered)
}

/// Kills the processes whose command line begins with this.
fn kill(what: &str) -> Result<()> {
    let pattern = match what.strip_prefix("portcullis ") {
        Some(command) => format!("portcullis {command}"),
        None => format!("^{what}"),
    };
    run(Command::new("pkill").args(["-KILL", "-f", &pattern]), "")?;
    Ok(())
}
