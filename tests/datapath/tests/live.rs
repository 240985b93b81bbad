//! Answers on a live interface: a TUN device, which like WireGuard's has no link-layer header, in a
//! network namespace of its own. The kernel's own TCP and UDP judge what comes back.
#![allow(
    clippy::unwrap_used,
    reason = "a fixture that cannot be made is a failed test"
)]

use std::{
    env,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    process::{Child, Command},
    time::{Duration, Instant},
};

use datapath_tests::{
    kernel::Kernel,
    packets::{flag, icmp_number, ip, number, tcp, udp},
    scene::{Gate as _, State, V4, V6},
};
use gateway_common::{
    abi::Direction::{FromPeer, ToPeer},
    verdict::Reason,
};
use tun_rs::{DeviceBuilder, SyncDevice};

const AT_ONCE: Duration = Duration::from_millis(900);
/// Emulated machines take their time to start a program.
const PATIENCE: Duration = Duration::from_secs(20);
const EACCES: i32 = 13;
const EHOSTUNREACH: i32 = 113;

/// Runs the rest of the test in a network namespace of its own: this very test, once more, inside.
/// `true` inside.
fn in_a_namespace(test: &str) -> bool {
    const INSIDE: &str = "DATAPATH_TESTS_INSIDE";
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let status = Command::new("unshare")
        .args(["--net", "--"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "failed inside the namespace");
    false
}

fn run(program: &str, arguments: &str) {
    let status = Command::new(program)
        .args(arguments.split(' '))
        .status()
        .unwrap();
    assert!(status.success(), "{program} {arguments}");
}

/// The gateway's interface, attached, and its other side: what is written there comes from a peer.
struct Wire {
    gate: Kernel,
    device: SyncDevice,
}

impl Wire {
    fn new(state: State) -> Self {
        run("ip", "link set lo up");
        let device = DeviceBuilder::new()
            .name("gate0")
            .mtu(1420)
            .build_sync()
            .unwrap();
        device.set_nonblocking(true).unwrap();
        let mut gate = Kernel::open().unwrap();
        gate.datapath.set_answers(true).unwrap();
        gate.put(state);
        gate.datapath.attach(device.if_index().unwrap()).unwrap();
        run("ip", "address add 10.77.0.1/24 dev gate0");
        run("ip", "-6 address add fd77::1/64 dev gate0 nodad");
        run("ip", "link set gate0 up");
        Self { gate, device }
    }

    /// Sends as the peer does, and returns what comes back of this protocol.
    fn ask(&self, packet: &[u8], protocol: u8, from: IpAddr) -> Option<Vec<u8>> {
        self.device.send(packet).unwrap();
        received(&self.device, protocol, from, AT_ONCE)
    }
}

fn source_of(packet: &[u8]) -> IpAddr {
    match packet[0] >> 4 {
        4 => <[u8; 4]>::try_from(&packet[12..16]).unwrap().into(),
        _ => <[u8; 16]>::try_from(&packet[8..24]).unwrap().into(),
    }
}

#[test]
fn a_locked_peer_is_answered_through_the_interface() {
    if !in_a_namespace("a_locked_peer_is_answered_through_the_interface") {
        return;
    }
    let wire = Wire::new(State::Locked);
    for cast in [V4, V6] {
        let syn = ip(
            cast.peer,
            cast.server,
            number::TCP,
            &tcp(5000, 22, flag::SYN),
        );
        let answer = wire.ask(&syn, number::TCP, cast.server).expect("an RST");
        let header = if cast.peer.is_ipv4() { 20 } else { 40 };
        assert_eq!(answer[header + 13], flag::RST | flag::ACK);
        assert_eq!(source_of(&answer), cast.server);
        let datagram = ip(cast.peer, cast.server, number::UDP, &udp(5000, 53, 32));
        let answer = wire
            .ask(&datagram, icmp_number(cast.peer), cast.server)
            .expect("an ICMP error");
        assert_eq!(
            answer[header..header + 2],
            if cast.peer.is_ipv4() { [3, 13] } else { [1, 1] }
        );
        let silent = ip(
            cast.peer,
            cast.server,
            number::TCP,
            &tcp(5000, 22, flag::ACK),
        );
        assert_eq!(
            wire.ask(&silent, number::TCP, cast.server),
            None,
            "no opener"
        );
    }
    // Counted once for each: as dropped on its way in, as an answer on its way out.
    assert_eq!(wire.gate.counted(ToPeer, Reason::Answer).unwrap(), 4);
    assert_eq!(wire.gate.counted(FromPeer, Reason::Locked).unwrap(), 6);
}

/// How connecting ends, and how soon.
fn connect(to: SocketAddr) -> (ErrorKind, Duration) {
    let begun = Instant::now();
    let error =
        TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect_err("nobody listens");
    (error.kind(), begun.elapsed())
}

fn datagram(to: SocketAddr) -> io::Error {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(AT_ONCE)).unwrap();
    socket.send(b"anybody there?").unwrap();
    socket.recv(&mut [0; 16]).expect_err("nobody answers")
}

