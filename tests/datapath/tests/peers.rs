//! Which peer an address proves, and what becomes of flows when that changes.
#![allow(
    clippy::unwrap_used,
    reason = "a fixture that cannot be made is a failed test"
)]

use datapath_tests::{
    kernel::{BpfFs, Kernel},
    packets::{ip, number, udp},
    scene::{Gate as _, OTHER_KEY, PEER_KEY, PORTAL_PORT, State, V4, V6, services},
};
use gateway_common::{
    abi::Direction::{FromPeer, ToPeer},
    verdict::Reason,
};
use ipnet::IpNet;
use portcullis_agent::datapath::{Config, DatapathError, PeerView, Service, now};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn packet(from: &str, port: u16) -> Vec<u8> {
    ip(
        from.parse().unwrap(),
        V4.server,
        number::UDP,
        &udp(port, 53, 8),
    )
}

fn reply(to: &str, port: u16) -> Vec<u8> {
    ip(
        V4.server,
        to.parse().unwrap(),
        number::UDP,
        &udp(53, port, 8),
    )
}

fn live(gate: &mut Kernel, key: [u8; 32], addresses: &[IpNet]) {
    gate.datapath.upsert_peer(&key, addresses).unwrap();
    gate.datapath
        .set_session(&key, State::Live.session(now()).as_ref())
        .unwrap();
}

#[test]
fn inv1_a_removed_peer_is_unknown_and_its_slot_comes_back_locked() {
    let mut gate = Kernel::open().unwrap();
    gate.put(State::Live);
    assert_eq!(gate.run(FromPeer, &packet("10.77.0.2", 1)), Reason::Session);
    gate.datapath.remove_peer(&PEER_KEY).unwrap();
    gate.datapath.remove_peer(&PEER_KEY).unwrap();
    assert_eq!(gate.datapath.read_peer(&PEER_KEY).unwrap(), None);
    // The flow is still in its table, and void.
    assert_eq!(
        gate.run(FromPeer, &packet("10.77.0.2", 1)),
        Reason::UnknownPeer
    );
    assert_eq!(
        gate.run(ToPeer, &reply("10.77.0.2", 1)),
        Reason::UnknownPeer
    );
    // Another peer gets the slot and the address, and nothing of the session or the flow.
    gate.datapath
        .upsert_peer(&[3; 32], &[net("10.77.0.2/32")])
        .unwrap();
    assert_eq!(gate.run(FromPeer, &packet("10.77.0.2", 1)), Reason::Locked);
    assert_eq!(
        gate.run(ToPeer, &reply("10.77.0.2", 1)),
        Reason::Unsolicited
    );
}

#[test]
fn inv5_changed_addresses_keep_the_session_and_void_what_was_lost() {
    let mut gate = Kernel::open().unwrap();
    gate.put(State::Live);
    let session = gate.datapath.read_peer(&PEER_KEY).unwrap().unwrap().session;
    assert_eq!(gate.run(FromPeer, &packet("10.77.0.2", 1)), Reason::Session);
    let more = [net("10.77.0.20/32"), net("10.77.0.2/32"), V6.peer.into()];
    gate.datapath.upsert_peer(&PEER_KEY, &more).unwrap();
    // Gaining an address voids nothing.
    assert_eq!(gate.run(ToPeer, &reply("10.77.0.2", 1)), Reason::Session);
    assert_eq!(
        gate.run(FromPeer, &packet("10.77.0.20", 1)),
        Reason::Session
    );
    gate.datapath
        .upsert_peer(&PEER_KEY, &[net("10.77.0.20/32")])
        .unwrap();
    assert_eq!(
        gate.run(FromPeer, &packet("10.77.0.2", 1)),
        Reason::UnknownPeer
    );
    assert_eq!(
        gate.run(ToPeer, &reply("10.77.0.2", 1)),
        Reason::UnknownPeer
    );
    let peer = gate.datapath.read_peer(&PEER_KEY).unwrap().unwrap();
    assert_eq!(
        (peer.session.map(|s| s.tag), peer.addresses),
        (session.map(|s| s.tag), vec![net("10.77.0.20/32")])
    );
}

