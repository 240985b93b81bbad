//! A gateway under test: the real binary, started, killed and asked like an administrator would.

mod configuration;
mod daemon;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Output, Running, run, try_run};
use crate::namespace::Namespace;
use crate::peer::Peer;
use crate::user::User;
use crate::wait::eventually;
use crate::world::World;

pub use configuration::Mode;
use configuration::Paths;
use daemon::Daemon;

/// How long a service may take to start. Emulated machines are slow.
const START: Duration = Duration::from_secs(180);

/// How the gateway is set up.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// One process or two.
    pub mode: Mode,
    /// The location's session lifetime, as written on the command line.
    pub lifetime: &'static str,
    /// The location's idle timeout, or none.
    pub idle_timeout: Option<&'static str>,
    /// The size of the file system that holds control's state, as mount(8) reads it; none: as large as can be.
    pub disk: Option<&'static str>,
    /// Whether there is a shield on the network card.
    pub shield: bool,
    /// How the location's sessions begin: `gate` or `session-key`.
    pub location: &'static str,
    /// What the location routes into its tunnels.
    pub routes: &'static [&'static str],
    /// What the configuration's `[metrics]` section says; empty for no such section.
    pub metrics: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Up,
            lifetime: "1h",
            idle_timeout: None,
            routes: &["10.9.0.0/24", "fd09::/64"],
            disk: None,
            shield: false,
            location: "gate",
            metrics: "",
        }
    }
}

/// A gateway in its world, with the location `office`. Everything goes away when it is dropped.
#[derive(Debug)]
pub struct Gate {
    /// Where it is.
    pub world: World,
    mode: Mode,
    binary: PathBuf,
    paths: Paths,
    daemons: Vec<Daemon>,
    disk: bool,
    // After the daemons, which write there.
    _dir: TempDir,
}

/// Runs `story` with a gateway; when it fails, what the services logged is shown.
pub fn with_gate(options: Options, story: impl FnOnce(&mut Gate) -> Result<()>) -> Result<()> {
    with_gate_prepared(options, |_| Ok(()), |gate, ()| story(gate))
}

/// The same after something has been prepared, such as more of the configuration, before anything starts.
pub fn with_gate_prepared<T>(
    options: Options,
    prepare: impl FnOnce(&Gate) -> Result<T>,
    story: impl FnOnce(&mut Gate, T) -> Result<()>,
) -> Result<()> {
    let mut gate = Gate::new(options)?;
    let prepared = prepare(&gate)?;
    let result = gate
        .start()
        .and_then(|()| gate.add_location(options))
        .and_then(|()| story(&mut gate, prepared));
    if result.is_err() {
        gate.show_logs();
    }
    result
}

