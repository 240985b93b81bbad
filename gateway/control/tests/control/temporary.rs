//! Devices that are there for some hours only.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_control::{Control, NewDevice, SelfServiceError};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use tonic::Request;

use crate::fixture::{Engine, World, key};
use crate::gateway::{Gateway, Served, enroll};

const HOUR_S: i64 = 3600;

crate::on_both!(
    a_temporary_device_leaves_the_gateway_when_its_time_ends,
    one_that_ended_while_control_was_down_is_not_sent,
    no_session_outlasts_its_device,
    users_choose_one_to_twenty_four_hours,
);

async fn add_for(world: &World, name: &str, for_ms: u64) -> Result<v1::Device, tonic::Status> {
    let request = v1::AddDeviceRequest {
        name: name.into(),
        user: "alice".into(),
        public_key: key(name).to_vec(),
        for_ms,
        ..Default::default()
    };
    let admin = world.control.admin();
    let added = admin.add_device(Request::new(request));
    Ok(added.await?.into_inner().device.unwrap())
}

async fn gateway(world: &World, served: &Served) -> Gateway {
    let token = world.control.gateway_token("gw", "office").await.unwrap();
    let enrolled = enroll(&world.control, served.port, token.expose());
    let mut gateway = Gateway::new(enrolled.await.unwrap());
    gateway.connect(served.port).await.unwrap();
    gateway
}

fn expiring(control: &Control) -> tokio::task::JoinHandle<()> {
    let control = control.clone();
    tokio::spawn(async move { control.run_expiry(std::future::pending()).await })
}

/// Waits until the device is gone from the store.
async fn gone(world: &World, name: &str) {
    for _ in 0..200 {
        let request = v1::NameRequest { name: name.into() };
        let admin = world.control.admin();
        let found = admin.get_device(Request::new(request));
        if found.await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{name} is still there");
}

async fn a_temporary_device_leaves_the_gateway_when_its_time_ends(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    let served = Served::start(&world.control).await;
    let mut gateway = gateway(&world, &served).await;
    let device = add_for(&world, "hotel", 8 * 3_600_000).await.unwrap();
    assert_eq!(device.ends_ms, world.now_ms() + 8 * HOUR_S * 1000);
    gateway.follow_to(*world.control.revisions().borrow()).await;
    assert!(gateway.state.peers.contains_key(key("hotel").as_slice()));

    world.advance_s(8 * HOUR_S - 1);
    let expiring = expiring(&world.control);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(*world.control.revisions().borrow(), gateway.state.revision);
    world.advance_s(1);
    // Any change wakes the sweep, as the real clock would.
    world.device("other", "alice").await;
    gone(&world, "hotel").await;
    gateway.follow_to(*world.control.revisions().borrow()).await;
    assert!(!gateway.state.peers.contains_key(key("hotel").as_slice()));
    assert!(gateway.state.peers.contains_key(key("laptop").as_slice()));
    let records = world.audit().await;
    let record = records
        .iter()
        .find(|r| r.action == "device.expire")
        .unwrap();
    assert_eq!(
        (record.actor.as_str(), record.subject.as_str()),
        ("system", "hotel")
    );
    expiring.abort();
}

async fn one_that_ended_while_control_was_down_is_not_sent(engine: Engine) {
    let (mut world, ..) = World::with_alice(engine).await;
    let served = Served::start(&world.control).await;
    let mut gateway = gateway(&world, &served).await;
    add_for(&world, "hotel", 3_600_000).await.unwrap();
    gateway.follow_to(*world.control.revisions().borrow()).await;
    assert!(gateway.state.peers.contains_key(key("hotel").as_slice()));
    gateway.disconnect();
    served.stop().await;
    world.advance_s(HOUR_S);
    world.reopen().await;

    // Before anything is swept: one that asks for everything is not sent it.
    let served = Served::start(&world.control).await;
    let remembered = std::mem::take(&mut gateway.state);
    gateway.connect(served.port).await.unwrap();
    gateway.hear().await.unwrap();
    gateway.acknowledge().await;
    assert_eq!(gateway.heard, "s");
    assert!(!gateway.state.peers.contains_key(key("hotel").as_slice()));
    gateway.disconnect();

    // One that held it lets go of it.
    gateway.state = remembered;
    let expiring = expiring(&world.control);
    gone(&world, "hotel").await;
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(*world.control.revisions().borrow()).await;
    assert!(!gateway.state.peers.contains_key(key("hotel").as_slice()));
    expiring.abort();
}

async fn no_session_outlasts_its_device(engine: Engine) {
    let (world, alice, _) = World::with_alice(engine).await;
    let device = add_for(&world, "hotel", 30 * 60_000).await.unwrap();
    let session = world.grant("hotel").await;
    assert_eq!(session.deadline_ms, device.ends_ms);
    let extend = v1::ExtendSessionRequest {
        id: session.id,
        by_ms: 24 * 3_600_000,
    };
    let admin = world.control.admin();
    let extended = admin.extend_session(Request::new(extend));
    assert_eq!(
        extended.await.unwrap().into_inner().deadline_ms,
        device.ends_ms
    );
    let from = device.addresses[0].parse().unwrap();
    let session = world.log_in(from, &alice).await.unwrap();
    assert_eq!(session.deadline_ms, device.ends_ms);
    // Over, and not swept yet: a login opens nothing.
    world.advance_s(30 * 60);
    assert!(
        world
            .control
            .logins()
            .current(from)
            .await
            .unwrap()
            .is_none()
    );
    world.log_in(from, &alice).await.unwrap();
    assert!(
        world
            .control
            .logins()
            .current(from)
            .await
            .unwrap()
            .is_none()
    );
    for bad in [1, 59_999, 24 * 3_600_000 + 1, u64::MAX] {
        assert!(add_for(&world, "bad", bad).await.is_err(), "{bad}");
    }
}

async fn users_choose_one_to_twenty_four_hours(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    let served = Served::start(&world.control).await;
    let mut gateway = gateway(&world, &served).await;
    gateway.follow_to(*world.control.revisions().borrow()).await;
    gateway.disconnect();
    world.log_in(from, &alice).await.unwrap();
    let own = world.control.logins().self_service();
    let add = async |hours| {
        let public_key = STANDARD.encode(key("hotel"));
        let new = NewDevice {
            name: "Hotel",
            public_key: &public_key,
            hours: Some(hours),
        };
        own.add_device(from, new).await
    };
    for bad in [0, 25, u32::MAX] {
        let refused = add(bad).await;
        assert!(
            matches!(refused, Err(SelfServiceError::Invalid(_))),
            "{bad}"
        );
    }
    let added = add(8).await.unwrap();
    let ends_ms = Some(world.now_ms() + 8 * HOUR_S * 1000);
    assert_eq!(added.device.ends_ms, ends_ms);
    let list = own.devices(from).await.unwrap();
    assert!(list.devices.iter().any(|device| device.ends_ms == ends_ms));
}
