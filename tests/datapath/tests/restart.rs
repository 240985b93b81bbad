//! The death and return of the agent: pins, adoption, attachment.
#![allow(
    clippy::unwrap_used,
    reason = "a fixture that cannot be made is a failed test"
)]

use std::{fs, path::PathBuf};

use datapath_tests::{
    kernel::{BpfFs, Kernel, Tunnel},
    packets::{ip, number, udp},
    scene::{Gate as _, OTHER_KEY, PEER_KEY, State, V4},
};
use gateway_common::{
    abi::Direction::{FromPeer, ToPeer},
    verdict::Reason,
};
use portcullis_agent::datapath::{Attached, Config, Datapath, DatapathError};

fn ask() -> Vec<u8> {
    ip(V4.peer, V4.server, number::UDP, &udp(9000, 53, 8))
}

fn answer() -> Vec<u8> {
    ip(V4.server, V4.peer, number::UDP, &udp(53, 9000, 8))
}

/// The one directory of pins below the root.
fn pins(config: &Config) -> PathBuf {
    let version = config
        .pin_root
        .join(format!("v{}", gateway_common::abi::ABI_VERSION));
    let mut all = fs::read_dir(version).unwrap();
    all.next().expect("pins of one interface").unwrap().path()
}

#[test]
fn inv1_a_restarted_agent_finds_peers_sessions_and_flows_as_they_were() {
    let mut gate = Kernel::open().unwrap();
    assert!(!gate.datapath.adopted());
    gate.put(State::Live);
    gate.datapath
        .upsert_peer(&[5; 32], &["10.80.0.0/16".parse().unwrap()])
        .unwrap();
    assert_eq!(gate.run(FromPeer, &ask()), Reason::Session);
    let mut before = gate.datapath.peers().unwrap();

    let mut gate = gate.restart().unwrap();

    assert!(gate.datapath.adopted());
    let mut after = gate.datapath.peers().unwrap();
    before.sort_by_key(|peer| peer.key);
    after.sort_by_key(|peer| peer.key);
    assert_eq!(after, before);
    // The reply has only the flow to go by.
    assert_eq!(gate.run(ToPeer, &answer()), Reason::Session);
    assert_eq!(gate.counted(FromPeer, Reason::Session).unwrap(), 1);
    // And what is held can be changed.
    gate.datapath.set_session(&PEER_KEY, None).unwrap();
    assert_eq!(gate.run(ToPeer, &answer()), Reason::Locked);
    gate.datapath.remove_peer(&OTHER_KEY).unwrap();
    gate.datapath
        .upsert_peer(&[6; 32], &[V4.other.into()])
        .unwrap();
    assert_eq!(
        gate.datapath.read_peer(&[6; 32]).unwrap().unwrap().session,
        None
    );
}

#[test]
fn inv7_maps_of_another_shape_are_refused_by_name() {
    let gate = Kernel::open().unwrap();
    let config = Config {
        max_flows: 2048,
        ..gate.config.clone()
    };
    let refused = Datapath::open(&config).unwrap_err();
    assert!(
        matches!(
            refused,
            DatapathError::PinnedMapOfAnotherShape {
                map: "FLOWS_V4",
                ..
            }
        ),
        "{refused}"
    );
    let config = Config {
        max_peers: 65,
        ..gate.config.clone()
    };
    let refused = Datapath::open(&config).unwrap_err();
    assert!(
        matches!(
            refused,
            DatapathError::PinnedMapOfAnotherShape { map: "PEERS", .. }
        ),
        "{refused}"
    );
    // And left as they are.
    assert!(gate.restart().unwrap().datapath.adopted());
}

#[test]
fn inv1_a_missing_pin_is_an_error_and_a_half_done_start_is_none() {
    let gate = Kernel::open().unwrap();
    let config = gate.config.clone();
    let pins = pins(&config);
    fs::remove_file(pins.join("PEERS")).unwrap();
    let refused = Datapath::open(&config).unwrap_err();
    let missing = matches!(
        refused,
        DatapathError::PinnedMapMissing { map: "PEERS", .. }
    );
    assert!(missing, "{refused}");
    Datapath::teardown(&config).unwrap();
    assert!(!pins.exists());
    // A start that died before it was through left a directory beside.
    let mut half = pins.clone().into_os_string();
    half.push("%new");
    fs::create_dir_all(&half).unwrap();
    assert!(!Datapath::open(&config).unwrap().adopted());
    assert!(pins.exists() && !PathBuf::from(half).exists());
}

#[test]
fn inv1_pins_belong_on_a_bpf_file_system() {
    let elsewhere = tempfile::tempdir().unwrap();
    let config = Config {
        interface: "wg0".into(),
        pin_root: elsewhere.path().into(),
        max_peers: 8,
        max_flows: 8,
    };
    let refused = Datapath::open(&config).unwrap_err();
    assert!(
        matches!(refused, DatapathError::PinDirectory { .. }),
        "{refused}"
    );
}

/// A gate pinned on a file system of its own, for an interface that is there.
fn attached(name: &str) -> (BpfFs, Tunnel, Config) {
    let bpf_fs = BpfFs::mount().unwrap();
    let tunnel = Tunnel::new(name).unwrap();
    let config = Config {
        interface: name.into(),
        ..bpf_fs.config()
    };
    (bpf_fs, tunnel, config)
}

#[test]
fn inv1_attachment_outlives_the_agent_and_is_replaced_in_place() {
    let (_bpf_fs, tunnel, config) = attached("dpt0");
    let index = tunnel.index().unwrap();
    let mut first = Datapath::open(&config).unwrap();
    assert!(!first.is_attached(index).unwrap());
    assert_eq!(first.attach(index).unwrap(), Attached::Afresh);
    assert!(first.is_attached(index).unwrap());
    assert_eq!(first.attach(index).unwrap(), Attached::Replaced);
    drop(first);

    let mut second = Datapath::open(&config).unwrap();
    // The first's programs are on the hooks, the second's are not yet.
    assert!(!second.is_attached(index).unwrap());
    assert_eq!(second.attach(index).unwrap(), Attached::Replaced);
    assert!(second.is_attached(index).unwrap());

    drop(second);
    Datapath::teardown(&config).unwrap();
    let third = Datapath::open(&config).unwrap();
    assert!(!third.adopted() && !third.is_attached(index).unwrap());
}

#[test]
fn inv1_a_rebuilt_interface_is_attached_to_afresh() {
    let (_bpf_fs, tunnel, config) = attached("dpt1");
    let mut datapath = Datapath::open(&config).unwrap();
    let old = tunnel.index().unwrap();
    datapath.attach(old).unwrap();
    drop(tunnel);
    assert!(!datapath.is_attached(old).unwrap());
    assert!(datapath.attach(old).is_err(), "there is no such interface");
    let tunnel = Tunnel::new("dpt1").unwrap();
    let new = tunnel.index().unwrap();
    assert_eq!(datapath.attach(new).unwrap(), Attached::Afresh);
    assert!(datapath.is_attached(new).unwrap());
}

#[test]
fn inv1_teardown_of_what_is_not_there_is_no_error() {
    let bpf_fs = BpfFs::mount().unwrap();
    Datapath::teardown(&Config {
        interface: "dpt9".into(),
        ..bpf_fs.config()
    })
    .unwrap();
}
