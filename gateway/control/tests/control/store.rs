//! The store's own promises, and the checks on what goes into it.

use std::collections::BTreeSet;

use portcullis_control::{Control, ControlError, StoreError};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use sqlx::AnyConnection;
use sqlx::Connection as _;
use tonic::{Code, Request};

use crate::fixture::{Engine, World, key};

crate::on_both!(
    a_database_of_a_newer_version_is_refused,
    addresses_are_the_lowest_free_ones_of_each_pool,
    a_full_pool_is_an_error_and_changes_nothing,
    an_mtu_that_gateways_refuse_is_refused,
    overlapping_pools_are_refused,
    names_and_keys_are_unique_and_valid,
    sessions_expire_in_the_store,
    the_audit_is_kept_for_as_long_as_configured,
    extending_moves_the_deadline,
    two_processes_on_one_store_converge,
    everything_survives_a_restart,
);

async fn a_database_of_a_newer_version_is_refused(engine: Engine) {
    let world = World::new(engine).await;
    world.control.close().await;
    let mut connection = AnyConnection::connect(&world.config.database)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         SELECT 9999, 'from the future', success, checksum, 0 FROM _sqlx_migrations
         WHERE version = 1",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    let opened = Control::open(world.config.clone()).await;
    let Err(ControlError::Store(StoreError::Newer(9999))) = opened else {
        panic!("{opened:?}")
    };
}

async fn addresses_are_the_lowest_free_ones_of_each_pool(engine: Engine) {
    let world = World::new(engine).await;
    world
        .location("office", &["10.77.0.0/24", "fd77::/64"])
        .await
        .unwrap();
    world.user("alice").await;
    for (name, v4, v6) in [
        ("a", "10.77.0.2", "fd77::2"),
        ("b", "10.77.0.3", "fd77::3"),
        ("c", "10.77.0.4", "fd77::4"),
    ] {
        assert_eq!(
            world.device(name, "alice").await.device.unwrap().addresses,
            [v4, v6]
        );
    }
    let request = v1::NameRequest { name: "b".into() };
    world
        .control
        .admin()
        .remove_device(Request::new(request))
        .await
        .unwrap();
    assert_eq!(
        world.device("d", "alice").await.device.unwrap().addresses,
        ["10.77.0.3", "fd77::3"]
    );
    assert_eq!(
        world.device("e", "alice").await.device.unwrap().addresses,
        ["10.77.0.5", "fd77::5"]
    );
}

async fn a_full_pool_is_an_error_and_changes_nothing(engine: Engine) {
    let world = World::new(engine).await;
    world
        .location("tiny", &["fd77::/64", "10.77.0.0/30"])
        .await
        .unwrap();
    world.user("alice").await;
    world.device("only", "alice").await;
    let before = *world.control.revisions().borrow();
    let refused = world
        .try_device("more", "alice", "", &key("more"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("10.77.0.0/30"), "{refused}");
    let request = v1::ListDevicesRequest::default();
    let devices = world
        .control
        .admin()
        .list_devices(Request::new(request))
        .await
        .unwrap();
    assert_eq!(devices.into_inner().devices.len(), 1);
    assert_eq!(*world.control.revisions().borrow(), before);
}

async fn an_mtu_that_gateways_refuse_is_refused(engine: Engine) {
    let world = World::new(engine).await;
    let add = async |mtu: u32| {
        let location = v1::Location {
            name: format!("mtu{mtu}"),
            pools: vec![format!("10.{}.0.0/24", mtu % 256)],
            endpoint: "vpn.example.org:51820".into(),
            mtu,
            ..Default::default()
        };
        let request = v1::AddLocationRequest {
            location: Some(location),
            ..Default::default()
        };
        world
            .control
            .admin()
            .add_location(Request::new(request))
            .await
    };
    let refused = add(1279).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("1280"), "{refused}");
    add(1280).await.unwrap();
}

