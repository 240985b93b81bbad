//! The administrators' socket.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use portcullis_control::ControlError;
use portcullis_proto::v1::StatusRequest;
use portcullis_proto::v1::admin_client::AdminClient;

use crate::fixture::{Engine, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_is_private_and_taken_over_only_when_nobody_listens() {
    let world = World::new(Engine::Sqlite).await;
    let path = world.config.admin_socket.clone();
    // Left behind by a process that was killed.
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    let control = world.control.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        control
            .serve_admin(async { stopped.await.unwrap_or_default() })
            .await
    });
    let url = format!("unix:{}", path.display());
    let mut client = loop {
        match AdminClient::connect(url.clone()).await {
            Ok(client) => break client,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    };
    let status = client.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.ca_fingerprint, world.control.ca_fingerprint());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = world.control.serve_admin(std::future::pending()).await;
    assert!(
        matches!(second, Err(ControlError::SocketInUse(_))),
        "{second:?}"
    );
    drop(client);
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    assert!(!path.exists());
    // Never in place of a file.
    std::fs::write(&path, "precious").unwrap();
    assert!(
        world
            .control
            .serve_admin(std::future::pending())
            .await
            .is_err()
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn an_occupied_port_is_named() {
    let mut world = World::new(Engine::Sqlite).await;
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    world.config.listen = occupied.local_addr().unwrap();
    world.reopen().await;
    let error = world
        .control
        .serve_gateways(std::future::pending())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ControlError::Listen { address, .. } if *address == world.config.listen)
    );
}
