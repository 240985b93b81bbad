//! Users and their own devices: what they see, add, rename and remove, and whose it has to be.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_control::{AddedDevice, Level, NewDevice, SelfService, SelfServiceError};

use crate::fixture::{Account, Engine, World, key};
use crate::gateway::{Gateway, Served, enroll};

crate::on_both!(
    a_device_is_listed_added_renamed_and_removed,
    adding_and_removing_need_a_fresh_login_and_renaming_does_not,
    another_users_device_is_answered_like_one_that_is_not_there,
    users_have_a_limit_and_administrators_have_none,
    a_key_in_use_is_refused_like_one_that_is_none,
    a_removed_device_is_gone_from_the_gateway,
    without_a_session_nothing_is_seen,
);

/// Alice, signed in on her laptop, and a gateway that holds it.
struct Scene {
    world: World,
    alice: Account,
    from: IpAddr,
    served: Served,
    gateway: Gateway,
}

impl Scene {
    async fn new(engine: Engine) -> Self {
        let (world, alice, from) = World::with_alice(engine).await;
        let served = Served::start(&world.control).await;
        let token = world.control.gateway_token("gw", "office").await.unwrap();
        let enrolled = enroll(&world.control, served.port, token.expose())
            .await
            .unwrap();
        let mut gateway = Gateway::new(enrolled);
        gateway.connect(served.port).await.unwrap();
        world.log_in_beside(from, &alice, &mut gateway).await;
        Self {
            world,
            alice,
            from,
            served,
            gateway,
        }
    }

    fn own(&self) -> SelfService {
        self.world.control.logins().self_service()
    }

    async fn add(&self, name: &str) -> Result<AddedDevice, SelfServiceError> {
        add(&self.own(), self.from, name, &key(name)).await
    }

    async fn follow(&mut self) {
        let revision = *self.world.control.revisions().borrow();
        self.gateway.follow_to(revision).await;
    }

    async fn sign_in_again(&mut self) {
        self.world.advance_s(30);
        self.world
            .log_in_beside(self.from, &self.alice, &mut self.gateway)
            .await;
    }

    async fn audited(&self, action: &str) -> usize {
        let records = self.world.audit().await;
        records.iter().filter(|r| r.action == action).count()
    }
}

impl World {
    /// Logs in, while the gateway takes in what that brings.
    async fn log_in_beside(&self, from: IpAddr, account: &Account, gateway: &mut Gateway) {
        let login = self.log_in(from, account);
        let mut login = std::pin::pin!(login);
        loop {
            tokio::select! {
                done = &mut login => {
                    done.unwrap();
                    return;
                }
                heard = gateway.hear() => {
                    heard.unwrap();
                    gateway.acknowledge().await;
                }
            }
        }
    }
}

async fn add(
    own: &SelfService,
    from: IpAddr,
    name: &str,
    key: &[u8],
) -> Result<AddedDevice, SelfServiceError> {
    let public_key = STANDARD.encode(key);
    let new = NewDevice {
        name,
        public_key: &public_key,
        hours: None,
    };
    own.add_device(from, new).await
}

async fn a_device_is_listed_added_renamed_and_removed(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let own = scene.own();
    let added = scene.add("Ada's phone №2").await.unwrap();
    assert_eq!(added.device.name, "Ada's phone №2");
    assert_eq!(added.tunnel.addresses, ["10.77.0.3/32", "fd77::3/128"]);
    assert_eq!(added.tunnel.allowed_ips, ["10.77.0.0/24", "fd77::/64"]);
    assert_eq!(added.tunnel.endpoint, "vpn.example.org:51820");
    let server = STANDARD.encode(scene.gateway.key);
    assert_eq!(added.tunnel.server_public_key, server);
    scene.follow().await;
    let public = key("Ada's phone №2");
    assert!(scene.gateway.state.peers.contains_key(public.as_slice()));

    let list = own.devices(scene.from).await.unwrap();
    assert_eq!((list.limit, list.change_needs), (5, None));
    let seen: Vec<_> = list
        .devices
        .iter()
        .map(|d| (d.name.as_str(), d.is_this, d.is_signed_in))
        .collect();
    assert_eq!(
        seen,
        [("Ada's phone №2", false, false), ("laptop", true, true)]
    );
    assert!(list.devices[0].fingerprint.starts_with("SHA256:"));

    let id = &added.device.id;
    own.rename_device(scene.from, id, "Phone").await.unwrap();
    let list = own.devices(scene.from).await.unwrap();
    assert!(list.devices.iter().any(|device| device.name == "Phone"));
    // Two of one name are no trouble; neither is the name of an administrator's device.
    own.rename_device(scene.from, id, "laptop").await.unwrap();

    let removal = own.remove_device(scene.from, id);
    let removal = async { removal.await.unwrap() };
    let mut removal = std::pin::pin!(removal);
    let removal = loop {
        tokio::select! {
            done = &mut removal => break done,
            heard = scene.gateway.hear() => {
                heard.unwrap();
                scene.gateway.acknowledge().await;
            }
        }
    };
    assert_eq!((removal.ended, removal.pending), (0, false));
    assert_eq!(own.devices(scene.from).await.unwrap().devices.len(), 1);
    for action in ["device.add", "device.remove"] {
        let records = scene.world.audit().await;
        let by_her =
            |r: &&portcullis_proto::v1::AuditRecord| r.action == action && r.actor == "user:alice";
        assert_eq!(records.iter().filter(by_her).count(), 1, "{action}");
    }
    assert_eq!(scene.audited("device.rename").await, 2);
}

