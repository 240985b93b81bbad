//! Sessions that live as long as an SSH connection: who may open one, and all that ends it.

use std::time::Duration;

use portcullis_control::{HeldStream, Level, OperationError, SshConfig, SshLevel, SshSessions};
use portcullis_proto::v1;
use portcullis_proto::v1::ssh_client::SshClient;
use tokio::net::UnixStream;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::fixture::{Engine, World};
use crate::outside::set_factors;
use crate::session_key;

crate::on_both!(
    a_session_lives_as_long_as_its_stream,
    what_ends_a_session_is_told_to_its_holder,
    a_session_survives_a_restart_if_its_holder_comes_back,
    a_holder_that_went_unseen_loses_its_session,
    a_newer_session_of_the_device_is_told_from_a_lost_one,
    only_the_users_own_devices_where_ssh_may,
    no_level_is_made_up,
    nobody_holds_anothers_session,
    one_user_opens_few_at_once,
);

const SOON: Duration = Duration::from_secs(10);

fn config(level: SshLevel) -> SshConfig {
    SshConfig {
        locations: vec!["office".into()],
        level,
        socket: "unused".into(),
    }
}

/// Alice with a laptop, at an office whose sessions SSH may open.
async fn world(engine: Engine) -> World {
    let (mut world, ..) = World::with_alice(engine).await;
    world.config.ssh = Some(config(SshLevel::Mfa));
    world.reopen().await;
    world
}

fn of(device: &str, address: &str, session: &str) -> v1::HoldRequest {
    v1::HoldRequest {
        device: device.into(),
        address: address.into(),
        session: session.into(),
    }
}

async fn open(ssh: &SshSessions, request: &v1::HoldRequest) -> (HeldStream, v1::SessionInfo) {
    let mut stream = ssh.hold("alice", request).await.unwrap();
    let session = next(&mut stream).await.expect("a session");
    assert_eq!(session.state, "live");
    (stream, session)
}

async fn next(stream: &mut HeldStream) -> Option<v1::SessionInfo> {
    let held = tokio::time::timeout(SOON, stream.next()).await.unwrap();
    held.map(|held| held.unwrap().session.unwrap())
}

async fn state(world: &World, id: &str) -> String {
    let sessions = world.sessions().await;
    let session = sessions.iter().find(|session| session.id == id).unwrap();
    session.state.clone()
}