#[test]
fn inv1_an_address_taken_over_takes_no_flow_along() {
    let mut gate = Kernel::open().unwrap();
    gate.put(State::Live);
    assert_eq!(gate.run(FromPeer, &packet("10.77.0.2", 1)), Reason::Session);
    // Given a locked peer, when it gets the live one's address, then the live one's flow is not its.
    gate.datapath
        .upsert_peer(&[3; 32], &[net("10.77.0.2/32")])
        .unwrap();
    assert_eq!(gate.run(FromPeer, &packet("10.77.0.2", 1)), Reason::Locked);
    assert_eq!(
        gate.run(ToPeer, &reply("10.77.0.2", 1)),
        Reason::Unsolicited
    );
    let first = gate.datapath.read_peer(&PEER_KEY).unwrap().unwrap();
    assert_eq!(first.addresses, [V6.peer.into()]);
    // And back.
    gate.put(State::Live);
    assert_eq!(gate.run(FromPeer, &packet("10.77.0.2", 1)), Reason::Session);
    assert_eq!(
        gate.datapath
            .read_peer(&[3; 32])
            .unwrap()
            .unwrap()
            .addresses,
        []
    );
}

#[test]
fn inv1_wider_prefixes_prove_a_peer_where_no_longer_one_does() {
    let mut gate = Kernel::open().unwrap();
    live(&mut gate, [5; 32], &[net("10.80.0.0/16"), net("fd80::/64")]);
    assert_eq!(gate.run(FromPeer, &packet("10.80.1.1", 1)), Reason::Session);
    assert_eq!(gate.run(FromPeer, &packet("10.80.2.2", 1)), Reason::Session);
    let v6 = ip(
        "fd80::7".parse().unwrap(),
        V6.server,
        number::UDP,
        &udp(1, 53, 8),
    );
    assert_eq!(gate.run(FromPeer, &v6), Reason::Session);
    assert_eq!(
        gate.run(FromPeer, &packet("10.81.1.1", 1)),
        Reason::UnknownPeer
    );
    // A part of it becomes another, locked peer's: flows of that part are void.
    gate.datapath
        .upsert_peer(&[6; 32], &[net("10.80.1.1/32"), net("10.80.2.0/24")])
        .unwrap();
    assert_eq!(gate.run(FromPeer, &packet("10.80.1.1", 1)), Reason::Locked);
    assert_eq!(gate.run(FromPeer, &packet("10.80.2.2", 1)), Reason::Locked);
    assert_eq!(gate.run(FromPeer, &packet("10.80.3.3", 1)), Reason::Session);
    // Taken away again, they fall back.
    gate.datapath.remove_peer(&[6; 32]).unwrap();
    assert_eq!(gate.run(FromPeer, &packet("10.80.2.2", 1)), Reason::Session);
    gate.datapath
        .upsert_peer(&[5; 32], &[net("fd80::/64")])
        .unwrap();
    assert_eq!(
        gate.run(FromPeer, &packet("10.80.3.3", 1)),
        Reason::UnknownPeer
    );
    let held = gate.datapath.read_peer(&[5; 32]).unwrap().unwrap();
    assert_eq!(held.addresses, [net("fd80::/64")]);
}

#[test]
fn inv1_a_peer_routed_everything_may_not_send_from_where_nobody_is() {
    let mut gate = Kernel::open().unwrap();
    live(&mut gate, [5; 32], &[net("0.0.0.0/0"), net("::/0")]);
    for from in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"] {
        assert_eq!(
            gate.run(FromPeer, &packet(from, 1)),
            Reason::Martian,
            "{from}"
        );
    }
    for from in ["::1", "::", "ff02::1", "::ffff:10.0.0.1"] {
        let packet = ip(
            from.parse().unwrap(),
            V6.server,
            number::UDP,
            &udp(1, 53, 8),
        );
        assert_eq!(gate.run(FromPeer, &packet), Reason::Martian, "{from}");
    }
    // The other peer is itself all the same.
    gate.datapath.set_session(&OTHER_KEY, None).unwrap();
    assert_eq!(gate.run(FromPeer, &packet("10.77.0.3", 1)), Reason::Locked);
    assert_eq!(gate.run(FromPeer, &packet("8.8.8.8", 1)), Reason::Session);
}

