//! What who has just enrolled may add from the same page: a first passkey and a first device.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_control::{
    AddedDevice, EnrolError, EnrolmentId, Enrolments, FirstAdmin, Level, NewDevice, Newcomer,
    PasskeyError, PasskeyView, PortalName, SelfServiceError,
};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use serde_json::Value;
use tonic::{Code, Request, Status};

use crate::authenticator::Authenticator;
use crate::enrol::{FROM, PAGE, account, begin, choose, token};
use crate::fixture::{Engine, World, key};
use crate::gateway::{Gateway, Served, enroll};
use crate::mfa;

const NAME: &str = "login.example.com";
const ORIGIN: &str = "https://login.example.com:8443";
const PHRASE: &str = "a fine new phrase";

crate::on_both!(
    from_a_link_to_a_session_where_passkeys_alone_open_one,
    a_device_is_added_once_and_where_the_link_says,
    without_a_location_in_the_link_no_device_is_added,
    what_may_be_added_ends_with_time_a_newer_link_and_the_account,
    a_location_of_session_keys_is_refused_in_a_link,
    the_first_administrator_adds_a_device_at_the_only_location,
    a_first_passkey_is_the_first,
    no_answer_counts_twice_and_none_after_five_minutes,
    a_full_account_has_no_room,
);

/// A location with a gateway that has connected, and links.
async fn new_world(engine: Engine) -> (World, Served, Gateway) {
    let world = World::new(engine).await;
    world.control.serve_enrolments_at(PAGE.into());
    world
        .location("office", &["10.77.0.0/24", "fd77::/64"])
        .await
        .unwrap();
    let served = Served::start(&world.control).await;
    let token = world.control.gateway_token("gw", "office").await.unwrap();
    let enrolled = enroll(&world.control, served.port, token.expose())
        .await
        .unwrap();
    let mut gateway = Gateway::new(enrolled);
    gateway.connect(served.port).await.unwrap();
    (world, served, gateway)
}

fn enrolments(world: &World) -> Enrolments {
    let name = PortalName::parse(NAME).unwrap();
    let passkeys = world.control.passkeys(name, &[8443]).unwrap();
    world.control.enrolments().with_passkeys(passkeys)
}

async fn try_invite(world: &World, user: &str, location: &str) -> Result<String, Status> {
    let request = v1::InviteUserRequest {
        name: user.into(),
        valid_ms: 0,
        location: location.into(),
    };
    let admin = world.control.admin();
    let link = admin.invite_user(Request::new(request)).await?.into_inner();
    assert_eq!(link.location, location);
    Ok(token(&link.url))
}

/// Enrols by the link, to the last step.
async fn enrol(world: &World, token: &str) -> Newcomer {
    let id = begin(world, token).await.unwrap();
    let account = account(choose(world, &id, PHRASE).await.unwrap());
    let code = account.code(world.now_ms());
    let enrolled = enrolments(world).confirm(FROM, &id, &code).await.unwrap();
    assert_ne!(enrolled.newcomer.id.as_str(), id.as_str(), "another token");
    enrolled.newcomer
}

/// Ada, who is there without factors, enrols by a new link.
async fn ada(world: &World, location: &str) -> Newcomer {
    let request = v1::AddUserRequest {
        name: "ada".into(),
        invite: true,
        ..Default::default()
    };
    let added = world.control.admin().add_user(Request::new(request)).await;
    added.unwrap();
    enrol(world, &try_invite(world, "ada", location).await.unwrap()).await
}

async fn add(world: &World, id: &EnrolmentId, device: &str) -> Result<AddedDevice, EnrolError> {
    let new = NewDevice {
        name: device,
        public_key: &STANDARD.encode(key(device)),
        hours: None,
    };
    enrolments(world).add_device(id, new).await
}

async fn options(world: &World, id: &EnrolmentId) -> Result<Value, EnrolError> {
    let options = enrolments(world).begin_passkey(id).await?;
    Ok(serde_json::to_value(options).unwrap())
}

async fn finish(
    world: &World,
    id: &EnrolmentId,
    credential: &Value,
) -> Result<PasskeyView, EnrolError> {
    let credential = serde_json::from_value(credential.clone()).unwrap();
    enrolments(world)
        .finish_passkey(FROM, id, "My key", &credential)
        .await
}

fn authenticator() -> Authenticator {
    Authenticator::new("key", ORIGIN, NAME)
}

async fn audited(world: &World, action: &str) -> Vec<v1::AuditRecord> {
    let mut records = world.audit().await;
    records.retain(|record| record.action == action);
    records
}

