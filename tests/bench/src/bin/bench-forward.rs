//! Measures what forwarding costs: TCP with segmentation offload from a peer to a server, through a
//! gateway whose interface towards the peer has the programs on it; beside the same without them, with
//! nftables, and with an empty generic XDP program. Three network namespaces on veth pairs.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{Xdp, XdpMode};
use datapath_tests::bench::{Bench, Family, LIVE, SESSIONS};
use datapath_tests::figure::median;
use datapath_tests::kernel::BpfFs;
use gate_bench::{Figure, Host, in_own_namespace, run, with_policy, write_sysctl};
use gateway_common::shield::names;
use portcullis_agent::datapath::Shield;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType};

const ROUNDS: usize = 25;
const SECONDS: &str = "1";
/// A port that the policy permits.
const PORT: &str = "22";
const PLAIN: &str = "plain";
const GATED: &str = "gated";
const INSIDE: &str = "inside";

fn main() -> Result<()> {
    if !in_own_namespace()? {
        return Ok(());
    }
    let lab = Lab::new()?;
    eprintln!("loading a million sessions");
    let mut bench = with_policy(Bench::load_on_ethernet(262_144)?)?;
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    bench.datapath().attach(name_to_index(&socket, GATED)?)?;
    let nftables = Nftables::load()?;
    let bpf_fs = BpfFs::mount()?;
    let mut shield = Shield::open(&bpf_fs.config())?;
    let xdp: &mut Xdp = shield
        .object()
        .program_mut(names::EMPTY)
        .context("no empty program")?
        .try_into()?;
    xdp.load()?;

    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        let none = lab.throughput(&lab.plain)?;
        let gate = lab.throughput(&lab.gated)?;
        nftables.filter()?;
        let nft = lab.throughput(&lab.plain)?;
        nftables.pass()?;
        let links = [PLAIN, INSIDE].map(|interface| xdp.attach(interface, XdpMode::Skb));
        let generic_xdp = lab.throughput(&lab.plain)?;
        for link in links {
            xdp.detach(link?)?;
        }
        eprintln!(
            "round {round} of {ROUNDS}: {none:.1} Gbit/s, gate {gate:.1}, nftables {nft:.1}, generic XDP {generic_xdp:.1}"
        );
        rounds.push([none, gate, nft, generic_xdp]);
    }
    let ratio = |way: usize| median(rounds.iter().map(|round| round[way] / round[0]).collect());
    let speed = |way: usize| median(rounds.iter().map(|round| round[way]).collect());
    Figure::new("forward/gbps", "Gbit/s", speed(1))
        .beside(speed(0))
        .print()?;
    for (way, name) in [
        (1, "forward/ratio"),
        (2, "forward/nft_ratio"),
        (3, "forward/generic_xdp_ratio"),
    ] {
        Figure::new(name, "ratio", ratio(way)).beside(1.0).print()?;
    }
    Ok(())
}

/// This namespace is the gateway's. A peer behind each of two interfaces, a server behind a third.
struct Lab {
    plain: Host,
    gated: Host,
    server: Host,
    listening: Child,
}

impl Lab {
    fn new() -> Result<Self> {
        write_sysctl("net/ipv4/ip_forward", "1")?;
        let (plain, gated, server) = (Host::new()?, Host::new()?, Host::new()?);
        let peers = [Family::V4.peer(LIVE), Family::V4.peer(LIVE + 1)];
        connect(1, PLAIN, &plain, &peers[..1], &[Family::V4.server()])?;
        connect(2, GATED, &gated, &peers[1..], &[Family::V4.server()])?;
        connect(3, INSIDE, &server, &[Family::V4.server()], &peers)?;
        let listening = server
            .command("iperf3")
            .args(["--server", "--port", PORT])
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run iperf3")?;
        let lab = Self {
            plain,
            gated,
            server,
            listening,
        };
        for _ in 0..50 {
            let ready = lab
                .server
                .command("ss")
                .args(["-Hltn", "sport", "=", PORT])
                .output()?;
            if !ready.stdout.is_empty() {
                return Ok(lab);
            }
            thread::sleep(Duration::from_millis(100));
        }
        anyhow::bail!("iperf3 does not listen")
    }

    /// Gbit/s that reach the server from this peer.
    fn throughput(&self, peer: &Host) -> Result<f64> {
        let server = Family::V4.server().to_string();
        let output = peer
            .command("iperf3")
            .args(["--client", &server, "--port", PORT, "--time", SECONDS])
            .arg("--json")
            .output()?;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let bits = report
            .pointer("/end/sum_received/bits_per_second")
            .and_then(serde_json::Value::as_f64)
            .with_context(|| format!("iperf3 failed: {report}"))?;
        Ok(bits / 1e9)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.listening.kill();
        let _ = self.listening.wait();
    }
}

/// A veth pair between this namespace and a host's, which has one address and reaches others. ARP does
/// not pass the gate: neighbours are told.
fn connect(
    number: u8,
    interface: &str,
    host: &Host,
    own: &[IpAddr],
    others: &[IpAddr],
) -> Result<()> {
    let (here, there) = (
        format!("02:00:00:00:{number:02x}:01"),
        format!("02:00:00:00:{number:02x}:02"),
    );
    let pid = host.pid().to_string();
    let words = format!(
        "link add {interface} address {here} type veth peer name uplink address {there} netns {pid}"
    );
    ip(&words)?;
    ip(&format!("link set {interface} up"))?;
    let in_host = |words: &str| host.run("ip", &words.split(' ').collect::<Vec<_>>());
    in_host("link set uplink up")?;
    for address in own {
        in_host(&format!("address add {address} dev uplink"))?;
        ip(&format!("route add {address} dev {interface}"))?;
        ip(&format!(
            "neighbour add {address} lladdr {there} dev {interface}"
        ))?;
    }
    for address in others {
        in_host(&format!("route add {address} dev uplink"))?;
        in_host(&format!("neighbour add {address} lladdr {here} dev uplink"))?;
    }
    Ok(())
}

fn ip(words: &str) -> Result<()> {
    run("ip", &words.split(' ').collect::<Vec<_>>())
}

/// The same sessions in a set with timeouts.
struct Nftables;

impl Nftables {
    fn load() -> Result<Self> {
        eprintln!("loading a million sessions into nftables");
        let mut text = String::from(
            "table inet bench { set live { type ipv4_addr; flags timeout; timeout 1d; size 2097152; }; }\n",
        );
        let peers: Vec<u32> = (0..SESSIONS).collect();
        for some in peers.chunks(10_000) {
            let some: Vec<_> = some
                .iter()
                .map(|peer| Family::V4.peer(*peer).to_string())
                .collect();
            text += &format!("add element inet bench live {{ {} }}\n", some.join(","));
        }
        nft(&text)?;
        Ok(Self)
    }

    fn filter(&self) -> Result<()> {
        nft(
            "add chain inet bench forward { type filter hook forward priority 0; policy drop; }
             add rule inet bench forward ip saddr @live accept
             add rule inet bench forward ip daddr @live accept",
        )
    }

    fn pass(&self) -> Result<()> {
        nft("flush chain inet bench forward; delete chain inet bench forward")
    }
}

fn nft(text: &str) -> Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot run nft")?;
    nft.stdin
        .take()
        .context("no standard input")?
        .write_all(text.as_bytes())?;
    ensure!(nft.wait()?.success(), "nft failed");
    Ok(())
}
