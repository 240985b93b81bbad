//! `portcullis connect`, the client of session-key locations, against the real gateway.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use e2e_tests::{Gate, Namespace, Options, SERVER_V4, User, eventually, flows, with_gate_prepared};
use serde_json::{Value, json};

use crate::SOON;

const SERVER: &str = "https://192.0.2.1:8443";

pub(crate) fn vault() -> Options {
    Options {
        location: "session-key",
        ..Options::default()
    }
}

/// The public pages, without which nobody begins a login outside of a tunnel.
pub(crate) fn with_public(gate: &Gate) -> Result<()> {
    let path = gate.configuration();
    let text = fs::read_to_string(&path)?;
    let public = "[portal]\npublic = [\"192.0.2.1:8443\"]\n";
    fs::write(path, text.replace("[portal]\n", public))?;
    Ok(())
}

/// The client's device and its user.
pub(crate) struct Client<'a> {
    gate: &'a Gate,
    pub(crate) user: User,
    fingerprint: String,
    key: String,
}

impl Client<'_> {
    /// The same device from a copy of its keys, which is in the directory `copy`, on another machine.
    pub(crate) fn start_copy(&self, copy: &str, command: &str) -> Result<e2e_tests::Running> {
        let args = ["office", "--server", SERVER, "--totp-command", command];
        let args = [&args[..], &["--ca-fingerprint", &self.fingerprint]].concat();
        let namespace = &self.gate.world.peers[1];
        self.gate
            .start_connect_of(copy, namespace, &self.user, &args)
    }

    pub(crate) fn start(&self, command: &str) -> Result<e2e_tests::Running> {
        self.start_with(&[], command)
    }

    /// Signs in at a provider, in place of password and code.
    pub(crate) fn start_sso(&self, more: &[&str]) -> Result<e2e_tests::Running> {
        let args = ["office", "--server", SERVER, "--sso", "acme"];
        let args = [&args[..], &["--ca-fingerprint", &self.fingerprint], more].concat();
        let namespace = &self.gate.world.peers[0];
        self.gate.start_connect(namespace, &self.user, &args)
    }

    pub(crate) fn start_with(&self, more: &[&str], command: &str) -> Result<e2e_tests::Running> {
        let args = ["office", "--server", SERVER, "--totp-command", command];
        let args = [&args[..], &["--ca-fingerprint", &self.fingerprint], more].concat();
        let namespace = &self.gate.world.peers[0];
        self.gate.start_connect(namespace, &self.user, &args)
    }

    /// Connects, and waits until it says so.
    pub(crate) fn connect(&self) -> Result<e2e_tests::Running> {
        let mut running = self.start(&self.user.authenticator())?;
        if let Err(error) = running.next_line() {
            let output = running.finish()?;
            return Err(error.context(format!("{output:?}")));
        }
        eventually("traffic passes", SOON, || self.pings())?;
        Ok(running)
    }

    pub(crate) fn machine(&self) -> &Namespace {
        &self.gate.world.peers[0]
    }

    pub(crate) fn pings(&self) -> Result<bool> {
        flows::ping(&self.gate.world.peers[0], SERVER_V4)
    }

    /// What another command of this device says.
    pub(crate) fn show(&self, command: &str) -> Result<e2e_tests::Output> {
        self.gate.client(&self.gate.world.peers[0], &[command])
    }

    fn has_interface(&self) -> Result<bool> {
        self.gate.world.peers[0].has_link("office")
    }

    fn is_peer(&self) -> Result<bool> {
        Ok(self.gate.wg(&["peers"])?.contains(&self.key))
    }
}

pub(crate) fn last_event(stdout: &str) -> Result<Value> {
    let line = stdout.lines().last().context("nothing was said")?;
    Ok(serde_json::from_str(line)?)
}

