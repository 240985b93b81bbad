use std::collections::HashMap;

use gateway_common::abi::Level;
use portcullis_proto::digest::key_mark;
use portcullis_proto::v1;
use proptest::prelude::*;

use super::*;
use crate::desired::Desired;
use crate::held::DatapathPeer;
use crate::keys::PresharedKey;
use crate::wireguard::PeerConfig;

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1000 * SECOND;
const NOW_MS: i64 = 1_700_000_000_000;

fn key(byte: u8) -> PublicKey {
    PublicKey::try_from([byte; 32]).expect("key")
}

fn session(id: u8, deadline_s: i64) -> v1::Session {
    v1::Session {
        id: vec![id; 16],
        level: v1::Level::Mfa.into(),
        authenticated_at_ms: NOW_MS - 60_000,
        deadline_ms: NOW_MS + deadline_s * 1000,
        idle_timeout_ms: 600_000,
        last_activity_ms: NOW_MS,
    }
}

fn peer(byte: u8, addresses: &[u8], psk: u8, session: Option<v1::Session>) -> v1::Peer {
    v1::Peer {
        public_key: vec![byte; 32],
        preshared_key: if psk == 0 { Vec::new() } else { vec![psk; 32] },
        allowed_ips: addresses
            .iter()
            .map(|last| format!("10.77.0.{last}/32"))
            .collect(),
        persistent_keepalive_s: 0,
        session,
        policy: u32::from(psk),
        renews: Vec::new(),
    }
}

/// The same peer with its next key.
fn renewed(peer: v1::Peer, psk: u8) -> v1::Peer {
    let before: [u8; 32] = peer.preshared_key.as_slice().try_into().expect("a key");
    v1::Peer {
        preshared_key: vec![psk; 32],
        renews: key_mark(&before).to_vec(),
        ..peer
    }
}

fn desired(peers: Vec<v1::Peer>) -> Desired {
    let snapshot = v1::Snapshot {
        revision: 1,
        control_now_ms: NOW_MS,
        location: Some(v1::LocationConfig {
            name: "office".into(),
            addresses: vec!["10.77.0.1/24".into()],
            listen_port: 51820,
            mtu: 1420,
            open_services: Vec::new(),
            ..v1::LocationConfig::default()
        }),
        peers,
        ..v1::Snapshot::default()
    };
    Desired::from_snapshot(snapshot, NOW).0
}

/// A kernel that does as it is told.
#[derive(Clone, Default, Debug)]
struct Model(HashMap<PublicKey, Held>);

impl Model {
    fn new(desired: &Desired) -> Self {
        let mut model = Self::default();
        let actions = model.plan(desired);
        actions.iter().for_each(|action| model.execute(action));
        model
    }

    fn plan(&self, desired: &Desired) -> Vec<Action> {
        let mut keys: Vec<_> = self
            .0
            .keys()
            .chain(desired.peers().map(|(key, _)| key))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        plan(keys, |key| desired.peer(key), |key| self.0.get(key), NOW)
    }

    fn execute(&mut self, action: &Action) {
        let held = self.0.entry(action.key()).or_default();
        match action {
            Action::Lock(_) => held.datapath.as_mut().expect("in the datapath").session = None,
            Action::Grant(_, grant) => {
                held.datapath.as_mut().expect("in the datapath").session = Some(*grant);
            }
            Action::Classify(_, class) => {
                held.datapath.as_mut().expect("in the datapath").policy = *class
            }
            Action::Forget(_) => held.datapath = None,
            Action::Admit(_, addresses) => {
                held.datapath
                    .get_or_insert_default()
                    .addresses
                    .clone_from(addresses);
            }
            Action::WireGuard(PeerChange::Remove(_)) => held.wireguard = None,
            Action::WireGuard(PeerChange::Update(update)) => {
                assert!(
                    update.create || held.wireguard.is_some(),
                    "an unknown peer is updated"
                );
                let config = held.wireguard.get_or_insert(PeerConfig {
                    preshared_key: None,
                    allowed_ips: Vec::new(),
                    persistent_keepalive: 0,
                });
                if let Some(key) = &update.preshared_key {
                    config.preshared_key.clone_from(key);
                }
                if let Some(seconds) = update.persistent_keepalive {
                    config.persistent_keepalive = seconds;
                }
                if let Some(allowed_ips) = &update.allowed_ips {
                    config.allowed_ips.clone_from(allowed_ips);
                    for (other, held) in &mut self.0 {
                        if *other != update.key
                            && let Some(config) = &mut held.wireguard
                        {
                            config
                                .allowed_ips
                                .retain(|network| !allowed_ips.contains(network));
                        }
                    }
                }
            }
        }
        self.0.retain(|_, held| *held != Held::default());
    }