async fn adding_and_removing_need_a_fresh_login_and_renaming_does_not(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let own = scene.own();
    let added = scene.add("phone").await.unwrap();
    scene.world.advance_s(10 * 60 + 1);
    let list = own.devices(scene.from).await.unwrap();
    assert_eq!(list.change_needs, Some(Level::Mfa));
    let stale = |result: Result<(), SelfServiceError>| {
        let is_stale = matches!(result, Err(SelfServiceError::Stale { needed: Level::Mfa }));
        assert!(is_stale, "{result:?}");
    };
    stale(scene.add("tablet").await.map(drop));
    let id = &added.device.id;
    stale(own.remove_device(scene.from, id).await.map(drop));
    own.rename_device(scene.from, id, "Old phone")
        .await
        .unwrap();
    scene.sign_in_again().await;
    scene.add("tablet").await.unwrap();
}

async fn another_users_device_is_answered_like_one_that_is_not_there(engine: Engine) {
    let scene = Scene::new(engine).await;
    let own = scene.own();
    scene.world.user("bob").await;
    let bobs = scene.world.device("bobs", "bob").await.device.unwrap();
    let session = scene.world.grant("bobs").await;
    let list = own.devices(scene.from).await.unwrap();
    assert!(list.devices.iter().all(|device| device.name != "bobs"));
    let missing = "00000000-0000-4000-8000-000000000000";
    for id in [bobs.id.as_str(), "bobs", "laptop", missing] {
        let renamed = own.rename_device(scene.from, id, "mine").await;
        assert!(
            matches!(renamed, Err(SelfServiceError::UnknownDevice)),
            "{id}"
        );
        let removed = own.remove_device(scene.from, id).await;
        assert!(
            matches!(removed, Err(SelfServiceError::UnknownDevice)),
            "{id}"
        );
    }
    for id in [session.id.as_str(), missing] {
        let ended = own.end_session(scene.from, id).await;
        assert!(
            matches!(ended, Err(SelfServiceError::UnknownSession)),
            "{id}"
        );
    }
    // Also when the login is not fresh: then, too, both are answered alike.
    scene.world.advance_s(10 * 60 + 1);
    for id in [bobs.id.as_str(), missing] {
        let removed = own.remove_device(scene.from, id).await;
        assert!(
            matches!(removed, Err(SelfServiceError::UnknownDevice)),
            "{id}"
        );
    }
    let others = own.end_other_sessions(scene.from).await.unwrap();
    assert_eq!(others.ended, 0);
    let sessions = scene.world.sessions().await;
    let bobs = sessions.iter().find(|s| s.id == session.id).unwrap();
    assert_eq!(bobs.state, "live");
}

async fn users_have_a_limit_and_administrators_have_none(engine: Engine) {
    let scene = Scene::new(engine).await;
    for number in 2..=5 {
        scene.add(&format!("device {number}")).await.unwrap();
    }
    let refused = scene.add("one more").await;
    assert!(
        matches!(refused, Err(SelfServiceError::TooMany(5))),
        "{refused:?}"
    );
    scene.world.device("sixth", "alice").await;
    let list = scene.own().devices(scene.from).await.unwrap();
    assert_eq!(list.devices.len(), 6);
    let first = list.devices.iter().find(|d| d.name == "device 2").unwrap();
    assert!(scene.add("one more").await.is_err());
    let id = first.id.clone();
    scene.own().remove_device(scene.from, &id).await.unwrap();
    // Five are left: still none to spare.
    assert!(scene.add("one more").await.is_err());
}

async fn a_key_in_use_is_refused_like_one_that_is_none(engine: Engine) {
    let scene = Scene::new(engine).await;
    let own = scene.own();
    scene.world.user("bob").await;
    scene.world.device("bobs", "bob").await;
    let mut answers = Vec::new();
    let gateway = scene.gateway.key;
    for bytes in [
        &key("bobs")[..],
        &key("laptop"),
        &gateway,
        &[0; 32],
        &[1; 31],
        b"",
    ] {
        let refused = add(&own, scene.from, "new", bytes).await.unwrap_err();
        answers.push(refused.to_string());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    for name in ["", "a\nb", &"x".repeat(65)] {
        let refused = add(&own, scene.from, name, &key("new")).await;
        assert!(
            matches!(refused, Err(SelfServiceError::Invalid(_))),
            "{name:?}"
        );
    }
}

async fn a_removed_device_is_gone_from_the_gateway(engine: Engine) {
    let mut scene = Scene::new(engine).await;
    let own = scene.own();
    let added = scene.add("phone").await.unwrap();
    scene.follow().await;
    // Nobody acknowledges: it is said that it is pending.
    scene.gateway.disconnect();
    let removal = own
        .remove_device(scene.from, &added.device.id)
        .await
        .unwrap();
    assert!(removal.pending);
    scene.gateway.connect(scene.served.port).await.unwrap();
    scene.follow().await;
    assert!(
        !scene
            .gateway
            .state
            .peers
            .contains_key(key("phone").as_slice())
    );
}

async fn without_a_session_nothing_is_seen(engine: Engine) {
    let (world, _, from) = World::with_alice(engine).await;
    let own = world.control.logins().self_service();
    let none = |error: SelfServiceError| assert!(matches!(error, SelfServiceError::NoSession));
    none(own.devices(from).await.unwrap_err());
    none(own.sessions(from).await.unwrap_err());
    none(add(&own, from, "x", &key("x")).await.unwrap_err());
    none(own.rename_device(from, "x", "y").await.unwrap_err());
    none(own.remove_device(from, "x").await.unwrap_err());
    none(own.end_session(from, "x").await.unwrap_err());
    none(own.end_other_sessions(from).await.unwrap_err());
}