async fn ends_as(world: &World, id: &str, wanted: &str) {
    for _ in 0..100 {
        if state(world, id).await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{} is not {wanted}", state(world, id).await);
}

async fn a_session_lives_as_long_as_its_stream(engine: Engine) {
    let world = world(engine).await;
    let (stream, session) = open(&world.control.ssh(), &of("", "", "")).await;
    assert_eq!(
        (session.user.as_str(), session.device.as_str()),
        ("alice", "laptop")
    );
    assert_eq!(session.level, i32::from(Level::Mfa));
    assert_eq!(session.deadline_ms, world.now_ms() + 3_600_000);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(state(&world, &session.id).await, "live");
    drop(stream);
    ends_as(&world, &session.id, "revoked").await;
    let audit = world.audit().await;
    let actions: Vec<&str> = audit.iter().map(|record| record.action.as_str()).collect();
    assert!(actions.contains(&"ssh.grant") && actions.contains(&"session.logout"));
}

async fn what_ends_a_session_is_told_to_its_holder(engine: Engine) {
    let world = world(engine).await;
    let (mut stream, session) = open(&world.control.ssh(), &of("", "", "")).await;
    let target = v1::revoke_sessions_request::Target::User("alice".into());
    world.revoke(target, 0).await;
    assert_eq!(next(&mut stream).await.unwrap().state, "revoked");
    assert!(next(&mut stream).await.is_none());
    drop(stream);

    let (mut stream, _) = open(&world.control.ssh(), &of("", "", "")).await;
    world.advance_s(3601);
    let control = world.control.clone();
    let sweeping = tokio::spawn(async move { control.run_expiry(std::future::pending()).await });
    assert_eq!(next(&mut stream).await.unwrap().state, "expired");
    sweeping.abort();
    assert_ne!(state(&world, &session.id).await, "live");
}

async fn a_session_survives_a_restart_if_its_holder_comes_back(engine: Engine) {
    let mut world = world(engine).await;
    let ssh = world.control.ssh();
    let (mut stream, session) = open(&ssh, &of("", "", "")).await;
    ssh.stop();
    assert!(next(&mut stream).await.is_none(), "without a last word");
    drop(stream);
    world.reopen().await;
    // However long it was away: from now on there is the time of a lease.
    world.advance_s(600);
    let control = world.control.clone();
    let sweeping = tokio::spawn(async move { control.run_expiry(std::future::pending()).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (stream, again) = open(&world.control.ssh(), &of("", "", &session.id)).await;
    assert_eq!(again.id, session.id);
    assert_eq!(again.deadline_ms, session.deadline_ms, "nothing is won");
    drop(stream);
    ends_as(&world, &session.id, "revoked").await;
    // What is over cannot be held on.
    let ssh = world.control.ssh();
    let mut over = ssh.hold("alice", &of("", "", &session.id)).await.unwrap();
    assert_eq!(next(&mut over).await.unwrap().state, "revoked");
    assert!(next(&mut over).await.is_none());
    assert_eq!(state(&world, &session.id).await, "revoked");
    sweeping.abort();
}

async fn a_holder_that_went_unseen_loses_its_session(engine: Engine) {
    let world = world(engine).await;
    let ssh = world.control.ssh();
    let (stream, session) = open(&ssh, &of("", "", "")).await;
    ssh.stop();
    drop(stream);
    let control = world.control.clone();
    let sweeping = tokio::spawn(async move { control.run_expiry(std::future::pending()).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(state(&world, &session.id).await, "live");
    world.advance_s(31);
    ends_as(&world, &session.id, "revoked").await;
    let audit = world.audit().await;
    let lapse = audit.iter().find(|record| record.action == "ssh.lapse");
    assert!(lapse.unwrap().detail.contains(&session.id));
    sweeping.abort();
}

async fn a_newer_session_of_the_device_is_told_from_a_lost_one(engine: Engine) {
    let world = world(engine).await;
    let (mut first, older) = open(&world.control.ssh(), &of("", "", "")).await;
    let (second, newer) = open(&world.control.ssh(), &of("", "", "")).await;
    assert_eq!(next(&mut first).await.unwrap().state, "replaced");
    drop(first);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(state(&world, &newer.id).await, "live", "it is the second's");
    assert_eq!(state(&world, &older.id).await, "replaced");
    drop(second);
    ends_as(&world, &newer.id, "revoked").await;
}

fn refusal(result: Result<HeldStream, OperationError>) -> tonic::Status {
    result.expect_err("a refusal").into()
}

async fn only_the_users_own_devices_where_ssh_may(engine: Engine) {
    let world = world(engine).await;
    world.user("bob").await;
    world.device("bobs", "bob").await;
    let phone = world.device("phone", "alice").await.device.unwrap();
    let ssh = world.control.ssh();
    let hold = async |user: &str, request: v1::HoldRequest| ssh.hold(user, &request).await;
    // Two devices: which one is told by its name, or by where the connection comes from.
    let which = refusal(hold("alice", of("", "198.51.100.7", "")).await);
    assert_eq!(which.code(), Code::InvalidArgument);
    assert!(which.message().contains("laptop, phone"), "{which}");
    let theirs = refusal(hold("alice", of("bobs", "", "")).await);
    assert_eq!(theirs.code(), Code::InvalidArgument);
    assert!(!theirs.message().contains("bobs, "), "{theirs}");
    let mut by_address = hold("alice", of("", &phone.addresses[0], ""))
        .await
        .unwrap();
    assert_eq!(next(&mut by_address).await.unwrap().device, "phone");
    let mut by_name = hold("alice", of("laptop", &phone.addresses[0], ""))
        .await
        .unwrap();
    assert_eq!(next(&mut by_name).await.unwrap().device, "laptop");
    // An address of somebody else's is nobody's.
    let bobs = world.device("second", "bob").await.device.unwrap();
    let theirs = refusal(hold("alice", of("", &bobs.addresses[0], "")).await);
    assert_eq!(theirs.code(), Code::InvalidArgument);

    let nobody = refusal(hold("carol", of("", "", "")).await);
    assert_eq!(nobody.code(), Code::FailedPrecondition);
    session_key::location(&world, "session-key").await.unwrap();
    let elsewhere = refusal(hold("alice", of("safe", "", "")).await);
    assert_eq!(elsewhere.code(), Code::InvalidArgument);
    let admin = world.control.admin();
    let disable = v1::SetUserDisabledRequest {
        name: "bob".into(),
        disabled: true,
    };
    use portcullis_proto::v1::admin_server::Admin as _;
    admin
        .set_user_disabled(tonic::Request::new(disable))
        .await
        .unwrap();
    let disabled = refusal(hold("bob", of("bobs", "", "")).await);
    assert_eq!(disabled.code(), Code::FailedPrecondition);
}

async fn no_level_is_made_up(engine: Engine) {
    let mut world = world(engine).await;
    set_factors(&world, "office", &["passkey"], Level::PhishingResistant).await;
    let refused = refusal(world.control.ssh().hold("alice", &of("", "", "")).await);
    assert_eq!(refused.code(), Code::FailedPrecondition);
    world.config.ssh = Some(config(SshLevel::PhishingResistant));
    world.reopen().await;
    let (_stream, session) = open(&world.control.ssh(), &of("", "", "")).await;
    assert_eq!(session.level, i32::from(Level::PhishingResistant));
    // Without the table there is nothing to be had.
    world.config.ssh = None;
    world.reopen().await;
    let refused = refusal(world.control.ssh().hold("alice", &of("", "", "")).await);
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

async fn nobody_holds_anothers_session(engine: Engine) {
    let world = world(engine).await;
    world.user("bob").await;
    let (_stream, session) = open(&world.control.ssh(), &of("", "", "")).await;
    let theirs = refusal(
        world
            .control
            .ssh()
            .hold("bob", &of("", "", &session.id))
            .await,
    );
    let none = refusal(world.control.ssh().hold("bob", &of("", "", "none")).await);
    assert_eq!(
        (theirs.code(), none.code()),
        (Code::NotFound, Code::NotFound)
    );
    // One that no SSH connection has opened is not theirs to end.
    let granted = world.grant("laptop").await;
    let refused = refusal(
        world
            .control
            .ssh()
            .hold("alice", &of("", "", &granted.id))
            .await,
    );
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(state(&world, &granted.id).await, "live");
}

async fn one_user_opens_few_at_once(engine: Engine) {
    let world = world(engine).await;
    world.user("bob").await;
    world.device("bobs", "bob").await;
    let ssh = world.control.ssh();
    let (_first, session) = open(&ssh, &of("", "", "")).await;
    let mut opened = 1;
    while ssh.hold("alice", &of("", "", "")).await.is_ok() {
        opened += 1;
        assert!(opened <= 20, "without end");
    }
    assert!(opened >= 5, "{opened}");
    // Whoever comes back is not counted, and neither is anybody else.
    ssh.hold("alice", &of("", "", &session.id)).await.unwrap();
    ssh.hold("bob", &of("", "", "")).await.unwrap();
}

/// Who calls is told by the socket: tests run as root, who has no account.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_is_for_users_and_not_for_root() {
    let mut world = world(Engine::Sqlite).await;
    let socket = world.dir.path().join("ssh.sock");
    world.config.ssh = Some(SshConfig {
        socket: socket.clone(),
        ..config(SshLevel::Mfa)
    });
    world.reopen().await;
    let control = world.control.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let stopped = async { drop(stopped.await) };
        control.serve_ssh(stopped).await
    });
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move {
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(
                UnixStream::connect(socket).await?,
            ))
        }
    });
    let channel = Endpoint::from_static("http://control")
        .connect_with_connector(connector)
        .await
        .unwrap();
    let refused = SshClient::new(channel).hold(of("", "", "")).await;
    if rustix::process::geteuid().is_root() {
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    }
    stop.send(()).unwrap();
    tokio::time::timeout(SOON, serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