    /// Which peers can use whose session, by address: WireGuard says who may send from an
    /// address, the datapath says whose session the address stands for.
    fn uses(&self) -> Vec<(PublicKey, PublicKey)> {
        let mut uses = Vec::new();
        for (sender, wireguard) in self
            .0
            .iter()
            .filter_map(|(k, h)| Some((k, h.wireguard.as_ref()?)))
        {
            for (owner, datapath) in self
                .0
                .iter()
                .filter_map(|(k, h)| Some((k, h.datapath.as_ref()?)))
            {
                let shares = wireguard
                    .allowed_ips
                    .iter()
                    .any(|net| datapath.addresses.contains(net));
                if shares && datapath.session.is_some() {
                    uses.push((*sender, *owner));
                }
            }
        }
        uses
    }
}

fn moves(from: Vec<v1::Peer>, to: Vec<v1::Peer>) -> (Model, Vec<Action>) {
    let model = Model::new(&desired(from));
    let actions = model.plan(&desired(to));
    (model, actions)
}

#[test]
fn inv5_nothing_is_done_where_nothing_differs() {
    let peers = vec![
        peer(1, &[2], 9, Some(session(1, 60))),
        peer(2, &[3], 0, None),
    ];
    let (_, actions) = moves(peers.clone(), peers);
    assert_eq!(actions, []);
}

#[test]
fn inv4_a_revocation_is_one_lock_and_nothing_else() {
    let (_, actions) = moves(
        vec![peer(1, &[2], 9, Some(session(1, 60)))],
        vec![peer(1, &[2], 9, None)],
    );
    assert_eq!(actions, [Action::Lock(key(1))]);
}

#[test]
fn an_extension_is_one_grant_that_keeps_the_activity() {
    let mut model = Model::new(&desired(vec![peer(1, &[2], 9, Some(session(1, 60)))]));
    let half = model
        .0
        .get_mut(&key(1))
        .expect("peer")
        .datapath
        .as_mut()
        .expect("admitted");
    half.session.as_mut().expect("session").last_activity = NOW + 7;
    let actions = model.plan(&desired(vec![peer(1, &[2], 9, Some(session(1, 120)))]));
    let [Action::Grant(_, grant)] = actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(
        (grant.deadline, grant.last_activity),
        (NOW + 120 * SECOND, NOW + 7)
    );
}

#[test]
fn effective_policies_of_many_peers_come_before_the_first_of_their_grants() {
    let live = |psk: u8, id: u8| {
        (1..=4)
            .map(|byte| peer(byte, &[byte + 1], psk, Some(session(id, 60))))
            .collect::<Vec<_>>()
    };
    for (before, after) in [(Vec::new(), live(9, 1)), (live(8, 1), live(9, 2))] {
        let (_, actions) = moves(before, after);
        let place = |wanted: fn(&Action) -> bool| {
            let places = actions.iter().enumerate();
            places
                .filter(|(_, action)| wanted(action))
                .map(|(place, _)| place)
                .collect::<Vec<_>>()
        };
        let classes = place(|action| matches!(action, Action::Classify(..)));
        let grants = place(|action| matches!(action, Action::Grant(..)));
        assert_eq!((classes.len(), grants.len()), (4, 4), "{actions:?}");
        assert!(classes.iter().max() < grants.iter().min(), "{actions:?}");
    }
}

