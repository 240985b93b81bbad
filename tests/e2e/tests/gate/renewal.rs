//! A session that is renewed under traffic, beside a tunnel of stock WireGuard whose pre-shared key wg(8) changes at
//! the same time: neither loses more than the other.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e_tests::flows::{ECHO_PORT, Echo, Probe, Transfer};
use e2e_tests::{Namespace, Running, eventually, run, with_gate_prepared};

use crate::connect::{Client, first_use, vault, with_public};
use crate::{INTERVAL, SOON, echo_v4};

/// WireGuard asks for other transport keys after 120 s of traffic (its paper, section 6.1).
const REKEYED: Duration = Duration::from_secs(180);
const PLAIN_PORT: u16 = 51_999;
const PLAIN_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 99, 0, 1));

fn wg(namespace: &Namespace, args: &[&str], input: &str) -> Result<String> {
    let mut wg = namespace.command("wg");
    let done = run(wg.args(args), input)?;
    Ok(done.stdout.trim().to_owned())
}

/// One end of a tunnel.
struct End<'a> {
    namespace: &'a Namespace,
    interface: &'static str,
    private: String,
    peer: String,
}

impl End<'_> {
    /// Another private key and this one again: WireGuard ends the keys of the last handshake, and the next packet
    /// waits for another one.
    fn expire(&self) -> Result<()> {
        let other = wg(self.namespace, &["genkey"], "")?;
        for key in [&other, &self.private] {
            let set = ["set", self.interface, "private-key", "/dev/stdin"];
            wg(self.namespace, &set, key)?;
        }
        Ok(())
    }

    /// In whole seconds, which is all that the kernel tells.
    fn handshake(&self) -> Result<u64> {
        let shown = wg(
            self.namespace,
            &["show", self.interface, "latest-handshakes"],
            "",
        )?;
        let time = shown.split_whitespace().nth(1).context("no peer")?;
        time.parse().context("no time")
    }

    fn set_preshared_key(&self, key: &str) -> Result<()> {
        let set = ["set", self.interface, "peer", &self.peer, "preshared-key"];
        wg(self.namespace, &[&set[..], &["/dev/stdin"]].concat(), key)?;
        Ok(())
    }

    fn preshared_key(&self) -> Result<String> {
        let shown = wg(
            self.namespace,
            &["show", self.interface, "preshared-keys"],
            "",
        )?;
        let key = shown.split_whitespace().nth(1);
        Ok(key.context("no peer")?.to_owned())
    }
}

/// A tunnel of nobody's but WireGuard's, from a client to the gateway's machine.
fn plain<'a>(gateway: &'a Namespace, client: &'a Namespace) -> Result<[End<'a>; 2]> {
    let private = [wg(gateway, &["genkey"], "")?, wg(client, &["genkey"], "")?];
    let public = [
        wg(gateway, &["pubkey"], &private[0])?,
        wg(client, &["pubkey"], &private[1])?,
    ];
    let [of_gateway, of_client] = private;
    let [gateway_key, client_key] = public;
    let ends = [
        End {
            namespace: gateway,
            interface: "plain",
            private: of_gateway,
            peer: client_key,
        },
        End {
            namespace: client,
            interface: "plain",
            private: of_client,
            peer: gateway_key,
        },
    ];
    let addresses = ["10.99.0.1/24", "10.99.0.2/24"];
    let endpoint = format!("192.0.2.1:{PLAIN_PORT}");
    for (end, (address, more)) in ends.iter().zip(
        addresses
            .iter()
            .zip([&["listen-port", "51999"][..], &[][..]]),
    ) {
        end.namespace.ip("link add plain type wireguard\n")?;
        let set = ["set", "plain", "private-key", "/dev/stdin"];
        wg(end.namespace, &[&set[..], more].concat(), &end.private)?;
        let mut peer = vec![
            "set",
            "plain",
            "peer",
            &end.peer,
            "allowed-ips",
            "10.99.0.0/24",
        ];
        if more.is_empty() {
            peer.extend(["endpoint", &endpoint]);
        }
        wg(end.namespace, &peer, "")?;
        let mut lines = String::new();
        writeln!(lines, "address add {address} dev plain\nlink set plain up")?;
        end.namespace.ip(&lines)?;
    }
    Ok(ends)
}

/// Numbered datagrams, pings and a TCP transfer.
struct Flows {
    probe: Probe,
    pings: Running,
    /// What ping has written: more than fits into a pipe.
    answers: PathBuf,
    transfer: Transfer,
}

