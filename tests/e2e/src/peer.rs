//! A stock WireGuard client: the kernel's own, configured with wg(8) and ip(8) from the file that
//! `portcullis device add` prints.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::command::{Output, run, try_run};
use crate::flows;
use crate::namespace::Namespace;
use crate::user::User;

/// A device on its network, with the tunnel up.
#[derive(Debug)]
pub struct Peer {
    /// The device's name.
    pub device: String,
    /// The client's public key, base64.
    pub public_key: String,
    /// Its address in the tunnel.
    pub v4: IpAddr,
    /// Its other address in the tunnel.
    pub v6: IpAddr,
    /// Where it is.
    pub namespace: Arc<Namespace>,
    /// Where it logs in.
    pub portal_url: String,
    /// What the portal's certificate must descend from.
    pub ca_fingerprint: String,
    binary: PathBuf,
}

impl Peer {
    /// Brings the tunnel up in `namespace` as `added`, the answer of `device add`, says.
    pub(crate) fn up(
        namespace: &Arc<Namespace>,
        dir: &Path,
        binary: &Path,
        added: &Value,
        keepalive: Option<u16>,
    ) -> Result<Self> {
        let text = |field: &str| {
            added[field]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("device add answers no {field}"))
        };
        let device = added["device"]["name"]
            .as_str()
            .context("device add answers no name")?
            .to_owned();
        let mut configuration = Configuration::parse(&text("config")?);
        if let Some(seconds) = keepalive {
            configuration.set_keepalive(seconds);
        }
        let address = |v6: bool| {
            let found = configuration
                .addresses
                .iter()
                .filter_map(|cidr| cidr.split('/').next()?.parse::<IpAddr>().ok());
            found
                .into_iter()
                .find(|address| address.is_ipv6() == v6)
                .context("the device lacks an address")
        };
        let (v4, v6) = (address(false)?, address(true)?);

        let file = dir.join(format!("{device}.conf"));
        std::fs::write(&file, &configuration.kernel)?;
        namespace.ip("link add wg0 type wireguard\n")?;
        run(
            namespace.command("wg").args(["setconf", "wg0"]).arg(&file),
            "",
        )?;
        namespace.ip(&configuration.batch())?;
        let public_key = run(
            namespace.command("wg").args(["show", "wg0", "public-key"]),
            "",
        )?
        .stdout;
        Ok(Self {
            device,
            public_key: public_key.trim().to_owned(),
            v4,
            v6,
            namespace: Arc::clone(namespace),
            portal_url: text("portal_url")?,
            ca_fingerprint: text("ca_fingerprint")?,
            binary: binary.to_owned(),
        })
    }

    /// Logs in as `user` with a fresh code; fails unless that succeeds.
    pub fn login(&self, user: &User) -> Result<Value> {
        let output = self.try_login(
            user,
            &user.password,
            &["--totp-command", &user.authenticator()],
        )?;
        if output.code != 0 {
            bail!(
                "the login of {} ended with {}: {}{}",
                user.name,
                output.code,
                output.stdout,
                output.stderr
            );
        }
        output.json()
    }

    /// Tries to log in with this password and these further arguments.
    pub fn try_login(&self, user: &User, password: &str, second_factor: &[&str]) -> Result<Output> {
        let mut command = self.namespace.command(&self.binary);
        command
            .args(["--output", "json", "login", "--url", &self.portal_url])
            .args(["--ca-fingerprint", &self.ca_fingerprint])
            .args(["--username", &user.name, "--password-stdin"])
            .args(second_factor);
        try_run(&mut command, &format!("{password}\n"))
    }

    /// Runs another command of the user's side, for example `logout`.
    pub fn portcullis(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.namespace.command(&self.binary);
        command.args(["--output", "json"]).args(args).args([
            "--url",
            &self.portal_url,
            "--ca-fingerprint",
            &self.ca_fingerprint,
        ]);
        try_run(&mut command, "")
    }

    /// Whether one of two pings of `to` is answered.
    pub fn pings(&self, to: IpAddr) -> Result<bool> {
        flows::ping(&self.namespace, to)
    }

    /// Whether the portal's port accepts a connection.
    pub fn reaches_portal(&self) -> Result<bool> {
        let authority = self
            .portal_url
            .trim_start_matches("https://")
            .trim_end_matches('/');
        let address = authority
            .parse()
            .or_else(|_| {
                authority
                    .trim_matches(['[', ']'])
                    .parse()
                    .map(|ip: IpAddr| (ip, 443).into())
            })
            .with_context(|| format!("the portal's URL {} is no address", self.portal_url))?;
        flows::connects(&self.namespace, address)
    }

    /// When the client last completed a handshake, as a Unix time; 0 for never.
    pub fn latest_handshake(&self) -> Result<u64> {
        let shown = run(
            self.namespace
                .command("wg")
                .args(["show", "wg0", "latest-handshakes"]),
            "",
        )?
        .stdout;
        shown
            .split_whitespace()
            .nth(1)
            .context("the client has no peer")?
            .parse()
            .context("no time")
    }

    /// Gives the client this pre-shared key, base64, for its gateway.
    pub fn use_preshared_key(&self, key: &str) -> Result<()> {
        let gateway = run(
            self.namespace.command("wg").args(["show", "wg0", "peers"]),
            "",
        )?
        .stdout;
        let mut command = self.namespace.command("wg");
        command.args(["set", "wg0", "peer", gateway.trim()]);
        run(command.args(["preshared-key", "/dev/stdin"]), key)?;
        Ok(())
    }

    /// Takes the tunnel down and up again, as a user would whose gateway does not answer. That drops the client's
    /// WireGuard session; the next packet starts a handshake.
    pub fn reconnect(&self) -> Result<()> {
        self.namespace.ip("link set wg0 down\nlink set wg0 up\n")?;
        // Addresses of version 6 and all routes went down with the link.
        let allowed = run(
            self.namespace
                .command("wg")
                .args(["show", "wg0", "allowed-ips"]),
            "",
        )?
        .stdout;
        let mut batch = format!("address replace {}/128 dev wg0 nodad\n", self.v6);
        for cidr in allowed.split_whitespace().skip(1) {
            writeln!(batch, "route replace {cidr} dev wg0")?;
        }
        self.namespace.ip(&batch)
    }
}