async fn overlapping_pools_are_refused(engine: Engine) {
    let world = World::new(engine).await;
    world
        .location("office", &["10.77.0.0/24", "fd77::/64"])
        .await
        .unwrap();
    let refused = world
        .location("inside", &["10.77.0.128/25"])
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("office"), "{refused}");
    assert!(world.location("around", &["10.0.0.0/8"]).await.is_err());
    assert!(world.location("six", &["fd77::/48"]).await.is_err());
    let refused = world
        .location("itself", &["10.1.0.0/24", "10.1.0.0/25"])
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for bad in ["10.2.0.1/24", "10.2.0.0/31", "10.2.0.0", "10.2.0.0/33", ""] {
        assert_eq!(
            world.location("bad", &[bad]).await.unwrap_err().code(),
            Code::InvalidArgument
        );
    }
    assert!(world.location("none", &[]).await.is_err());
    world.location("beside", &["10.77.1.0/24"]).await.unwrap();
}

async fn names_and_keys_are_unique_and_valid(engine: Engine) {
    let world = World::new(engine).await;
    world.location("office", &["10.77.0.0/24"]).await.unwrap();
    world.location("lab", &["10.78.0.0/24"]).await.unwrap();
    world.user("alice").await;
    world
        .try_device("laptop", "alice", "office", &key("laptop"))
        .await
        .unwrap();
    for (device, user, location, key, code) in [
        (
            "laptop",
            "alice",
            "office",
            key("other"),
            Code::AlreadyExists,
        ),
        ("other", "alice", "lab", key("laptop"), Code::AlreadyExists),
        ("other", "alice", "lab", [0; 32], Code::InvalidArgument),
        ("other", "bob", "lab", key("other"), Code::NotFound),
        ("other", "alice", "attic", key("other"), Code::NotFound),
        ("other", "alice", "", key("other"), Code::InvalidArgument),
        ("-rf", "alice", "lab", key("other"), Code::InvalidArgument),
    ] {
        let refused = world
            .try_device(device, user, location, &key)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    let short = v1::AddUserRequest {
        name: "bob".into(),
        password: "seven77".into(),
        ..Default::default()
    };
    let refused = world
        .control
        .admin()
        .add_user(Request::new(short))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for weak in [
        "Password123",
        "bob's password",
        "bobbobbob",
        &"x".repeat(257),
    ] {
        let weak = v1::AddUserRequest {
            name: "bob".into(),
            password: weak.into(),
            ..Default::default()
        };
        let admin = world.control.admin();
        let refused = admin.add_user(Request::new(weak)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        // The same rules for a new password, whether the user is named or given by id.
        let named = v1::NameRequest {
            name: "alice".into(),
        };
        let alice = admin.get_user(Request::new(named)).await.unwrap();
        for name in ["alice".into(), alice.into_inner().id] {
            let reset = v1::ResetUserRequest {
                name,
                password: "alice in wonderland".into(),
                ..Default::default()
            };
            let refused = admin.reset_user(Request::new(reset)).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        }
    }
    let again = v1::AddUserRequest {
        name: "alice".into(),
        password: "long enough".into(),
        ..Default::default()
    };
    let refused = world
        .control
        .admin()
        .add_user(Request::new(again))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert_eq!(refused.message(), "there is a user \"alice\" already");
}

async fn sessions_expire_in_the_store(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    let session = world.grant("laptop").await;
    let control = world.control.clone();
    let sweeper = tokio::spawn(async move { control.run_expiry(std::future::pending()).await });
    world.advance_s(3_599);
    // Any change wakes the sweeper.
    world.user("bob").await;
    assert_eq!(world.sessions().await[0].state, "live");
    world.advance_s(1);
    world.user("carol").await;
    let ended = async {
        while world.sessions().await[0].state != "expired" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), ended)
        .await
        .unwrap();
    let ended = &world.sessions().await[0];
    assert_eq!(
        (ended.id.as_str(), ended.ended_by.as_str()),
        (session.id.as_str(), "system")
    );
    let audit = world.audit().await;
    let record = audit
        .iter()
        .find(|record| record.action == "session.expire");
    assert!(record.unwrap().detail.contains(&session.id), "which one");
    sweeper.abort();
}

async fn the_audit_is_kept_for_as_long_as_configured(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    let sweep = async || {
        let control = world.control.clone();
        let sweeper = tokio::spawn(async move { control.run_expiry(std::future::pending()).await });
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        sweeper.abort();
    };
    let before = world.audit().await.len();
    world.advance_s(399 * 86_400);
    world.user("bob").await;
    sweep().await;
    assert_eq!(world.audit().await.len(), before + 1);
    world.advance_s(2 * 86_400);
    sweep().await;
    assert_eq!(world.audit().await.len(), 1);
}

async fn extending_moves_the_deadline(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    let session = world.grant("laptop").await;
    let extend = |id: &str| v1::ExtendSessionRequest {
        id: id.into(),
        by_ms: 1_000,
    };
    let admin = world.control.admin();
    let extended = admin
        .extend_session(Request::new(extend(&session.id)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(extended.deadline_ms, session.deadline_ms + 1_000);
    world.advance_s(3_600);
    admin
        .extend_session(Request::new(extend(&session.id)))
        .await
        .unwrap();
    world.advance_s(2);
    // Past its deadline it is over, swept or not: the kernel has closed it.
    let refused = admin
        .extend_session(Request::new(extend(&session.id)))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let unknown = admin
        .extend_session(Request::new(extend("nonsense")))
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

async fn two_processes_on_one_store_converge(engine: Engine) {
    let world = World::new(engine).await;
    let other = crate::fixture::open(&world.config, &world.now).await;
    assert_eq!(other.ca_fingerprint(), world.control.ca_fingerprint());
    let mut revisions = other.revisions();
    revisions.mark_unchanged();
    // Both write at once; neither loses a change.
    let adding = (0..10).map(|n| {
        let admin = if n % 2 == 0 {
            world.control.admin()
        } else {
            other.admin()
        };
        let location = v1::Location {
            name: format!("l{n}"),
            pools: vec![format!("10.{n}.0.0/24")],
            endpoint: "vpn:1".into(),
            ..Default::default()
        };
        tokio::spawn(async move {
            let request = v1::AddLocationRequest {
                location: Some(location),
                ..Default::default()
            };
            admin.add_location(Request::new(request)).await.unwrap();
        })
    });
    for added in adding.collect::<Vec<_>>() {
        added.await.unwrap();
    }
    let caught_up = revisions.wait_for(|revision| *revision == 10);
    tokio::time::timeout(std::time::Duration::from_secs(5), caught_up)
        .await
        .unwrap()
        .unwrap();
    let names: BTreeSet<_> = other
        .locations()
        .await
        .unwrap()
        .into_iter()
        .map(|l| l.name)
        .collect();
    assert_eq!(names.len(), 10);
    other.close().await;
}

async fn everything_survives_a_restart(engine: Engine) {
    let (mut world, alice, from) = World::with_alice(engine).await;
    let session = world.log_in(from, &alice).await.unwrap();
    let fingerprint = world.control.ca_fingerprint();
    let audit = world.audit().await.len();
    world.reopen().await;
    assert_eq!(world.control.ca_fingerprint(), fingerprint);
    assert_eq!(world.audit().await.len(), audit);
    assert_eq!(
        world
            .control
            .logins()
            .current(from)
            .await
            .unwrap()
            .unwrap()
            .id,
        session.id
    );
    let request = v1::StatusRequest {};
    let status = world
        .control
        .admin()
        .status(Request::new(request))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (status.users, status.devices, status.live_sessions),
        (1, 1, 1)
    );
    assert!(!status.store.contains('@'), "{}", status.store);
}

#[tokio::test]
async fn what_is_no_database_is_refused_with_a_reason() {
    let world = World::new(Engine::Sqlite).await;
    let path = world.dir.path().join("text");
    std::fs::write(
        &path,
        "this is not a database, but long enough to look at ".repeat(100),
    )
    .unwrap();
    for (url, expected) in [
        (format!("sqlite://{}", path.display()), "damaged"),
        ("mysql://root:hunter2@host/db".to_owned(), "no database URL"),
        ("sqlite:///proc/nowhere/x.db".to_owned(), "cannot reach"),
        (
            "postgres://u:hunter2@127.0.0.1:1/db".to_owned(),
            "cannot reach the database postgres 127.0.0.1:1/db",
        ),
    ] {
        let mut config = world.config.clone();
        config.database = url.clone();
        let error = Control::open(config).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{url}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