async fn from_a_link_to_a_session_where_passkeys_alone_open_one(engine: Engine) {
    let (mut world, _served, mut gateway) = new_world(engine).await;
    let request = v1::SetLocationRequest {
        preset: "aal3".into(),
        ..mfa::office()
    };
    mfa::set(&world, request).await.unwrap();
    let newcomer = ada(&world, "office").await;
    assert!(newcomer.passkey);
    assert_eq!(newcomer.device_at.as_deref(), Some("office"));

    let device = add(&world, &newcomer.id, "laptop").await.unwrap();
    assert_eq!(device.tunnel.endpoint, "vpn.example.org:51820");
    let from: IpAddr = device.device.addresses[0].parse().unwrap();
    let mut key = authenticator();
    let asked = options(&world, &newcomer.id).await.unwrap();
    world.reopen().await;
    let made = key.create(&asked);
    let passkey = finish(&world, &newcomer.id, &made).await.unwrap();
    assert_eq!(passkey.name, "My key");
    let records = audited(&world, "passkey.add").await;
    assert_eq!(records[0].actor, "user:ada");
    assert!(records[0].detail.contains("198.51.100.7"), "{records:?}");

    // What was read before the restart goes to another control: the session waits for nobody.
    gateway.disconnect();
    let passkeys = world
        .control
        .passkeys(PortalName::parse(NAME).unwrap(), &[8443]);
    let passkeys = passkeys.unwrap();
    let challenge = passkeys.begin_login(from, None).await.unwrap();
    let answer = key.get(&serde_json::to_value(&challenge.options).unwrap());
    let answer = serde_json::from_value(answer).unwrap();
    let session = passkeys
        .finish_login(from, None, &challenge.ceremony, &answer)
        .await
        .unwrap();
    assert_eq!(session.level, Level::PhishingResistant);
}

async fn a_device_is_added_once_and_where_the_link_says(engine: Engine) {
    let (world, _served, _gateway) = new_world(engine).await;
    let newcomer = ada(&world, "office").await;
    let unknown = EnrolmentId::from("portcullis_AAAAAAAA".to_owned());
    let refused = add(&world, &unknown, "laptop").await;
    assert!(matches!(refused, Err(EnrolError::TooLate)), "{refused:?}");
    // What is refused uses nothing up.
    let new = NewDevice {
        name: "laptop",
        public_key: "no key",
        hours: None,
    };
    let refused = enrolments(&world).add_device(&newcomer.id, new).await;
    assert!(
        matches!(refused, Err(EnrolError::Device(SelfServiceError::Key))),
        "{refused:?}"
    );
    let added = add(&world, &newcomer.id, "laptop").await.unwrap();
    assert_eq!(added.device.location, "office");
    assert_eq!(added.device.addresses.len(), 2);
    let refused = add(&world, &newcomer.id, "another").await;
    assert!(matches!(refused, Err(EnrolError::TooLate)), "{refused:?}");
    let records = audited(&world, "device.add").await;
    assert_eq!((records.len(), records[0].actor.as_str()), (1, "user:ada"));
}

async fn without_a_location_in_the_link_no_device_is_added(engine: Engine) {
    let (world, _served, _gateway) = new_world(engine).await;
    let newcomer = ada(&world, "").await;
    assert_eq!(newcomer.device_at, None);
    let refused = add(&world, &newcomer.id, "laptop").await;
    assert!(matches!(refused, Err(EnrolError::TooLate)), "{refused:?}");
}

async fn what_may_be_added_ends_with_time_a_newer_link_and_the_account(engine: Engine) {
    let (world, _served, _gateway) = new_world(engine).await;
    let is_over = async |id: &EnrolmentId| {
        let device = matches!(add(&world, id, "laptop").await, Err(EnrolError::TooLate));
        let passkey = options(&world, id).await;
        let passkey = matches!(
            passkey,
            Err(EnrolError::Passkey(PasskeyError::UnknownCeremony))
        );
        device && passkey
    };
    let first = ada(&world, "office").await;
    let link = try_invite(&world, "ada", "office").await.unwrap();
    assert!(is_over(&first.id).await, "a newer link");
    world.advance_s(60);
    let second = enrol(&world, &link).await;
    world.advance_s(15 * 60);
    assert!(is_over(&second.id).await, "a quarter of an hour");
    let link = try_invite(&world, "ada", "office").await.unwrap();
    let third = enrol(&world, &link).await;
    let request = v1::SetUserDisabledRequest {
        name: "ada".into(),
        disabled: true,
    };
    let admin = world.control.admin();
    admin
        .set_user_disabled(Request::new(request))
        .await
        .unwrap();
    assert!(is_over(&third.id).await, "disabled");
}

