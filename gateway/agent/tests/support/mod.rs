//! What the agent's tests run against: a control service under the test's command, WireGuard in
//! memory, and a TUN interface of this machine's kernel for the programs. They need root.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

pub mod control;
pub mod kernel;
pub mod pki;
pub mod wireguard;

use std::net::IpAddr;

use portcullis_proto::digest::{PeerEntry, StateDigest, session_tag};
use portcullis_proto::v1;

/// Control's clock in all messages.
pub const NOW_MS: i64 = 1_700_000_000_000;

pub fn location() -> v1::LocationConfig {
    v1::LocationConfig {
        name: "office".into(),
        addresses: vec!["10.77.0.1/24".into()],
        listen_port: 51820,
        mtu: 1420,
        open_services: vec![v1::OpenService {
            address: "10.77.0.1".into(),
            protocol: 6,
            port: 443,
        }],
        ..v1::LocationConfig::default()
    }
}

pub fn session(id: u8, lifetime_s: i64) -> v1::Session {
    v1::Session {
        id: vec![id; 16],
        level: v1::Level::Mfa.into(),
        authenticated_at_ms: NOW_MS - 1000,
        deadline_ms: NOW_MS + lifetime_s * 1000,
        idle_timeout_ms: 600_000,
        last_activity_ms: NOW_MS,
    }
}

pub fn peer(key: u8, session: Option<v1::Session>) -> v1::Peer {
    v1::Peer {
        public_key: vec![key; 32],
        preshared_key: vec![key ^ 0xff; 32],
        allowed_ips: vec![format!("10.77.0.{key}/32"), format!("fd77::{key}/128")],
        persistent_keepalive_s: 25,
        session,
        policy: 0,
        renews: Vec::new(),
    }
}

pub fn snapshot(revision: u64, peers: Vec<v1::Peer>) -> v1::Snapshot {
    v1::Snapshot {
        revision,
        store_id: "store".into(),
        control_now_ms: NOW_MS,
        location: Some(location()),
        peers,
        policy: None,
    }
}

pub fn delta(from_revision: u64, peers: Vec<v1::Peer>, removed: &[u8]) -> v1::Delta {
    v1::Delta {
        from_revision,
        revision: from_revision + 1,
        control_now_ms: NOW_MS,
        location: None,
        peers,
        removed: removed.iter().map(|key| vec![*key; 32]).collect(),
    }
}

/// The digest that control expects of these peers.
pub fn digest(peers: &[v1::Peer]) -> Vec<u8> {
    let mut digest = StateDigest::default();
    for peer in peers {
        let allowed_ips: Vec<(IpAddr, u8)> = peer
            .allowed_ips
            .iter()
            .map(|text| {
                let (address, prefix) = text.split_once('/').expect("CIDR");
                (
                    address.parse().expect("address"),
                    prefix.parse().expect("prefix"),
                )
            })
            .collect();
        digest.add(&PeerEntry {
            public_key: key(&peer.public_key),
            preshared_key: Some(key(&peer.preshared_key)),
            allowed_ips: &allowed_ips,
            persistent_keepalive_s: u16::try_from(peer.persistent_keepalive_s).expect("keepalive"),
            session: peer.session.as_ref().map(session_tag),
            policy: peer.policy,
        });
    }
    digest.to_bytes().to_vec()
}

fn key(bytes: &[u8]) -> &[u8; 32] {
    bytes.try_into().expect("32 bytes")
}