#[test]
fn a_deadline_that_seems_a_little_earlier_locks_nobody_for_another_policy() {
    // Another class, under the pre-shared key that it had.
    let with_class = |class: u32| v1::Peer {
        policy: class,
        ..peer(1, &[2], 0, Some(session(1, 60)))
    };
    let wanted = desired(vec![with_class(2)]);
    let planned = |deadline: u64| {
        let mut model = Model::new(&desired(vec![with_class(1)]));
        let half = model.0.get_mut(&key(1)).expect("peer").datapath.as_mut();
        let session = half.expect("admitted").session.as_mut();
        session.expect("session").deadline = deadline;
        model.plan(&wanted)
    };
    // The message before was slower.
    let actions = planned(NOW + 60 * SECOND + 1);
    assert!(
        matches!(actions[..], [Action::Classify(_, 2), Action::Grant(..)]),
        "{actions:?}"
    );
    // A longer one is another matter: what it permits, the old policy was not meant for.
    let actions = planned(NOW + 20 * SECOND);
    assert!(matches!(actions[0], Action::Lock(_)), "{actions:?}");
}

#[test]
fn inv5_a_peer_with_another_preshared_key_is_made_anew() {
    let (_, actions) = moves(vec![peer(1, &[2], 8, None)], vec![peer(1, &[2], 9, None)]);
    // The effective policy of these peers changes along with it.
    let [
        Action::Classify(_, 9),
        Action::WireGuard(PeerChange::Remove(_)),
        Action::WireGuard(PeerChange::Update(update)),
    ] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!(
        update.preshared_key,
        Some(PresharedKey::from_kernel([9; 32]))
    );
    assert!(update.create && update.allowed_ips.is_some());
}

#[test]
fn a_session_that_is_renewed_gets_its_key_in_place_and_then_its_grant() {
    let with_class = |session| v1::Peer {
        policy: 1,
        ..peer(1, &[2], 8, Some(session))
    };
    let before = with_class(session(1, 60));
    let after = renewed(with_class(session(1, 3600)), 9);
    let (_, actions) = moves(vec![before.clone()], vec![after.clone()]);
    let [
        Action::WireGuard(PeerChange::Update(update)),
        Action::Grant(_, grant),
    ] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!(
        update.preshared_key,
        Some(PresharedKey::from_kernel([9; 32]))
    );
    assert_eq!((&update.allowed_ips, update.create), (&None, false));
    assert_eq!(grant.deadline, NOW + 3600 * SECOND);

    // One that the kernel does not hold the key of is another session's.
    let other = v1::Peer {
        preshared_key: vec![7; 32],
        ..before
    };
    let (_, actions) = moves(vec![other], vec![after]);
    assert!(
        matches!(
            actions[..],
            [
                Action::Lock(_),
                Action::WireGuard(PeerChange::Remove(_)),
                Action::WireGuard(PeerChange::Update(PeerUpdate { create: true, .. })),
                Action::Grant(..)
            ]
        ),
        "{actions:?}"
    );
}

#[test]
fn inv2_a_session_of_the_same_tag_is_left_alone_within_tolerance_only() {
    let wanted = desired(vec![peer(1, &[2], 0, Some(session(1, 60)))]);
    let mut model = Model::new(&wanted);
    let deadline = |model: &mut Model, to: u64| {
        let half = model
            .0
            .get_mut(&key(1))
            .expect("peer")
            .datapath
            .as_mut()
            .expect("admitted");
        half.session.as_mut().expect("session").deadline = to;
    };
    deadline(&mut model, NOW + 58 * SECOND);
    assert_eq!(model.plan(&wanted), []);
    for drifted in [50, 70] {
        deadline(&mut model, NOW + drifted * SECOND);
        assert!(
            matches!(model.plan(&wanted)[..], [Action::Grant(..)]),
            "a drifted clock is corrected"
        );
    }
    deadline(&mut model, NOW + 61 * SECOND);
    assert!(
        matches!(model.plan(&wanted)[..], [Action::Grant(..)]),
        "no session lasts longer than control wants it to"
    );
}

