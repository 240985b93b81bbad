//! A device that was invited makes its key known, once, and opens nothing by that.

use portcullis_control::{ConnectProof, LoginError, SelfServiceError};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use tonic::{Code, Request, Status};

use crate::connect::{prove, public, vault};
use crate::fixture::{Engine, World};

crate::on_both!(
    an_invited_device_is_known_and_logs_in,
    an_invitation_is_for_one_device_of_one_user_at_one_location,
    an_invitation_ends,
    only_session_key_locations_invite,
);

const TABLET: [u8; 32] = [21; 32];

async fn invite(world: &World, user: &str, location: &str) -> Result<v1::DeviceInvite, Status> {
    let request = v1::InviteDeviceRequest {
        user: user.into(),
        location: location.into(),
        valid_ms: 0,
    };
    let admin = world.control.admin();
    Ok(admin
        .invite_device(Request::new(request))
        .await?
        .into_inner())
}

/// With a page that devices connect at.
async fn scene(engine: Engine) -> (World, crate::gateway::Served, crate::gateway::Gateway) {
    let (world, _, served, gateway) = vault(engine).await;
    let page = "https://vpn.example.org:8443/enrol";
    world.control.serve_enrolments_at(page.into());
    (world, served, gateway)
}

async fn enrol(
    world: &World,
    device: [u8; 32],
    username: &str,
    token: &str,
) -> Result<(), SelfServiceError> {
    let connects = world.control.connects();
    let proof = prove(&connects, device, "vault", username);
    connects.enrol(&proof, &token.into(), "Tablet").await
}

async fn devices(world: &World) -> usize {
    let request = v1::ListDevicesRequest::default();
    let admin = world.control.admin();
    let listed = admin.list_devices(Request::new(request)).await.unwrap();
    listed.into_inner().devices.len()
}

fn is_refused(result: Result<(), SelfServiceError>) {
    assert!(
        matches!(result, Err(SelfServiceError::Invitation)),
        "{result:?}"
    );
}

async fn an_invited_device_is_known_and_logs_in(engine: Engine) {
    let (world, _served, gateway) = scene(engine).await;
    let connects = world.control.connects();
    let begin = async || {
        connects
            .begin(prove(&connects, TABLET, "vault", "alice"))
            .await
    };
    let unknown = begin().await;
    assert!(matches!(unknown, Err(LoginError::Refused)), "{unknown:?}");

    let invited = invite(&world, "alice", "vault").await.unwrap();
    assert_eq!(invited.server, "https://vpn.example.org:8443");
    assert!(!format!("{invited:?}").contains(&invited.token));
    let before = devices(&world).await;
    enrol(&world, TABLET, "alice", &invited.token)
        .await
        .unwrap();
    assert_eq!(devices(&world).await, before + 1);
    let tablet = public(TABLET);
    assert!(!gateway.state.peers.contains_key(tablet.as_slice()));
    // It wants the second factor: the password was right, and the device is one of hers.
    begin().await.unwrap();
    is_refused(enrol(&world, [22; 32], "alice", &invited.token).await);
    let audit = world.audit().await;
    for action in ["device.invite", "device.add", "device.enrol"] {
        assert!(
            audit.iter().any(|record| record.action == action),
            "{action}"
        );
    }
}

async fn an_invitation_is_for_one_device_of_one_user_at_one_location(engine: Engine) {
    let (world, _served, _gateway) = scene(engine).await;
    world.user("bob").await;
    let invited = invite(&world, "alice", "vault").await.unwrap();
    let token = invited.token.as_str();
    is_refused(enrol(&world, TABLET, "bob", token).await);
    is_refused(enrol(&world, TABLET, "alice", "portcullis_other").await);
    let connects = world.control.connects();
    let elsewhere = prove(&connects, TABLET, "office", "alice");
    is_refused(connects.enrol(&elsewhere, &token.into(), "Tablet").await);
    // Without the key that it names.
    let foreign = ConnectProof {
        proof: prove(&connects, [22; 32], "vault", "alice").proof,
        ..prove(&connects, TABLET, "vault", "alice")
    };
    let refused = connects.enrol(&foreign, &token.into(), "Tablet").await;
    assert!(
        matches!(refused, Err(SelfServiceError::Login(LoginError::Refused))),
        "{refused:?}"
    );
    // A name or a key that cannot be used spends nothing.
    let proof = prove(&connects, TABLET, "vault", "alice");
    let refused = connects.enrol(&proof, &token.into(), "two\nlines").await;
    assert!(
        matches!(refused, Err(SelfServiceError::Invalid(_))),
        "{refused:?}"
    );
    let refused = enrol(&world, crate::connect::LAPTOP, "alice", token).await;
    assert!(matches!(refused, Err(SelfServiceError::Key)), "{refused:?}");
    // Of two at once, one.
    let (one, other) = tokio::join!(
        enrol(&world, TABLET, "alice", token),
        enrol(&world, [22; 32], "alice", token)
    );
    assert_ne!(one.is_ok(), other.is_ok(), "{one:?} {other:?}");
}

async fn an_invitation_ends(engine: Engine) {
    let (world, _served, _gateway) = scene(engine).await;
    let invited = invite(&world, "alice", "vault").await.unwrap();
    world.advance_s(24 * 3600);
    is_refused(enrol(&world, TABLET, "alice", &invited.token).await);
    // With what the account holds.
    let invited = invite(&world, "alice", "vault").await.unwrap();
    let request = v1::ResetFactorsRequest {
        name: "alice".into(),
        reason: "laptop stolen".into(),
        ..Default::default()
    };
    let admin = world.control.admin();
    admin.reset_factors(Request::new(request)).await.unwrap();
    is_refused(enrol(&world, TABLET, "alice", &invited.token).await);
}

async fn only_session_key_locations_invite(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    let refused = invite(&world, "alice", "office").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    let page = "https://vpn.example.org/enrol";
    world.control.serve_enrolments_at(page.into());
    for (user, location, code) in [
        ("alice", "office", Code::FailedPrecondition),
        ("nobody", "office", Code::NotFound),
        ("alice", "nowhere", Code::NotFound),
    ] {
        let refused = invite(&world, user, location).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
}
