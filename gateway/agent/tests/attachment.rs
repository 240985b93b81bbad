//! Which interface the programs are on: the right one, first of all, and no other one let go.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use gateway_common::abi::{PeerState, names};
use portcullis_agent::datapath::{Attached, Config, Datapath, DatapathError};
use rustix::thread::LinkNameSpaceType;
use support::kernel::Sandbox;

/// For what is a matter of milliseconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

fn config(sandbox: &Sandbox) -> Config {
    Config {
        interface: sandbox.interface.clone(),
        pin_root: sandbox.pin_root(),
        max_peers: 64,
        max_flows: 64,
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status();
    assert!(status.expect("installed").success(), "ip {arguments:?}");
}

fn attached(interface: &str) -> usize {
    let (_, programs) =
        SchedClassifier::query_tcx(interface, TcAttachType::Ingress).expect("asked");
    programs.len()
}

#[test]
fn inv1_a_renamed_interface_stays_enforced_and_its_successor_is_refused() {
    let sandbox = Sandbox::new();
    let config = config(&sandbox);
    let mut datapath = Datapath::open(&config).expect("opened");
    datapath.attach(sandbox.index()).expect("attached");
    let old = format!("{}x", sandbox.interface);
    ip(&["link", "set", &sandbox.interface, "name", &old]);
    ip(&["tuntap", "add", &sandbox.interface, "mode", "tun"]);

    for mut datapath in [datapath, Datapath::open(&config).expect("adopted")] {
        assert!(!datapath.holds(sandbox.index()).expect("asked"));
        let refused = datapath.attach(sandbox.index()).expect_err("refused");
        assert!(
            matches!(refused, DatapathError::AttachedElsewhere { .. }),
            "{refused}"
        );
        assert!(refused.to_string().contains(&old), "{refused}");
    }
    let refused = Datapath::teardown(&config).expect_err("refused");
    assert!(
        matches!(refused, DatapathError::AttachedElsewhere { .. }),
        "{refused}"
    );
    assert_eq!(attached(&old), 1, "still enforced");

    // It is taken away, as the error advises.
    ip(&["link", "del", &old]);
    let mut datapath = Datapath::open(&config).expect("adopted");
    let attached = datapath.attach(sandbox.index()).expect("attached");
    assert_eq!(attached, Attached::Afresh);
    drop(datapath);
    assert!(
        Datapath::open(&config)
            .expect("adopted")
            .holds(sandbox.index())
            .expect("asked")
    );
    Datapath::teardown(&config).expect("the interface of this name may go");
    let pins = Datapath::pin_directory(&config).expect("told");
    let version = pins.parent().expect("a version's directory");
    assert!(!version.exists(), "not even the version's directory stays");
}

#[test]
fn inv1_a_program_before_ours_is_an_error() {
    let sandbox = Sandbox::new();
    let config = config(&sandbox);
    let mut datapath = Datapath::open(&config).expect("opened");
    datapath.attach(sandbox.index()).expect("attached");
    assert!(datapath.is_attached(sandbox.index()).expect("asked"));

    let empty: &mut SchedClassifier = datapath
        .object()
        .program_mut(names::EMPTY)
        .expect("in the object")
        .try_into()
        .expect("a classifier");
    empty.load().expect("loaded");
    let first = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link = empty
        .attach_with_options(&sandbox.interface, TcAttachType::Egress, first)
        .expect("before ours");
    assert!(!datapath.is_attached(sandbox.index()).expect("asked"));
    assert!(!datapath.holds(sandbox.index()).expect("asked"));
    let refused = datapath.attach(sandbox.index()).expect_err("refused");
    assert!(
        matches!(refused, DatapathError::NotFirst { .. }),
        "{refused}"
    );

    let empty: &mut SchedClassifier = datapath
        .object()
        .program_mut(names::EMPTY)
        .expect("in the object")
        .try_into()
        .expect("a classifier");
    empty.detach(link).expect("detached");
    // A process that another test is just starting shares the link until it runs its program.
    let since = Instant::now();
    while let Err(error) = datapath.attach(sandbox.index()) {
        assert!(since.elapsed() < PATIENCE, "first again: {error}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn inv1_network_namespaces_that_share_a_file_system_do_not_share_pins() {
    let sandbox = Sandbox::new();
    let config = config(&sandbox);
    let _here = Datapath::open(&config).expect("opened");
    let namespace = format!("{}ns", sandbox.interface);
    ip(&["netns", "add", &namespace]);
    let elsewhere = {
        let (config, namespace) = (config.clone(), namespace.clone());
        std::thread::spawn(move || {
            let path = format!("/run/netns/{namespace}");
            let file = std::fs::File::open(path).expect("there");
            let kind = Some(LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind)
                .expect("entered");
            let first = Datapath::open(&config).expect("opened").adopted();
            let second = Datapath::open(&config).expect("opened").adopted();
            Datapath::teardown(&config).expect("torn down");
            (first, second)
        })
    };
    let result = elsewhere.join();
    ip(&["netns", "del", &namespace]);
    assert_eq!(result.expect("ran"), (false, true));
    assert!(Datapath::open(&config).expect("opened").adopted());
}

#[test]
fn inv1_what_a_killed_agent_was_about_to_void_is_void_at_the_next_start() {
    let sandbox = Sandbox::new();
    let config = config(&sandbox);
    let mut datapath = Datapath::open(&config).expect("opened");
    let address = "10.77.0.2/32".parse().expect("address");
    datapath.upsert_peer(&[2; 32], &[address]).expect("added");
    drop(datapath);

    let pin = Datapath::pin_directory(&config)
        .expect("told")
        .join(names::PEERS);
    let states = || {
        let map = aya::maps::MapData::from_pin(&pin).expect("pinned");
        aya::maps::Array::<_, PeerState>::try_from(aya::maps::Map::Array(map)).expect("an array")
    };
    let mut marked = states().get(&0, 0).expect("read");
    assert_eq!(marked.reserved, 0, "nothing is pending");
    marked.reserved = 1;
    states().set(0, marked, 0).expect("written");

    let reopened = Datapath::open(&config).expect("adopted");
    let after = states().get(&0, 0).expect("read");
    assert!(after.incarnation != marked.incarnation && after.reserved == 0);
    drop(reopened);
    let _again = Datapath::open(&config).expect("adopted");
    let later = states().get(&0, 0).expect("read");
    assert_eq!(
        later.incarnation, after.incarnation,
        "a start without a mark keeps flows"
    );
}