#[test]
fn inv1_bad_peers_are_refused_and_leave_nothing() {
    let bpf_fs = BpfFs::mount().unwrap();
    let config = Config {
        max_peers: 2,
        ..bpf_fs.config()
    };
    let mut gate = Kernel::with(bpf_fs, config).unwrap();
    assert!(matches!(
        gate.datapath.upsert_peer(&[0; 32], &[]),
        Err(DatapathError::InvalidKey)
    ));
    let host_bits = gate.datapath.upsert_peer(&[1; 32], &[net("10.0.0.1/24")]);
    assert!(matches!(host_bits, Err(DatapathError::HostBits(_))));
    assert_eq!(gate.datapath.peers().unwrap(), []);
    gate.datapath
        .upsert_peer(&[1; 32], &[net("10.0.0.1/32")])
        .unwrap();
    gate.datapath
        .upsert_peer(&[2; 32], &[net("10.0.0.2/32")])
        .unwrap();
    assert!(matches!(
        gate.datapath.upsert_peer(&[3; 32], &[]),
        Err(DatapathError::Full(2))
    ));
    // Room is made by removal.
    gate.datapath.remove_peer(&[1; 32]).unwrap();
    gate.datapath
        .upsert_peer(&[3; 32], &[net("10.0.0.3/32")])
        .unwrap();
    assert_eq!(gate.datapath.peers().unwrap().len(), 2);
}

#[test]
fn inv1_a_service_withdrawn_is_cut_from_the_next_packet_on() {
    let mut gate = Kernel::open().unwrap();
    let portal = ip(
        V4.peer,
        V4.portal,
        number::TCP,
        &datapath_tests::packets::tcp(7, PORTAL_PORT, 2),
    );
    assert_eq!(gate.run(FromPeer, &portal), Reason::OpenService);
    gate.datapath.set_services(&[]).unwrap();
    assert_eq!(gate.run(FromPeer, &portal), Reason::Locked);
    let echo = Service {
        addr: V4.portal,
        protocol: 1,
        port: 0,
    };
    gate.datapath
        .set_services(&[services(), vec![echo]].concat())
        .unwrap();
    assert_eq!(gate.run(FromPeer, &portal), Reason::OpenService);
    let ping = ip(
        V4.peer,
        V4.portal,
        number::ICMP,
        &datapath_tests::packets::echo_request(V4.peer, 5),
    );
    assert_eq!(gate.run(FromPeer, &ping), Reason::OpenService);
}

#[test]
fn inv5_many_at_once_are_as_one_by_one() {
    let bpf_fs = BpfFs::mount().unwrap();
    let config = Config {
        max_peers: 4096,
        ..bpf_fs.config()
    };
    let mut gate = Kernel::with(bpf_fs, config).unwrap();
    let session = State::Live.session(now());
    let mut wanted: Vec<PeerView> = (1..3000_u32)
        .map(|i| {
            let mut key = [7; 32];
            key[..4].copy_from_slice(&i.to_be_bytes());
            let v4 = IpNet::from(std::net::IpAddr::from((0x0a50_0000 + i).to_be_bytes()));
            let session = session.filter(|_| i % 3 != 0);
            PeerView {
                key,
                addresses: vec![v4],
                session,
                policy: 0,
            }
        })
        .collect();
    gate.datapath.load_sessions(&wanted).unwrap();
    let mut held = gate.datapath.peers().unwrap();
    wanted.sort_by_key(|peer| peer.key);
    held.sort_by_key(|peer| peer.key);
    assert!(held == wanted);
    assert_eq!(gate.run(FromPeer, &packet("10.80.0.1", 1)), Reason::Session);
    assert_eq!(gate.run(FromPeer, &packet("10.80.0.3", 1)), Reason::Locked);
}