async fn a_location_of_session_keys_is_refused_in_a_link(engine: Engine) {
    let (world, _served, _gateway) = new_world(engine).await;
    let location = v1::Location {
        name: "vault".into(),
        pools: vec!["10.88.0.0/24".into()],
        endpoint: "vpn.example.org:51821".into(),
        session_lifetime_ms: 3_600_000,
        idle_timeout_ms: 600_000,
        mode: "session-key".into(),
        ..Default::default()
    };
    let request = v1::AddLocationRequest {
        location: Some(location),
        ..Default::default()
    };
    let admin = world.control.admin();
    admin.add_location(Request::new(request)).await.unwrap();
    world.user("alice").await;
    let refused = try_invite(&world, "alice", "vault").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let missing = try_invite(&world, "alice", "nowhere").await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}

async fn the_first_administrator_adds_a_device_at_the_only_location(engine: Engine) {
    let (world, _served, _gateway) = new_world(engine).await;
    let FirstAdmin::Link { url, .. } = world.control.first_admin().await.unwrap() else {
        panic!("nobody has enrolled");
    };
    let link = token(url.expose());
    world.location("branch", &["10.78.0.0/24"]).await.unwrap();
    let id = begin(&world, &link).await.unwrap();
    choose(&world, &id, PHRASE).await.unwrap();
    // Which of two nobody said; and one that is gone is none.
    let name = "branch".into();
    let admin = world.control.admin();
    let request = Request::new(v1::NameRequest { name });
    admin.remove_location(request).await.unwrap();
    let newcomer = enrol(&world, &link).await;
    assert_eq!(newcomer.device_at.as_deref(), Some("office"));
    add(&world, &newcomer.id, "laptop").await.unwrap();
}

async fn a_first_passkey_is_the_first(engine: Engine) {
    let (world, _served, _gateway) = new_world(engine).await;
    let newcomer = ada(&world, "").await;
    let asked = options(&world, &newcomer.id).await.unwrap();
    let made = authenticator().create(&asked);
    finish(&world, &newcomer.id, &made).await.unwrap();
    let refused = options(&world, &newcomer.id).await;
    assert!(
        matches!(refused, Err(EnrolError::Passkey(PasskeyError::NotFirst))),
        "{refused:?}"
    );
    // Nor by another enrolment: a link stands in for password and code, not for a passkey.
    world.advance_s(60);
    let link = try_invite(&world, "ada", "").await.unwrap();
    let again = enrol(&world, &link).await;
    assert!(!again.passkey);
    let refused = options(&world, &again.id).await;
    assert!(
        matches!(refused, Err(EnrolError::Passkey(PasskeyError::NotFirst))),
        "{refused:?}"
    );
}

async fn no_answer_counts_twice_and_none_after_five_minutes(engine: Engine) {
    let (world, _served, _gateway) = new_world(engine).await;
    let newcomer = ada(&world, "").await;
    let id = &newcomer.id;
    let unknown = async |made: &Value| {
        matches!(
            finish(&world, id, made).await,
            Err(EnrolError::Passkey(PasskeyError::UnknownCeremony))
        )
    };
    let refused = async |made: &Value| {
        matches!(
            finish(&world, id, made).await,
            Err(EnrolError::Passkey(
                PasskeyError::Refused | PasskeyError::NotVerified
            ))
        )
    };
    let asked = options(&world, id).await.unwrap();
    let mut careless = authenticator();
    careless.verifies = false;
    assert!(refused(&careless.create(&asked)).await, "not verified");
    let right = authenticator().create(&asked);
    assert!(unknown(&right).await, "the challenge is spent");
    options(&world, id).await.unwrap();
    assert!(refused(&right).await, "another challenge");
    let asked = options(&world, id).await.unwrap();
    let elsewhere =
        Authenticator::new("key", "https://login.example.net:8443", NAME).create(&asked);
    assert!(refused(&elsewhere).await, "another origin");
    let asked = options(&world, id).await.unwrap();
    world.advance_s(5 * 60 + 1);
    assert!(unknown(&authenticator().create(&asked)).await, "too late");
}

async fn a_full_account_has_no_room(engine: Engine) {
    let (world, _served, _gateway) = new_world(engine).await;
    let newcomer = ada(&world, "office").await;
    for nth in 0..5 {
        world.device(&format!("laptop{nth}"), "ada").await;
    }
    let refused = add(&world, &newcomer.id, "laptop").await;
    assert!(
        matches!(
            refused,
            Err(EnrolError::Device(SelfServiceError::TooMany(5)))
        ),
        "{refused:?}"
    );
}