impl Gate {
    /// Builds the world and the configuration; starts nothing.
    pub fn new(options: Options) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let binary = PathBuf::from(
            std::env::var_os("PORTCULLIS_BIN")
                .context("PORTCULLIS_BIN names no binary: run this through `cargo xtask test`")?,
        );
        let dir = TempDir::with_prefix("portcullis-")?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let pins = PathBuf::from(format!("/sys/fs/bpf/e2e-{}-{number}", std::process::id()));
        let paths = Paths::new(dir.path(), pins);
        paths.prepare(options.shield, options.metrics)?;
        if let Some(size) = options.disk {
            run(
                Command::new("mount")
                    .args(["-t", "tmpfs", "-o", &format!("size={size}"), "e2e"])
                    .arg(paths.control_state()),
                "",
            )?;
        }
        let world = World::new()?;
        Ok(Self {
            world,
            mode: options.mode,
            binary,
            paths,
            daemons: Vec::new(),
            disk: options.disk.is_some(),
            _dir: dir,
        })
    }

    /// Starts what the mode calls for, up to the point where admin commands are answered; in [`Mode::Split`]
    /// control only.
    pub fn start(&mut self) -> Result<()> {
        match self.mode {
            Mode::Up => self.start_service("up"),
            Mode::Split => self.start_service("control"),
        }
    }

    /// Starts one service: `up`, `control` or `agent`.
    pub fn start_service(&mut self, service: &'static str) -> Result<()> {
        let mut command = self.world.gateway.command(&self.binary);
        command
            .args([service, "--log", "info,portcullis=debug"])
            .arg("--config")
            .arg(self.paths.configuration());
        self.daemons
            .push(Daemon::start(service, command, &self.paths.log(service))?);
        if service != "agent" {
            eventually("the admin socket answers", START, || {
                self.check_alive(service)?;
                Ok(self.admin(&["status"])?.code == 0)
            })?;
        }
        Ok(())
    }

    fn check_alive(&self, service: &str) -> Result<()> {
        match self
            .daemons
            .iter()
            .find(|daemon| daemon.service() == service)
        {
            Some(daemon) if daemon.is_running() => Ok(()),
            _ => bail!("`portcullis {service}` has ended: {}", self.log_of(service)),
        }
    }

    /// Adds the location `office`, and in [`Mode::Split`] enrols the gateway `gw1` and starts its agent; then waits
    /// until the gateway has applied everything.
    pub fn add_location(&mut self, options: Options) -> Result<()> {
        let mut args = vec!["location", "add", "office"];
        args.extend([
            "--pool",
            "10.77.0.0/24",
            "--pool",
            "fd77::/64",
            "--endpoint",
            "192.0.2.1:51820",
        ]);
        for route in options.routes {
            args.extend(["--route", route]);
        }
        args.extend(["--portal-port", "443"]);
        args.extend(["--mode", options.location]);
        args.extend(["--session-lifetime", options.lifetime]);
        if let Some(idle) = options.idle_timeout {
            args.extend(["--idle-timeout", idle]);
        }
        self.ask(&args)?;
        if self.mode == Mode::Split {
            self.enrol()?;
            self.start_service("agent")?;
        }
        self.wait_in_sync()
    }

    fn enrol(&self) -> Result<()> {
        let added = self.ask(&["gateway", "add", "gw1", "--location", "office"])?;
        let text = |field: &str| {
            added[field]
                .as_str()
                .with_context(|| format!("gateway add answers no {field}"))
        };
        let mut command = self.world.gateway.command(&self.binary);
        command
            .args(["gateway", "enroll", "--control", "https://127.0.0.1:7443"])
            .args([
                "--token",
                text("token")?,
                "--ca-fingerprint",
                text("ca_fingerprint")?,
            ])
            .arg("--config")
            .arg(self.paths.configuration());
        run(&mut command, "")?;
        Ok(())
    }

    /// Waits until the one gateway is connected and has applied the newest revision.
    pub fn wait_in_sync(&self) -> Result<()> {
        eventually("the gateway is connected and in sync", START, || {
            for daemon in &self.daemons {
                self.check_alive(daemon.service())?;
            }
            let gateways = self.ask(&["gateway", "list"])?;
            let gateway = &gateways["gateways"][0];
            Ok(gateway["connected"] == true
                && gateway["in_sync"] == true
                && gateway["public_key"].is_string())
        })?;
        Ok(())
    }

    /// Runs an admin command with `--output json`.
    pub fn admin(&self, args: &[&str]) -> Result<Output> {
        self.admin_with_input(args, "")
    }

    /// Runs an admin command that reads something.
    pub fn admin_with_input(&self, args: &[&str], input: &str) -> Result<Output> {
        let mut command = self.world.gateway.command(&self.binary);
        command
            .args(["--output", "json", "--socket"])
            .arg(self.paths.socket())
            .args(args);
        try_run(&mut command, input)
    }

    /// Starts an admin command that goes on, such as a trace.
    pub fn start_admin(&self, args: &[&str]) -> Result<Running> {
        let mut command = self.world.gateway.command(&self.binary);
        command
            .args(["--output", "json", "--socket"])
            .arg(self.paths.socket())
            .args(args);
        Running::start(&mut command)
    }

    /// Starts `portcullis connect` in `namespace`, with the user's password on stdin where it is wanted.
    pub fn start_connect(
        &self,
        namespace: &Namespace,
        user: &User,
        args: &[&str],
    ) -> Result<Running> {
        self.start_connect_of("client", namespace, user, args)
    }

    /// The same with the keys of this directory.
    pub fn start_connect_of(
        &self,
        state: &str,
        namespace: &Namespace,
        user: &User,
        args: &[&str],
    ) -> Result<Running> {
        let password = self.scratch().join("password");
        fs::write(&password, &user.password)?;
        let wanted = !args.contains(&"--sso");
        let mut command = namespace.command("sh");
        command
            .args(["-c", "exec \"$@\" <\"$0\""])
            .arg(&password)
            .arg(&self.binary)
            .args(["--output", "json", "connect"])
            .args(args)
            .args(wanted.then_some("--password-stdin"))
            .args(["--user", &user.name, "--state"])
            .arg(self.scratch().join(state));
        Running::start(&mut command)
    }

    /// Runs a command of the device where [`Gate::start_connect`] has started.
    pub fn client(&self, namespace: &Namespace, args: &[&str]) -> Result<Output> {
        let mut command = namespace.command(&self.binary);
        command
            .args(["--output", "json"])
            .args(args)
            .arg("--state")
            .arg(self.scratch().join("client"));
        try_run(&mut command, "")
    }

    /// Runs an admin command that prints text for people, without a terminal.
    pub fn read(&self, args: &[&str]) -> Result<String> {
        let mut command = self.world.gateway.command(&self.binary);
        command.arg("--socket").arg(self.paths.socket()).args(args);
        Ok(run(&mut command, "")?.stdout)
    }

    /// Runs an admin command on a terminal for so long, and returns what was drawn.
    pub fn on_terminal(&self, args: &[&str], period: Duration) -> Result<String> {
        let line = format!(
            "{} --socket {} {}",
            self.binary.display(),
            self.paths.socket().display(),
            args.join(" ")
        );
        // script(1) makes the terminal.
        let mut command = self.world.gateway.command("timeout");
        command
            .args(["--signal", "TERM", &period.as_secs_f32().to_string()])
            .args(["script", "--quiet", "--command", &line])
            .arg("/dev/null");
        Ok(try_run(&mut command, "")?.stdout)
    }

    /// Runs an admin command that has to succeed, and returns its answer.
    pub fn ask(&self, args: &[&str]) -> Result<Value> {
        let output = self.admin(args)?;
        ensure!(
            output.code == 0,
            "portcullis {} ended with {}: {}",
            args.join(" "),
            output.code,
            output.stderr
        );
        output.json()
    }

    /// Adds a user.
    pub fn add_user(&self, name: &str) -> Result<User> {
        // No password may contain its user's name.
        let password = format!("correct horse battery {}", name.len());
        let args = [
            "user",
            "add",
            name,
            "--password-stdin",
            "--totp-secret-only",
        ];
        let output = self.admin_with_input(&args, &format!("{password}\n"))?;
        ensure!(
            output.code == 0,
            "user add ended with {}: {}",
            output.code,
            output.stderr
        );
        let answer = output.json()?;
        let secret = answer["totp_secret"]
            .as_str()
            .context("user add answers no secret")?;
        Ok(User::new(name, &password, secret))
    }

    /// Adds a device of `user` and brings its tunnel up at the peer's place `index`.
    pub fn add_peer(&self, index: usize, user: &User) -> Result<Peer> {
        self.add_peer_with(index, user, &[], None)
    }

    /// The same with further arguments for `device add`, and a keepalive of the client's own choice.
    pub fn add_peer_with(
        &self,
        index: usize,
        user: &User,
        args: &[&str],
        keepalive: Option<u16>,
    ) -> Result<Peer> {
        let peer = self.add_silent_peer(index, user, args, keepalive)?;
        // The device is in the store; the gateway has it a moment later.
        eventually("the new device reaches the portal", START, || {
            peer.reaches_portal()
        })?;
        Ok(peer)
    }

    /// The same without waiting for the gateway to know it, which at a session-key location it does not.
    pub fn add_silent_peer(
        &self,
        index: usize,
        user: &User,
        args: &[&str],
        keepalive: Option<u16>,
    ) -> Result<Peer> {
        let name = format!("{}-device", user.name);
        let mut command = vec!["device", "add", &name, "--user", &user.name];
        command.extend(args);
        let added = self.ask(&command)?;
        let namespace = &self.world.peers[index];
        Peer::up(
            namespace,
            self.paths.root(),
            &self.binary,
            &added,
            keepalive,
        )
    }

    /// A user with a device at place `index`, logged in.
    pub fn add_logged_in(&self, index: usize, name: &str) -> Result<(User, Peer)> {
        let user = self.add_user(name)?;
        let peer = self.add_peer(index, &user)?;
        peer.login(&user)?;
        Ok((user, peer))
    }

    /// Kills a service with SIGKILL.
    pub fn kill(&mut self, service: &str) -> Result<()> {
        self.take(service)?.kill()
    }

    /// Kills every service with SIGKILL.
    pub fn kill_all(&mut self) -> Result<()> {
        self.daemons.drain(..).try_for_each(|daemon| daemon.kill())
    }

    /// Ends a service with SIGTERM and waits for it.
    pub fn terminate(&mut self, service: &str) -> Result<()> {
        self.take(service)?.terminate()
    }

    fn take(&mut self, service: &str) -> Result<Daemon> {
        let index = self
            .daemons
            .iter()
            .position(|daemon| daemon.service() == service);
        index
            .map(|index| self.daemons.remove(index))
            .with_context(|| format!("{service} is not running"))
    }

    /// Undoes everything with `agent teardown`.
    pub fn teardown(&self) -> Result<Output> {
        self.run_with_configuration(&["agent", "teardown"], &self.paths.configuration())
    }

    /// Runs a command that takes `--config`, to its end.
    pub fn run_with_configuration(&self, args: &[&str], configuration: &Path) -> Result<Output> {
        let mut command = self.world.gateway.command("timeout");
        command
            .arg("60")
            .arg(&self.binary)
            .args(["--output", "json"])
            .args(args)
            .arg("--config")
            .arg(configuration);
        try_run(&mut command, "")
    }

    /// The same through another program that starts it, such as setpriv(1).
    pub fn run_under(&self, wrapper: &[&str], args: &[&str]) -> Result<Output> {
        let (program, rest) = wrapper.split_first().context("no wrapper given")?;
        let mut command = self.world.gateway.command(program);
        command
            .args(rest)
            .arg(&self.binary)
            .args(["--output", "json"])
            .args(args);
        command.arg("--config").arg(self.paths.configuration());
        try_run(&mut command, "")
    }

    /// The configuration file in use.
    pub fn configuration(&self) -> PathBuf {
        self.paths.configuration()
    }

    /// Writes the configuration anew, with other options; services read it when they start.
    pub fn write_configuration(&self, options: Options) -> Result<()> {
        self.paths.prepare(options.shield, options.metrics)
    }

    /// Where programs, links and maps are pinned.
    pub fn pins(&self) -> &Path {
        self.paths.pins()
    }

    /// Where control keeps its database and master key.
    pub fn control_state(&self) -> PathBuf {
        self.paths.control_state()
    }

    /// A directory for a test's own files.
    pub fn scratch(&self) -> &Path {
        self.paths.root()
    }

    /// What `wg show wg0 …` prints on the gateway: the kernel's own account, apart from ours.
    pub fn wg(&self, args: &[&str]) -> Result<String> {
        Ok(run(
            self.world
                .gateway
                .command("wg")
                .args(["show", "wg0"])
                .args(args),
            "",
        )?
        .stdout)
    }

    /// As [`Gate::latest_handshake`], once nothing more is to come: where a machine is slow, the client has
    /// asked a second time before the first answer came, and gets two.
    pub fn settled_handshake(&self, public_key: &str) -> Result<u64> {
        // WireGuard asks again after five seconds.
        const SETTLED: Duration = Duration::from_secs(7);
        for _ in 0..10 {
            let handshake = self.latest_handshake(public_key)?;
            std::thread::sleep(SETTLED);
            if handshake > 0 && self.latest_handshake(public_key)? == handshake {
                return Ok(handshake);
            }
        }
        bail!("one handshake follows the other")
    }

    /// Whether the keys are still those of this handshake. WireGuard itself renews a session that is in
    /// use after two minutes, and not before.
    pub fn keeps_keys(&self, public_key: &str, handshake: u64) -> Result<bool> {
        const REKEY_AFTER_TIME: u64 = 120;
        let latest = self.latest_handshake(public_key)?;
        Ok(latest == handshake || latest >= handshake + REKEY_AFTER_TIME)
    }

    /// When the gateway last completed a handshake with this client, as a Unix time; 0 for never.
    pub fn latest_handshake(&self, public_key: &str) -> Result<u64> {
        let shown = self.wg(&["latest-handshakes"])?;
        let line = shown
            .lines()
            .find(|line| line.starts_with(public_key))
            .context("the kernel has no such peer")?;
        line.split_whitespace()
            .nth(1)
            .context("no time")?
            .parse()
            .context("not a time")
    }

    /// Messages that the gateway has reported under this reason and direction.
    pub fn counted(&self, reason: &str, direction: &str) -> Result<u64> {
        let gateways = self.ask(&["gateway", "list"])?;
        let reasons = gateways["gateways"][0]["reasons"]
            .as_array()
            .context("a gateway has reasons")?;
        Ok(reasons
            .iter()
            .find(|count| count["reason"] == reason && count["direction"] == direction)
            .and_then(|count| count["packets"].as_u64())
            .unwrap_or(0))
    }

    /// Whether the WireGuard interface exists.
    pub fn has_interface(&self) -> Result<bool> {
        self.world.gateway.has_link("wg0")
    }

    /// What the gateway has reported as dropped so far: direction, reason and how many packets.
    pub fn drops(&self) -> Result<Vec<(String, String, u64)>> {
        // The other counters' reasons to pass.
        const PASSED: [&str; 5] = ["session", "open_service", "open_rule", "answer", "captive"];
        let gateways = self.ask(&["gateway", "list"])?;
        let counters = gateways["gateways"][0]["reasons"]
            .as_array()
            .context("a gateway lists no reasons")?;
        Ok(counters
            .iter()
            .filter_map(|counter| {
                let text = |field: &str| counter[field].as_str().map(str::to_owned);
                Some((
                    text("direction")?,
                    text("reason")?,
                    counter["packets"].as_u64()?,
                ))
            })
            .filter(|(_, reason, packets)| !PASSED.contains(&reason.as_str()) && *packets > 0)
            .collect())
    }

    /// Waits until the gateway has reported a drop for this reason: reports are periodic.
    pub fn wait_for_drop(&self, reason: &str) -> Result<()> {
        let what = format!("drops are reported as {reason}");
        eventually(&what, START, || {
            Ok(self
                .drops()?
                .iter()
                .any(|(_, counted, _)| counted == reason))
        })?;
        Ok(())
    }

    /// What a service has logged.
    pub fn log_of(&self, service: &str) -> String {
        fs::read_to_string(self.paths.log(service)).unwrap_or_default()
    }

    /// Prints the end of each service's log.
    pub fn show_logs(&self) {
        const LINES: usize = 60;
        for service in ["up", "control", "agent"] {
            let log = self.log_of(service);
            if log.is_empty() {
                continue;
            }
            println!("--- log of {service}");
            let skipped = log.lines().count().saturating_sub(LINES);
            log.lines()
                .skip(skipped)
                .for_each(|line| println!("    {line}"));
        }
    }

    /// The gateway's network.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.world.gateway
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.daemons.clear();
        // Pins outlive processes and namespaces: that is what they are for.
        if self.paths.pins().exists() {
            fs::remove_dir_all(self.paths.pins()).ok();
        }
        if self.disk {
            run(Command::new("umount").arg(self.paths.control_state()), "").ok();
        }
    }
}