impl Flows {
    fn start(namespace: &Namespace, to: SocketAddr, scratch: &Path) -> Result<Self> {
        let answers = scratch.join(format!("pings-{}", to.ip()));
        let mut ping = namespace.command("sh");
        ping.args(["-c", r#"exec ping -i 0.01 "$0" >"$1""#]);
        ping.arg(to.ip().to_string()).arg(&answers);
        let flows = Self {
            probe: Probe::start(namespace, to, INTERVAL)?,
            pings: Running::start(&mut ping)?,
            answers,
            transfer: Transfer::start(namespace, to)?,
        };
        eventually("it flows", SOON, || {
            Ok(flows.probe.answered() > 20 && flows.transfer.received() > 0)
        })?;
        Ok(flows)
    }

    /// How many datagrams and pings were lost.
    fn finish(self) -> Result<(usize, usize)> {
        let before = self.transfer.received();
        eventually("the transfer goes on", SOON, || {
            Ok(self.transfer.received() > before)
        })?;
        let lost = self.probe.finish()?.lost();
        self.pings.interrupt()?;
        let pings = std::fs::read_to_string(self.answers)?;
        // Those that were still under way at the end are none of them.
        let answered: Vec<usize> = pings.lines().filter_map(sequence).collect();
        let last = answered.iter().copied().max().context("no ping")?;
        Ok((lost, last - answered.len()))
    }
}

/// From `64 bytes from 10.0.0.1: icmp_seq=7 ttl=63 time=1 ms`, which begins with 1.
fn sequence(line: &str) -> Option<usize> {
    let (_, number) = line.split_once("icmp_seq=")?;
    let (number, rest) = number.split_once(' ')?;
    let answer = rest.contains("time=") && !rest.contains("DUP");
    answer.then(|| number.parse().ok()).flatten()
}

fn renew(client: &Client<'_>, command: &str) -> Result<e2e_tests::Output> {
    client.start_with(&["--renew"], command)?.finish()
}

#[test]
fn a_session_is_renewed_under_traffic_and_no_packet_is_lost() -> Result<()> {
    with_gate_prepared(vault(), with_public, |gate, ()| {
        let world = &gate.world;
        let _echoes = [
            Echo::start(&world.server, ECHO_PORT)?,
            Echo::start(&world.gateway, ECHO_PORT)?,
        ];
        let client = first_use(gate)?;
        let nothing = renew(&client, "echo 000000")?;
        ensure!(nothing.code == 1, "nothing is up: {nothing:?}");
        let running = client.connect()?;
        let key_file = gate.scratch().join("client/office.key");
        let ours = End {
            namespace: &world.peers[0],
            interface: "office",
            private: std::fs::read_to_string(key_file)?.trim().to_owned(),
            peer: wg(&world.peers[0], &["show", "office", "peers"], "")?,
        };
        let stock = plain(&world.gateway, &world.peers[1])?;
        let before = (ours.preshared_key()?, deadline(&client)?);

        let flows = Flows::start(ours.namespace, echo_v4(), gate.scratch())?;
        let beside = Flows::start(
            stock[1].namespace,
            (PLAIN_V4, ECHO_PORT).into(),
            gate.scratch(),
        )?;
        let refused = renew(&client, &format!("echo {}", client.user.wrong_code()?))?;
        ensure!(refused.code == 4, "a wrong code: {refused:?}");
        ensure!(ours.preshared_key()? == before.0);

        let renewed = renew(&client, &client.user.authenticator())?;
        ensure!(renewed.code == 0, "{renewed:?}");
        ensure!(renewed.json()?["event"] == "renewed", "{renewed:?}");
        let key = ours.preshared_key()?;
        ensure!(key != before.0 && gate.wg(&["preshared-keys"])?.contains(&key));
        let other = wg(&world.gateway, &["genpsk"], "")?;
        stock
            .iter()
            .try_for_each(|end| end.set_preshared_key(&other))?;
        // And the handshakes to which these keys belong, each when WireGuard itself thinks it time.
        let last = [ours.handshake()?, stock[1].handshake()?];
        eventually("other handshakes", REKEYED, || {
            Ok(ours.handshake()? > last[0] && stock[1].handshake()? > last[1])
        })?;
        let (lost, beside) = (flows.finish()?, beside.finish()?);
        println!("lost of datagrams and pings: {lost:?}, by stock WireGuard {beside:?}");
        ensure!(
            lost.0 <= beside.0 && lost.1 <= beside.1,
            "lost {lost:?}, and stock WireGuard {beside:?}"
        );

        // The one that holds it hears of it, and the former key is good for nothing.
        eventually("a later deadline", SOON, || {
            Ok(deadline(&client)? > before.1)
        })?;
        ours.set_preshared_key(&before.0)?;
        let last = ours.handshake()?;
        ours.expire()?;
        for _ in 0..3 {
            // Each makes the client ask, at most every five seconds.
            ensure!(!client.pings()?, "with the former key");
        }
        ensure!(ours.handshake()? == last);
        ours.set_preshared_key(&key)?;
        eventually("with its own", SOON, || client.pings())?;

        let ended = running.interrupt()?;
        ensure!(ended.code == 0, "{ended:?}");
        let none = client.show("connection")?;
        ensure!(none.code == 7, "{none:?}");
        let listed = client.show("locations")?.json()?;
        ensure!(
            listed[0]["location"] == "office" && listed[0]["connected"] == false,
            "{listed}"
        );
        Ok(())
    })
}

/// As another command of the same device tells it.
fn deadline(client: &Client<'_>) -> Result<String> {
    let shown = client.show("connection")?;
    ensure!(shown.code == 0, "{shown:?}");
    let shown = shown.json()?;
    let connection = &shown[0];
    ensure!(
        connection["interface"] == "office" && connection["traffic"]["handshake"].is_string(),
        "{shown}"
    );
    let deadline = connection["session"]["deadline"].as_str();
    Ok(deadline.context("a deadline")?.to_owned())
}