/// The first connection makes the key; nobody knows the device yet. An invitation makes it known, and opens nothing.
pub(crate) fn first_use(gate: &Gate) -> Result<Client<'_>> {
    let user = gate.add_user("alice")?;
    let invite = ["device", "invite", "--user", "alice", "--location"];
    let invite = gate.ask(&[&invite[..], &["office"]].concat())?;
    let told = |field: &str| -> Result<String> {
        let text = invite[field].as_str();
        Ok(text.context("it is told")?.to_owned())
    };
    ensure!(told("server")?.ends_with(":8443"), "{invite}");
    let mut client = Client {
        gate,
        user,
        fingerprint: told("ca_fingerprint")?,
        key: String::new(),
    };
    let unknown = client.start("echo 000000")?.finish()?;
    ensure!(unknown.code == 4, "{unknown:?}");
    let made = last_event(&unknown.stdout)?;
    ensure!(made["event"] == "key_made", "{unknown:?}");
    client.key = made["public_key"].as_str().context("its key")?.to_owned();
    let enrol = ["--enrol", &told("token")?, "--name", "laptop"];
    let enrolled = client.start_with(&enrol, "echo 000000")?.finish()?;
    ensure!(enrolled.code == 4, "a wrong code: {enrolled:?}");
    let event = last_event(&enrolled.stdout)?;
    ensure!(event["event"] == "enrolled", "{enrolled:?}");
    ensure!(!client.is_peer()?, "without a session");
    let again = client.start_with(&enrol, "echo 000000")?.finish()?;
    ensure!(again.code == 4, "it is good once: {again:?}");
    Ok(client)
}

#[test]
fn inv1_connect_holds_a_tunnel_for_as_long_as_its_session_lives() -> Result<()> {
    with_gate_prepared(vault(), with_public, |gate, ()| {
        let client = first_use(gate)?;
        ensure!(!client.is_peer()? && !client.has_interface()?);
        ensure!(!client.pings()?, "before the login");

        let wrong = client
            .start(&format!("echo {}", client.user.wrong_code()?))?
            .finish()?;
        ensure!(wrong.code == 4, "a wrong code: {wrong:?}");
        ensure!(!client.is_peer()? && !client.has_interface()?);

        // Revoked: the client says so and takes the interface down.
        let running = client.connect()?;
        ensure!(client.is_peer()?);
        gate.ask(&["session", "revoke", "--user", "alice"])?;
        ensure!(!client.pings()?, "the next packet is dropped");
        let ended = running.finish()?;
        ensure!(ended.code == 7, "{ended:?}");
        ensure!(
            last_event(&ended.stdout)?["state"] == "revoked",
            "{ended:?}"
        );
        ensure!(!client.has_interface()?);

        // Ctrl-C ends the session at the server.
        let ended = client.connect()?.interrupt()?;
        ensure!(ended.code == 0, "{ended:?}");
        ensure!(
            last_event(&ended.stdout)?["state"] == "disconnected",
            "{ended:?}"
        );
        ensure!(!client.has_interface()?);
        eventually("the peer goes", SOON, || Ok(!client.is_peer()?))?;

        // So does another command.
        let running = client.connect()?;
        let done = gate.client(&gate.world.peers[0], &["disconnect"])?;
        ensure!(
            done.json()?["disconnected"] == json!(["office"]),
            "{done:?}"
        );
        ensure!(!client.has_interface()? && !client.pings()?);
        let ended = running.finish()?;
        ensure!(ended.code == 0, "{ended:?}");
        eventually("the peer goes", SOON, || Ok(!client.is_peer()?))?;
        let none = gate.client(&gate.world.peers[0], &["disconnect", "office"])?;
        ensure!(none.code == 1, "{none:?}");

        // A crash leaves the interface, which that takes down, or the next connection over.
        drop(client.connect()?);
        ensure!(client.has_interface()?);
        let done = gate.client(&gate.world.peers[0], &["disconnect", "office"])?;
        ensure!(done.code == 0 && !client.has_interface()?, "{done:?}");
        drop(client.connect()?);
        ensure!(client.has_interface()?);
        let ended = client.connect()?.interrupt()?;
        ensure!(ended.code == 0, "{ended:?}");
        ensure!(!client.has_interface()? && !client.pings()?);

        // Somebody else's stays.
        let namespace = &gate.world.peers[0];
        namespace.ip("link add office type wireguard\n")?;
        let taken = client.start(&client.user.authenticator())?.finish()?;
        ensure!(taken.code == 2, "{taken:?}");
        gate.client(namespace, &["disconnect"])?;
        ensure!(client.has_interface()?, "it is another's");
        Ok(())
    })
}
