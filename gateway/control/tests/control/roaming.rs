//! Locations whose sessions belong to the network that their device was heard from first.

use portcullis_proto::v1::{self, admin_server::Admin as _};
use tonic::Request;

use crate::connect::{LAPTOP, connect, public, vault};
use crate::fixture::{Account, Engine, World};
use crate::gateway::{Gateway, Served};
use crate::session_key::newest;

crate::on_both!(
    a_session_ends_where_its_device_moves,
    an_ipv6_device_may_change_its_address_within_its_network,
    sessions_roam_unless_that_is_forbidden,
);

/// Alice's laptop with a session.
struct Setting {
    world: World,
    alice: Account,
    _served: Served,
    gateway: Gateway,
    reports: u64,
}

impl Setting {
    async fn new(engine: Engine) -> Self {
        let (world, alice, served, gateway) = vault(engine).await;
        Self {
            world,
            alice,
            _served: served,
            gateway,
            reports: 0,
        }
    }

    async fn roaming(&self, roaming: bool) {
        let request = v1::SetLocationRequest {
            name: "vault".into(),
            roaming: Some(roaming),
            ..Default::default()
        };
        let admin = self.world.control.admin();
        let answer = admin.set_location(Request::new(request)).await.unwrap();
        assert_eq!(answer.into_inner().roaming, Some(roaming));
    }

    async fn connect(&mut self) -> String {
        self.world.advance_s(30);
        let connection = connect(&self.world, &self.alice, &mut self.gateway).await;
        connection.session.id
    }

    /// The state of a session after the gateway has heard the laptop from here.
    async fn heard(&mut self, session: &str, endpoint: &str) -> String {
        self.reports += 1;
        let peer = v1::PeerReport {
            public_key: public(LAPTOP).to_vec(),
            endpoint: endpoint.into(),
            rx_bytes: self.reports,
            ..Default::default()
        };
        self.gateway
            .report(v1::Report {
                peers: vec![peer],
                ..Default::default()
            })
            .await;
        let request = || {
            Request::new(v1::NameRequest {
                name: "laptop".into(),
            })
        };
        let admin = self.world.control.admin();
        // It is written down last.
        while admin
            .get_device(request())
            .await
            .unwrap()
            .into_inner()
            .rx_bytes
            != self.reports
        {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let sessions = self.world.sessions().await;
        let found = sessions.into_iter().find(|found| found.id == session);
        found.unwrap().state
    }
}

async fn a_session_ends_where_its_device_moves(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    setting.roaming(false).await;
    let first = setting.connect().await;
    for same in [
        "",
        "198.51.100.7:1111",
        "198.51.100.7:2222",
        "[::ffff:198.51.100.7]:3333",
        "",
    ] {
        assert_eq!(setting.heard(&first, same).await, "live", "{same}");
    }
    assert_eq!(setting.heard(&first, "198.51.100.8:1111").await, "moved");
    setting.gateway.follow_to(newest(&setting.world)).await;
    assert!(setting.gateway.state.peers.is_empty());
    let audit = setting.world.audit().await;
    let ended = audit.iter().find(|record| record.action == "session.end");
    let detail = &ended.unwrap().detail;
    assert!(
        detail.contains("\"198.51.100.7\"") && detail.contains("\"198.51.100.8\""),
        "{detail}"
    );

    // Back again revives nothing; another login belongs to where it is heard from.
    assert_eq!(setting.heard(&first, "198.51.100.7:1").await, "moved");
    let second = setting.connect().await;
    assert_eq!(setting.heard(&second, "198.51.100.8:1").await, "live");
    assert_eq!(setting.heard(&second, "198.51.100.7:1").await, "moved");
}

async fn an_ipv6_device_may_change_its_address_within_its_network(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    setting.roaming(false).await;
    let session = setting.connect().await;
    for same in ["[2001:db8:1::5]:1", "[2001:db8:1:0:9::6]:1"] {
        assert_eq!(setting.heard(&session, same).await, "live", "{same}");
    }
    assert_eq!(
        setting.heard(&session, "[2001:db8:1:1::5]:1").await,
        "moved"
    );
}

async fn sessions_roam_unless_that_is_forbidden(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    let session = setting.connect().await;
    for anywhere in ["198.51.100.7:1", "203.0.113.9:1", "[2001:db8::1]:1"] {
        assert_eq!(setting.heard(&session, anywhere).await, "live");
    }
    // From now on it belongs to where it is heard from next, and may move again when that is allowed again.
    setting.roaming(false).await;
    assert_eq!(setting.heard(&session, "198.51.100.7:1").await, "live");
    setting.roaming(true).await;
    assert_eq!(setting.heard(&session, "203.0.113.9:1").await, "live");
    setting.roaming(false).await;
    assert_eq!(setting.heard(&session, "198.51.100.7:1").await, "live");
    assert_eq!(setting.heard(&session, "203.0.113.9:1").await, "moved");
}