#[test]
fn who_may_not_reach_a_peer_fails_at_once() {
    if !in_a_namespace("who_may_not_reach_a_peer_fails_at_once") {
        return;
    }
    let wire = Wire::new(State::Live);
    for cast in [V4, V6] {
        let (kind, took) = connect((cast.peer, 22).into());
        assert!(
            kind == ErrorKind::ConnectionRefused && took < AT_ONCE,
            "{kind:?} after {took:?}"
        );
        let error = datagram((cast.peer, 53).into());
        let wanted = if cast.peer.is_ipv4() {
            EHOSTUNREACH
        } else {
            EACCES
        };
        assert_eq!(error.raw_os_error(), Some(wanted), "{error}");
    }
    assert_eq!(wire.gate.counted(FromPeer, Reason::Answer).unwrap(), 4);
    // The answers came in the peer's name, and are no activity or flow of its.
    assert_eq!(wire.gate.counted(FromPeer, Reason::Session).unwrap(), 0);
}

/// A host's packets come with their checksums outstanding, as from any card that computes them; the
/// answers leave by a device that has the kernel fill in what is outstanding. What arrives must sum up.
#[test]
fn an_answer_to_a_packet_with_an_outstanding_checksum_sums_up_once_it_is_filled_in() {
    if !in_a_namespace(
        "an_answer_to_a_packet_with_an_outstanding_checksum_sums_up_once_it_is_filled_in",
    ) {
        return;
    }
    let wire = Wire::new(State::Live);
    let back = DeviceBuilder::new().name("back0").build_sync().unwrap();
    back.set_nonblocking(true).unwrap();
    let host = Host::new();
    for cast in [V4, V6] {
        for (scheme, port, protocol) in [
            ("tcp", 22, number::TCP),
            ("udp", 53, icmp_number(cast.peer)),
        ] {
            let _sender = host.sends(scheme, cast.peer, port);
            let answer = received(&back, protocol, cast.peer, PATIENCE).expect("an answer");
            assert!(sums_up(&answer), "{scheme} {:02x?}", answer);
        }
    }
    assert!(wire.gate.counted(FromPeer, Reason::Answer).unwrap() >= 4);
}

/// A host behind the gateway, whose packets come in by a pair of virtual cards, and whose answers
/// go elsewhere.
struct Host(String);

impl Host {
    fn new() -> Self {
        let name = format!("datapath-host-{}", std::process::id());
        run("ip", &format!("netns add {name}"));
        run(
            "ip",
            &format!("link add lan0 type veth peer name eth0 netns {name}"),
        );
        for (family, own, gateway, host, prefix) in [
            ("-4", "10.9.0.254", "10.9.0.254", "10.9.0.1", 24),
            ("-6", "fd09::fe", "fd09::fe", "fd09::1", 64),
        ] {
            let nodad = if prefix == 64 { " nodad" } else { "" };
            run(
                "ip",
                &format!("{family} address add {own}/{prefix} dev lan0{nodad}"),
            );
            run(
                "ip",
                &format!("-n {name} {family} address add {host}/{prefix} dev eth0{nodad}"),
            );
            run("ip", "link set lan0 up");
            run("ip", &format!("-n {name} link set eth0 up"));
            run("ip", "link set back0 up");
            run(
                "ip",
                &format!("-n {name} {family} route add default via {gateway}"),
            );
            run("ip", &format!("{family} route add {host} dev back0"));
        }
        for (setting, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/lan0/rp_filter", "0"),
        ] {
            std::fs::write(format!("/proc/sys/{setting}"), value).unwrap();
        }
        Self(name)
    }

    /// Opens a connection, or sends a datagram. It hears no answer, and goes on trying until dropped.
    fn sends(&self, scheme: &str, to: IpAddr, port: u16) -> Sender {
        let script = format!("while true; do echo >/dev/{scheme}/{to}/{port}; sleep 0.2; done");
        let child = Command::new("ip")
            .args(["netns", "exec", &self.0, "bash", "-c", &script])
            .spawn()
            .unwrap();
        Sender(child)
    }
}

struct Sender(Child);

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.0])
            .status();
    }
}

fn received(device: &SyncDevice, protocol: u8, from: IpAddr, within: Duration) -> Option<Vec<u8>> {
    let begun = Instant::now();
    let mut buffer = [0; 2048];
    while begun.elapsed() < within {
        match device.recv(&mut buffer) {
            Ok(length) => {
                let packet = &buffer[..length];
                let found = if packet[0] >> 4 == 4 {
                    packet[9]
                } else {
                    packet[6]
                };
                if found == protocol && source_of(packet) == from {
                    return Some(packet.to_vec());
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(2))
            }
            Err(error) => panic!("{error}"),
        }
    }
    None
}

/// RFC 1071, over the pseudo-header too where the protocol has one.
fn sums_up(packet: &[u8]) -> bool {
    let four = packet[0] >> 4 == 4;
    let (addresses, header, protocol) = if four {
        (12..20, 20, packet[9])
    } else {
        (8..40, 40, packet[6])
    };
    let mut all = Vec::new();
    if !(four && protocol == number::ICMP) {
        all.extend_from_slice(&packet[addresses]);
        all.extend([0, protocol]);
        all.extend(u16::try_from(packet.len() - header).unwrap().to_be_bytes());
    }
    all.extend_from_slice(&packet[header..]);
    let sum: u64 = all
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    sum.is_multiple_of(0xffff)
}