/// The parts of a wg-quick(8) file.
struct Configuration {
    /// What `wg setconf` understands.
    kernel: String,
    addresses: Vec<String>,
    mtu: Option<String>,
    allowed: Vec<String>,
}

impl Configuration {
    fn parse(text: &str) -> Self {
        let mut parsed = Self {
            kernel: String::new(),
            addresses: Vec::new(),
            mtu: None,
            allowed: Vec::new(),
        };
        for line in text.lines() {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            let list = || {
                value
                    .split(',')
                    .map(|item| item.trim().to_owned())
                    .filter(|item| !item.is_empty())
            };
            match key.trim().to_ascii_lowercase().as_str() {
                "address" => parsed.addresses.extend(list()),
                "mtu" => parsed.mtu = Some(value.trim().to_owned()),
                "dns" => {}
                other => {
                    if other == "allowedips" {
                        parsed.allowed.extend(list());
                    }
                    parsed.kernel.push_str(line);
                    parsed.kernel.push('\n');
                }
            }
        }
        parsed
    }

    fn set_keepalive(&mut self, seconds: u16) {
        let others = self
            .kernel
            .lines()
            .filter(|line| !line.to_ascii_lowercase().starts_with("persistentkeepalive"));
        let mut kernel: String = others.flat_map(|line| [line, "\n"]).collect();
        // The file's last section is the gateway's.
        kernel.push_str(&format!("PersistentKeepalive = {seconds}\n"));
        self.kernel = kernel;
    }

    /// Lines of ip(8) that do what wg-quick would.
    fn batch(&self) -> String {
        let mut batch = String::new();
        for address in &self.addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            batch.push_str(&format!("address add {address} dev wg0{nodad}\n"));
        }
        let mtu = self
            .mtu
            .as_deref()
            .map(|mtu| format!(" mtu {mtu}"))
            .unwrap_or_default();
        batch.push_str(&format!("link set wg0{mtu} up\n"));
        for cidr in &self.allowed {
            batch.push_str(&format!("route replace {cidr} dev wg0\n"));
        }
        batch
    }
}