#[test]
fn inv2_a_session_that_ended_in_the_kernel_is_not_revived() {
    let over = session(1, -1);
    let (model, actions) = moves(vec![peer(1, &[2], 0, Some(over.clone()))], vec![]);
    let held = model.0[&key(1)].session().expect("written, though over");
    assert!(held.deadline <= NOW);
    assert!(actions.contains(&Action::Lock(key(1))));
    // Idle in the kernel, while control does not know yet.
    let wanted = desired(vec![peer(1, &[2], 0, Some(session(1, 3600)))]);
    let mut model = Model::new(&wanted);
    let later = NOW + 601 * SECOND;
    let actions = |model: &Model| plan([&key(1)], |k| wanted.peer(k), |k| model.0.get(k), later);
    let [closing @ Action::Grant(_, grant)] = &actions(&model)[..] else {
        panic!("its idle end is made final");
    };
    assert!(grant.deadline <= NOW);
    model.execute(closing);
    assert_eq!(actions(&model), [], "once");
}

#[test]
fn an_address_that_moves_is_closed_before_it_opens() {
    let (mut model, actions) = moves(
        vec![
            peer(1, &[2, 3], 0, Some(session(1, 60))),
            peer(2, &[4], 0, Some(session(2, 60))),
        ],
        vec![
            peer(1, &[2], 0, Some(session(1, 60))),
            peer(2, &[3, 4], 0, Some(session(2, 60))),
        ],
    );
    assert!(
        !actions.contains(&Action::Lock(key(1))),
        "a live session survives: {actions:?}"
    );
    for action in &actions {
        model.execute(action);
        assert!(
            model.uses().iter().all(|(sender, owner)| sender == owner),
            "after {action:?}"
        );
    }
}

fn any_peers() -> impl Strategy<Value = Vec<v1::Peer>> {
    // Each address goes to one of four peers or to nobody.
    let owners = prop::collection::vec(0..5u8, 6);
    let traits = prop::collection::vec(
        (any::<bool>(), 0..3u8, prop::option::of((1..3u8, 1..3i64))),
        4,
    );
    (owners, traits).prop_map(|(owners, traits)| {
        (1..5u8)
            .zip(traits)
            .filter(|(_, (exists, ..))| *exists)
            .map(|(byte, (_, psk, grant))| {
                let addresses: Vec<u8> = (2..8)
                    .zip(&owners)
                    .filter(|(_, owner)| **owner == byte)
                    .map(|(a, _)| a)
                    .collect();
                let session = grant.map(|(id, hours)| session(id, hours * 3600));
                let peer = peer(byte, &addresses, psk, session);
                match psk {
                    // Half of those that have the second key have the first one renewed.
                    2 if byte % 2 == 0 => renewed(
                        v1::Peer {
                            preshared_key: vec![1; 32],
                            ..peer
                        },
                        2,
                    ),
                    _ => peer,
                }
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn inv1_every_step_of_every_plan_is_closed_and_the_last_one_is_there(
        from in any_peers(),
        to in any_peers(),
    ) {
        let wanted = desired(to);
        let mut model = Model::new(&desired(from));
        let before: HashMap<_, _> =
            model.0.iter().filter_map(|(key, held)| Some((*key, (held.session()?.tag, held.policy())))).collect();
        for action in model.plan(&wanted) {
            model.execute(&action);
            for (sender, owner) in model.uses() {
                prop_assert_eq!(sender, owner, "another peer's session is used after {:?}", action);
            }
            for (key, held) in &model.0 {
                let Some(session) = held.session() else { continue };
                let wanted = wanted.peer(key);
                let known = before.get(key) == Some(&(session.tag, held.policy()))
                    || wanted.is_some_and(|wanted| {
                        wanted.policy == held.policy()
                            && wanted.session.as_ref().is_some_and(|wanted| wanted.tag == session.tag)
                    });
                prop_assert!(known, "a session and an effective policy that neither state has together");
                prop_assert_eq!(session.level, Level::Mfa);
            }
        }
        prop_assert_eq!(model.plan(&wanted), []);
        let expected: HashMap<_, _> = wanted
            .peers()
            .map(|(key, peer)| {
                let session = peer.session.as_ref().map(|session| session.grant(NOW, None));
                let datapath = DatapathPeer { addresses: peer.allowed_ips.clone(), session, policy: peer.policy };
                (*key, Held { wireguard: Some(peer.config()), datapath: Some(datapath) })
            })
            .collect();
        prop_assert_eq!(model.0, expected);
    }
}
